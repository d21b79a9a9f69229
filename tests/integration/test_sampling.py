"""What a job may ask of its draws arrives at the engine, and what it hears back is whole: logprobs
through lease, store and watch, also where the worker dies in between; several answers to a prompt."""

import json
import os

from cluster import Cluster, check, check_equal

CHAT = {"method": "POST", "url": "/v1/chat/completions"}
ASK = [{"role": "user", "content": "Count from one to forty in words."}]
DRAW = ["--temperature", "0.9", "--seed", "11", "--typical-p", "0.9", "--logit-bias", "28:-100"]


def entries(answer):
    return answer["logprobs"]["content"]


def logprobs_are_whole(c):
    ask = ["submit", "--model", "m", "--max-tokens", "96", "--logprobs", "3", *DRAW,
           ASK[0]["content"]]
    whole = c.json(*ask)
    check_equal("one entry a token", len(entries(whole)), len(whole["ids"]))
    for e in entries(whole):
        check_equal("three of the likeliest", len(e["top_logprobs"]), 3)
        check("in order", e["logprob"] <= e["top_logprobs"][0]["logprob"] <= 0)
        check_equal("bytes are the token's", bytes(e["bytes"]).decode("utf-8", "replace"),
                    e["token"])
    check("the bias keeps its token away", 28 not in whole["ids"])
    content = bytes(b for e in entries(whole) for b in e["bytes"])
    check("the text is in them", whole["text"].encode() in content)
    # The same job again, while its worker dies: the same tokens, and the same numbers. A worker that
    # was done before it died proves nothing; then the next one.
    names = ["one"] + ["after-%d" % i for i in range(1, 21)]
    for dying, heir in zip(names, names[1:]):
        job = c.json(*ask[:1], "--detach", *ask[1:])["id"]
        c.wait("some tokens", lambda: c.json("job", job)["usage"]["completion_tokens"] > 8)
        c.kill(dying)
        c.worker(heir)
        moved = c.json("watch", job)
        check_equal("ids after a death", moved["ids"], whole["ids"])
        check_equal("logprobs after a death", moved["logprobs"], whole["logprobs"])
        if c.json("job", job)["attempts"] == 2:
            break
    check_equal("attempts", c.json("job", job)["attempts"], 2)
    for first in (1, 7, len(whole["ids"])):
        part = c.json("watch", "--from", str(first), job)
        want = entries(whole)[first:]
        check_equal("logprobs from %d" % first, part["logprobs"] and entries(part), want or None)
    asked = c.json("job", job)
    check_equal("what was asked", (asked["sampling"]["logit_bias"], asked["top_logprobs"]),
                ({"28": -100.0}, 3))
    check_equal("nobody else gets them",
                c.json("submit", "--model", "m", "--max-tokens", "2", "Hi")["logprobs"], None)


def stop_tokens_end(c):
    ask = ["submit", "--model", "m", "--max-tokens", "24", "--raw", "Once upon a time"]
    whole = c.json(*ask)
    stop = whole["ids"][9]
    got = c.json(*ask[:-1], "--stop-token", str(stop), ask[-1])
    first = whole["ids"].index(stop)
    check_equal("ends there", (got["finish"], got["ids"]), ("stop", whole["ids"][:first + 1]))
    check("without its text", whole["text"].startswith(got["text"]))


def several_answers(c):
    ask = ["--model", "m", "--max-tokens", "12", "--temperature", "1.2", "Heads or tails?"]
    lines = [json.loads(line) for line in
             c.cli("--json", "submit", "--answers", "3", "--seed", "40", *ask).splitlines()]
    check_equal("three documents", len(lines), 3)
    for i, one in enumerate(lines):
        check_equal("seed %d" % i, one["seed"], 40 + i)
        alone = c.json("submit", "--seed", str(40 + i), *ask)
        check_equal("as the job with that seed", one["ids"], alone["ids"])
        check_equal("metered", c.json("job", one["id"])["usage"]["completion_tokens"],
                    len(one["ids"]))
    check("not all the same", len({tuple(x["ids"]) for x in lines}) > 1)
    done = c.run("submit", "--answers", "2", "--model", "m", "Hi")
    check_equal("not at temperature 0", done.returncode, 2)
    return lines


def a_batch_line_with_several(c, lines):
    path = os.path.join(c.dir, "in.jsonl")
    out = os.path.join(c.dir, "out.jsonl")
    body = {"messages": [{"role": "user", "content": "Heads or tails?"}], "max_tokens": 12,
            "temperature": 1.2, "seed": 40, "n": 3, "logprobs": True, "top_logprobs": 2}
    with open(path, "w") as f:
        f.write(json.dumps({"custom_id": "three", **CHAT, "body": body}) + "\n")
        f.write(json.dumps({"custom_id": "text", "method": "POST", "url": "/v1/completions",
                            "body": {"prompt": "Once", "max_tokens": 5, "logprobs": 1}}) + "\n")
    for again in range(2):
        c.cli("batch", path, "-o", out, "--model", "m")
    with open(out) as f:
        got = {line["custom_id"]: line["response"]["body"] for line in map(json.loads, f)}
    choices = got["three"]["choices"]
    check_equal("index", [x["index"] for x in choices], [0, 1, 2])
    check_equal("as the jobs with those seeds", [x["message"]["content"] for x in choices],
                [x["text"] for x in lines])
    check_equal("each token is metered", got["three"]["usage"]["completion_tokens"],
                sum(len(x["logprobs"]["content"]) for x in choices))
    old = got["text"]["choices"][0]["logprobs"]
    check_equal("the older form", [len(old[k]) for k in
                                   ("tokens", "token_logprobs", "top_logprobs", "text_offset")],
                [5, 5, 5, 5])


def refusals(c):
    for words, says in ((["--logit-bias", "9999999:1"], b"the model's ids are 0 to"),
                        (["--stop-token", "9999999"], b"stop id 0 is 9999999")):
        done = c.run("submit", "--model", "m", *words, "Hi")
        check("refused %s: %s" % (words, done.stderr),
              done.returncode != 0 and says in done.stderr)


with Cluster(lease="3s") as cluster:
    cluster.coordinator()
    cluster.worker("one")
    cluster.wait_workers(1)
    logprobs_are_whole(cluster)
    stop_tokens_end(cluster)
    a_batch_line_with_several(cluster, several_answers(cluster))
    refusals(cluster)
print("ok")
