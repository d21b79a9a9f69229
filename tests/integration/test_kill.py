"""kill -9 of the coordinator, of the worker, of both, at random points of a stream.

Each time: the client ends with the text of an undisturbed run, the job is there, and in the end
every token is in the ledger once. `--rounds N` sets how often each is killed (CI: 10; bench: 100).
"""

import argparse
import json
import time

from cluster import Cluster, check, check_equal, engine, random_from

PROMPTS = ["Why is the sky blue?", "Tell me about the sea.", "What is a ledger?"]
MAX_TOKENS = 48

arguments = argparse.ArgumentParser()
arguments.add_argument("--rounds", type=int, default=10)
arguments.add_argument("--seed", type=int, default=None)
options = arguments.parse_args()
rng = random_from(options.seed if options.seed is not None else int(time.time()))


def undisturbed(model):
    return {p: json.loads(engine("generate", model, "--prompt", p, "--chat", "--max-tokens",
                                 str(MAX_TOKENS), "--json")) for p in PROMPTS}


def kill_and_restart(c, victims):
    for victim in victims:
        c.kill(victim)
    if "coordinator" in victims:
        c.coordinator()
    if "one" in victims:
        c.worker("one")


def a_round(c, want, victims, delay):
    prompt = rng.choice(PROMPTS)
    stream = c.submit("--max-tokens", str(MAX_TOKENS), prompt)
    time.sleep(delay)
    kill_and_restart(c, victims)
    got = c.result(stream)
    check_equal("text after kill -9 of %s at %.2f s" % (" and ".join(victims), delay),
                got["text"], want[prompt]["text"])
    check_equal("ids", got["ids"], want[prompt]["ids"])
    check_equal("completion tokens", got["usage"]["completion_tokens"], len(got["ids"]))
    return got


with Cluster() as c:
    want = undisturbed(c.model)
    c.coordinator()
    c.worker("one")
    c.wait_workers(1)
    start = time.monotonic()
    c.result(c.submit("--max-tokens", str(MAX_TOKENS), PROMPTS[0]))
    whole = time.monotonic() - start
    delivered = len(want[PROMPTS[0]]["ids"])
    rounds = 1
    for victims in (["coordinator"], ["one"], ["coordinator", "one"]):
        slowest = 0
        for _ in range(options.rounds):
            began = time.monotonic()
            got = a_round(c, want, victims, rng.uniform(0, whole))
            delivered += len(got["ids"])
            slowest = max(slowest, time.monotonic() - began)
            rounds += 1
            c.wait_workers(1)
        print("%d x kill -9 of %s: same text each time, slowest answer %.1f s (undisturbed %.1f s)"
              % (options.rounds, " and ".join(victims), slowest, whole))
    records = c.ledger()
    reserves = [r["job_id"] for r in records if r["kind"] == "RESERVE"]
    settles = [r for r in records if r["kind"] == "SETTLE"]
    check_equal("reservations", len(reserves), rounds)
    check_equal("each job reserved once", len(set(reserves)), rounds)
    check_equal("each job settled once", sorted(r["job_id"] for r in settles), sorted(reserves))
    check_equal("sum of the ledger", sum(int(r["completion_billable"]) for r in settles),
                delivered)
    check("at least as much was computed as delivered",
          sum(int(r["completion_computed"]) for r in settles) >= delivered)
    jobs = c.json("jobs", "--limit", "1000")["jobs"]
    check_equal("no job lost", sum(j["state"] == "done" for j in jobs), rounds)
print("ok")
