"""Coordinator and workers that stand still for longer than a lease and then go on.

A worker that hears nothing for a lease's time drops its leases. The coordinator, when it was the one
that stood still, counts that time against nobody: the two must agree again, or a job that neither
computes nor moves would be left.
"""

import signal
import time

from cluster import Cluster, check_equal

PROMPT = "Tell me a long story about a fox."


def running(c, tokens):
    jobs = c.json("jobs")["jobs"]
    return jobs[0]["state"] == "running" and jobs[0]["usage"]["completion_tokens"] >= tokens


with Cluster(lease="1500ms", heartbeat="300ms") as c:
    c.coordinator()
    c.worker("one")
    c.wait_workers(1)
    want = c.result(c.submit("-n", "200", PROMPT))
    rounds = 1
    for who, seconds in (("coordinator", 2.5), ("one", 2.5), ("one", 1.6), ("coordinator", 1.6)):
        stream = c.submit("-n", "200", PROMPT)
        c.wait("tokens", lambda: running(c, 5))
        c.processes[who].send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        c.processes[who].send_signal(signal.SIGCONT)
        got = c.result(stream)
        check_equal("text after %s stood still for %.1f s" % (who, seconds), got["text"],
                    want["text"])
        check_equal("ids", got["ids"], want["ids"])
        rounds += 1
    settles = [r for r in c.ledger() if r["kind"] == "SETTLE"]
    check_equal("settled once each", len({r["job_id"] for r in settles}), rounds)
    check_equal("sum of the ledger", sum(r["completion_billable"] for r in settles),
                rounds * len(want["ids"]))
print("ok")
