"""An answer can be taken up at any of its tokens, however they came to be stored."""

import os
import signal
import subprocess
import time

from cluster import BIN, Cluster, check, check_equal


def detokenize(model, ids):
    done = subprocess.run([os.path.join(BIN, "cloister-engine"), "detokenize", model],
                          input=" ".join(map(str, ids)).encode(), stdout=subprocess.PIPE, check=True)
    return done.stdout


def answer(c):
    """Its tokens lie in few runs: the coordinator is stopped while they are made."""
    job = c.json("submit", "--model", "m", "--detach", "--max-tokens", "64",
                 "Repeat this: 🙂 日本語 🙂 日本語 🙂 日本語")["id"]
    c.wait("the first token", lambda: c.json("job", job)["usage"]["completion_tokens"] > 0)
    coordinator = c.processes["coordinator"]
    coordinator.send_signal(signal.SIGSTOP)
    time.sleep(0.8)
    coordinator.send_signal(signal.SIGCONT)
    return job, c.json("watch", job)


def from_every_token(c, job, whole):
    ids = whole["ids"]
    text = c.cli("watch", job)
    check("enough tokens", len(ids) > 8)
    middles = 0
    for first in range(len(ids) + 1):
        got = c.json("watch", "--from", str(first), job)
        check_equal("ids from %d" % first, got["ids"], ids[first:])
        want = text[len(detokenize(c.model, ids[:first])):]
        check_equal("text from %d" % first, c.cli("watch", "--from", str(first), job), want)
        middles += want[:1] >= b"\x80" and want[0] < 0xc0
    check("some tokens begin inside a character", middles > 0)
    done = c.run("watch", "--from", str(len(ids) + 1), job)
    check_equal("exit behind the end", done.returncode, 2)
    check("says how many there are", b"%d tokens" % len(ids) in done.stderr)


with Cluster(lease="3s") as cluster:
    cluster.coordinator()
    cluster.worker("one")
    cluster.wait_workers(1)
    name, result = answer(cluster)
    from_every_token(cluster, name, result)
print("ok")
