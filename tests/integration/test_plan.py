"""How a model would be cut, asked of the cluster, is what the ranks would make of the file."""

import json
import os
import subprocess

from cluster import BIN, Cluster, check, check_equal


def estimate(path, *flags):
    """As a worker is configured that nobody told anything."""
    done = subprocess.run([os.path.join(BIN, "cloister-engine"), "estimate", path, "--json", "--threads",
                           "1", *flags], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def counts(rank, part):
    runs = [layer[part] for layer in rank["of_layer"]]
    return [min(b - a for a, b in runs), max(b - a for a, b in runs)]


with Cluster() as c:
    c.coordinator()
    c.worker("one")
    c.wait_workers(1)
    whole = c.json("models")["models"][0]
    for flags in (["--shards", "1"], ["--shards", "2"], ["--shards", "3"], ["--shards", "4"],
                  ["--shards", "8"], ["--shards", "16"],
                  ["--split", "3,1"], ["--split", "8GiB,6GiB,2GiB,0"],
                  ["--shards", "2", "--stages", "3"]):
        plan = c.json("models", "plan", "m", *flags)
        want = estimate(c.model, *flags)
        check_equal("plan of " + " ".join(flags), plan["digest"], want["digest"])
        check_equal("ranks", len(plan["ranks"]), len(want["ranks"]))
        for got, rank in zip(plan["ranks"], want["ranks"]):
            check_equal("layers", got["layers"], rank["layers"])
            for part in ("heads", "kv_heads", "ffn_columns"):
                check_equal(part, got[part], counts(rank, part))
            for key in ("weights_bytes", "kv_bytes", "total_bytes"):
                check("%s of rank %d of %s: %d, not %d" % (key, rank["rank"], flags, got[key], rank[key]),
                      abs(got[key] - rank[key]) <= 0.01 * rank[key] + 4096)
            check_equal("the total", got["total_bytes"], sum(
                got[key] for key in ("weights_bytes", "kv_bytes", "scratch_bytes", "exchange_bytes")))
        if flags == ["--shards", "1"]:
            check_equal("weights of the whole", plan["ranks"][0]["weights_bytes"],
                        whole["weights_bytes"])
    text = c.cli("models", "plan", "m", "--shards", "2").decode()
    check("a table", len(text.splitlines()) == 4 and "VOCABULARY" in text and "EXCHANGE" in text)
    for flags, code, words in ((["nothing"], 3, b"no worker has a model nothing"),
                               (["m", "--shards", "17"], 2, b"shards"),
                               (["m", "--shards", "8", "--stages", "3"], 2, b"16 ranks are the most"),
                               (["m", "--split", "0,0"], 2, b"all weights are 0"),
                               (["m", "--shards", "2", "--split", "1,2,3"], 2, b"3 weights for 2")):
        done = c.run("models", "plan", *flags)
        check("%s: %r" % (flags, done.stderr), done.returncode == code and words in done.stderr)

    # A worker that is gone says nothing any more, one that is there again does.
    c.kill("one")
    c.wait("the plan to be unknown",
           lambda: c.run("models", "plan", "m", "--shards", "2").returncode in (0, 3))
    c.worker("one")
    c.wait("the plan to be known again",
           lambda: c.run("models", "plan", "m", "--shards", "2").returncode == 0)
print("ok")
