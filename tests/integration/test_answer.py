"""A job through the whole cluster gives what the engine alone gives, and counts what it counted."""

import json
import os
import signal
import subprocess

from cluster import Cluster, check, check_equal, engine

PROMPTS = [
    ("Why is the sky blue?", 40, []),
    ("Name three colours.", 24, ["--temperature", "0.9", "--top-p", "0.9", "--seed", "7"]),
    ("Zähle auf: eins, zwei, 三, 🙂", 24, []),
    ("Say stop words.", 48, ["--stop", "the", "--stop", "a "]),
]


def alone(model, prompt, max_tokens, options):
    return json.loads(engine("generate", model, "--prompt", prompt, "--chat", "--max-tokens",
                             str(max_tokens), "--json", *options))


def answers_equal_the_engine_alone(c):
    for prompt, max_tokens, options in PROMPTS:
        want = alone(c.model, prompt, max_tokens, options)
        got = c.result(c.submit("--max-tokens", str(max_tokens), *options, prompt))
        check_equal("text of %r" % prompt, got["text"], want["text"])
        check_equal("ids of %r" % prompt, got["ids"], want["ids"])
        check_equal("finish of %r" % prompt, got["finish"], want["finish"])
        usage = got["usage"]
        check_equal("prompt tokens", usage["prompt_tokens"], len(want["prompt_ids"]))
        check_equal("completion tokens", usage["completion_tokens"], len(want["ids"]))
        streamed = c.cli("submit", "--model", "m", "--max-tokens", str(max_tokens), *options,
                         prompt)
        check_equal("streamed text", streamed.decode().rstrip("\n"), want["text"].rstrip("\n"))


def raw_text_and_stdin(c):
    want = json.loads(engine("generate", c.model, "--prompt", "One, two, three,", "--raw",
                             "--max-tokens", "12", "--json"))
    got = json.loads(c.cli("submit", "--model", "m", "--json", "--raw", "--max-tokens", "12", "-",
                           stdin=b"One, two, three,"))
    check_equal("raw text", got["text"], want["text"])


def a_detached_job_is_watched_later(c):
    want = alone(c.model, "Count to ten.", 32, [])
    job = c.json("submit", "--model", "m", "--detach", "--max-tokens", "32", "Count to ten.")["id"]
    got = c.json("watch", job)
    check_equal("watched text", got["text"], want["text"])
    for digits in (job[-8:], job[-8:-4], job[:31], job[8:], job[-5:]):
        check_equal("watched as " + digits, c.json("watch", digits)["text"], want["text"])
    info = c.json("job", job)
    check_equal("state", info["state"], "done")


def a_cancelled_job_is_billed_for_what_it_delivered(c):
    p = subprocess.Popen(c.command("submit", "--model", "m", "--max-tokens", "400",
                                   "Write a very long story about a lighthouse."),
                         env=c.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    os.read(p.stdout.fileno(), 1)  # the answer has begun
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=60)
    check_equal("exit status of a cancelled submit", p.returncode, 8)
    jobs = [j for j in c.json("jobs", "--state", "cancelled")["jobs"]]
    check_equal("cancelled jobs", len(jobs), 1)
    job = jobs[0]["id"]
    seen = c.run("watch", job, "--json")
    check_equal("exit status of watching it", seen.returncode, 8)
    delivered = len(json.loads(seen.stdout)["ids"])
    check("something was delivered", delivered > 0)
    settle = [r for r in c.ledger() if r.get("job_id") == job and r["kind"] == "SETTLE"]
    check_equal("settles", len(settle), 1)
    check_equal("billable = delivered", int(settle[0]["completion_billable"]), delivered)


def tables_say_what_json_says(c):
    def rows(*arguments):
        return [line.split() for line in c.cli(*arguments).decode().splitlines()]

    done = c.json("jobs", "--state", "done")["jobs"][0]["id"]
    job = c.json("job", done)
    told = {row[0]: row[1:] for row in rows("job", done) if row}
    check_equal("job's state", told["state"], ["done"])
    check_equal("job's worker", told["worker"], [job["worker"]])
    check_equal("job's prompt tokens", told["tokens"][:2],
                [str(job["usage"]["prompt_tokens"]), "prompt"])
    check_equal("job's answer tokens", told["tokens"][-2:],
                [str(job["usage"]["completion_tokens"]), "answer"])
    used = c.json("usage")["rows"]
    check_equal("usage", [row[:4] for row in rows("usage")[1:1 + len(used)]],
                [[r["day"], r["tenant"], r["model"], str(r["jobs"])] for r in used])
    check("explanation", [job["worker"], "chosen"] in [row[:2] for row in rows("explain", done)])
    check_equal("models", rows("models")[1][0], "m")
    check_equal("workers", rows("workers")[1][0], job["worker"])


def the_ledger_adds_up(c):
    jobs = {j["id"]: j for j in c.json("jobs", "--limit", "1000")["jobs"]}
    records = c.ledger()
    reserves = [r for r in records if r["kind"] == "RESERVE"]
    ends = [r for r in records if r["kind"] in ("SETTLE", "VOID", "EXPIRE")]
    check_equal("a reservation a job", sorted(r["job_id"] for r in reserves), sorted(jobs))
    check_equal("an end a job", sorted(r["job_id"] for r in ends), sorted(jobs))
    billed = sum(int(r.get("completion_billable", 0)) for r in ends)
    tokens = sum(j["usage"]["completion_tokens"] for j in jobs.values())
    check_equal("billed completion tokens", billed, tokens)
    rows = c.json("usage")["rows"]
    check_equal("usage", sum(r["completion_tokens"] for r in rows), billed)


with Cluster() as c:
    c.coordinator()
    c.worker("one")
    c.wait_workers(1)
    answers_equal_the_engine_alone(c)
    raw_text_and_stdin(c)
    a_detached_job_is_watched_later(c)
    a_cancelled_job_is_billed_for_what_it_delivered(c)
    tables_say_what_json_says(c)
    the_ledger_adds_up(c)
print("ok")
