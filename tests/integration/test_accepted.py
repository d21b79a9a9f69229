"""Accepted means on disk: kill -9 of the coordinator while clients submit. Every job whose submit
came back is there afterwards, once, and no id is used twice."""

import signal
import threading
import time

from cluster import Cluster, check_equal, random_from

ROUNDS = 5
CLIENTS = 6
rng = random_from(11)

with Cluster() as c:
    c.coordinator()
    c.worker("one")
    c.wait_workers(1)
    # Without a worker jobs stay queued, and the test is about nothing but the queue.
    c.kill("one", signal.SIGTERM)
    accepted = []
    lock = threading.Lock()

    def client(n):
        for i in range(8):
            done = c.run("submit", "-m", "m", "--detach", "--wait", "20s", "job %d of %d" % (i, n))
            if done.returncode == 0:
                with lock:
                    accepted.append(done.stdout.decode().split()[0])

    for _ in range(ROUNDS):
        clients = [threading.Thread(target=client, args=(n,)) for n in range(CLIENTS)]
        for thread in clients:
            thread.start()
        time.sleep(rng.uniform(0.05, 0.4))
        c.kill("coordinator")
        c.coordinator()
        for thread in clients:
            thread.join()
    jobs = [j["id"] for j in c.json("jobs", "--limit", "1000")["jobs"]]
    check_equal("ids handed out twice", len(accepted) - len(set(accepted)), 0)
    check_equal("accepted and gone", sorted(set(accepted) - set(jobs)), [])
    reserved = [r["job_id"] for r in c.ledger() if r["kind"] == "RESERVE"]
    check_equal("each stored job is reserved once", sorted(reserved), sorted(jobs))
    print("%d jobs accepted over %d kills" % (len(accepted), ROUNDS))
print("ok")
