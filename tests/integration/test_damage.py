"""One job's prompt is damaged on disk while the coordinator is down.

That job fails, with the place of the damage. All others go on, and the ledger verifies.
"""

import os
import signal

from cluster import Cluster, check, check_equal

MARK = "What is a ledger, and who keeps it? " * 4

with Cluster() as c:
    c.coordinator()
    c.worker("one")
    c.wait_workers(1)
    c.cli("submit", "--model", "m", "-n", "4", "hi")
    check_equal("exit status of the worker", c.kill("one", signal.SIGTERM), 0)
    bad = [c.cli("submit", "--model", "m", "-n", "4", "--detach", MARK).decode().split()[-1]
           for _ in range(2)]
    good = c.submit("-n", "4", "hi")
    c.wait("three jobs", lambda: len(c.json("jobs", "--state", "queued")["jobs"]) == 3)
    check_equal("exit status of the coordinator", c.kill("coordinator", signal.SIGTERM), 0)

    path = os.path.join(c.data, "store", "data.mdb")
    with open(path, "rb") as f:
        data = bytearray(f.read())
    at = data.find(MARK.encode())
    check("the prompts are in the store", at >= 0)
    while at >= 0:
        data[at + 5] ^= 1
        at = data.find(MARK.encode(), at + 1)
    with open(path, "wb") as f:
        f.write(data)

    c.coordinator()
    c.cli("cancel", bad[1])  # can end though nothing of it can be read
    c.worker("one")
    check_equal("the other job", c.result(good)["state"], "done")
    c.wait("the end of the damaged job",
           lambda: any(j["id"] == bad[0] for j in c.json("jobs", "--state", "failed")["jobs"]))
    job = next(j for j in c.json("jobs")["jobs"] if j["id"] == bad[0])
    check_equal("its error", job["error"]["code"], "corrupt")
    check("the place of the damage", "table content" in job["error"]["text"])
    records = c.ledger()
    ends = {r["job_id"]: r for r in records if r["kind"] in ("SETTLE", "VOID")}
    check_equal("every job has its end", len(ends), 4)
    check_equal("nothing is owed for what was damaged",
                [ends[id]["kind"] for id in bad], ["VOID", "VOID"])
print("ok")
