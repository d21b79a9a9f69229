"""Two workers share the load, and what one leaves behind the other finishes."""

import signal

from cluster import Cluster, check, check_equal

with Cluster() as c:
    c.coordinator()
    c.worker("one")
    c.worker("two")
    c.wait_workers(2)
    jobs = [c.submit("-n", "48", "Tell me about the number %d." % i) for i in range(8)]
    texts = [c.result(j)["text"] for j in jobs]
    rows = c.json("jobs", "--limit", "100")["jobs"]
    check_equal("both worked", {r["worker"] for r in rows}, {"one", "two"})
    explained = c.json("explain", rows[0]["id"])
    check_equal("candidates looked at", {x["worker"] for x in explained["candidates"]},
                {"one", "two"})
    check_equal("one was chosen", sum(x["chosen"] for x in explained["candidates"]), 1)

    # A worker that is stopped in order hands its jobs over without losing an attempt's name.
    jobs = [c.submit("-n", "48", "Tell me about the number %d." % i) for i in range(8)]
    c.wait("work", lambda: any(r["state"] == "running" for r in c.json("jobs")["jobs"]))
    check_equal("exit status after SIGTERM", c.kill("two", signal.SIGTERM), 0)
    check_equal("the same texts", [c.result(j)["text"] for j in jobs], texts)
    c.ledger()
print("ok")
