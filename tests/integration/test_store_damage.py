"""The store's file is damaged while the coordinator is down: bits flipped anywhere, sectors zeroed,
the end cut off.

The coordinator never ends by a signal: it starts and answers, or says in one line what is damaged,
and where. Needs no model.
"""

import os
import random
import signal
import sys
import time

from cluster import PATIENCE, Cluster, check, check_equal

ROUNDS = 60
PAGE = 4096

with Cluster(model="none", config='expected_models = ["m"];') as c:
    c.coordinator()
    c.wait("the coordinator", lambda: c.run("status").returncode == 0)
    for i in range(40):
        c.cli("submit", "--model", "m", "-n", "4", "--detach", "job %d " % i + "x" * (i * 300))
    check_equal("exit status of the coordinator", c.kill("coordinator", signal.SIGTERM), 0)

    path = os.path.join(c.data, "store", "data.mdb")
    with open(path, "rb") as f:
        whole = f.read()
    checkpoint = os.path.join(c.data, "ledger.checkpoint")
    with open(checkpoint, "rb") as f:
        signed = f.read()
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else random.randrange(1 << 32)
    print("seed %d" % seed)
    draw = random.Random(seed)
    refused = 0
    for n in range(ROUNDS):
        data = bytearray(whole)
        page = draw.randrange(len(data) // PAGE) * PAGE
        if n % 4 == 0:
            what = "cut to %d bytes" % (page + draw.randrange(PAGE))
            del data[int(what.split()[2]):]
        elif n % 4 == 1:
            at = page + 512 * draw.randrange(8)
            what = "512 bytes zeroed at %d" % at
            data[at:at + 512] = bytes(512)
        else:
            at = page + (draw.randrange(48) if n % 4 == 2 else draw.randrange(PAGE))
            what = "bit %d of byte %d flipped" % (draw.randrange(8), at)
            data[at] ^= 1 << int(what.split()[1])
        with open(path, "wb") as f:
            f.write(data)
        with open(checkpoint, "wb") as f:
            f.write(signed)
        os.remove(os.path.join(c.dir, "coordinator.log"))
        c.coordinator()
        process = c.processes["coordinator"]
        end = time.time() + PATIENCE
        while process.poll() is None and "listening" not in c.log("coordinator"):
            check("%s: it starts, or ends" % what, time.time() < end)
            time.sleep(0.02)
        if process.poll() is None:
            done = c.run("jobs")
            check("%s: its jobs: %r" % (what, done.stderr), done.returncode == 0)
            check_equal("%s: exit status" % what, c.kill("coordinator", signal.SIGTERM), 0)
            continue
        check_equal("%s: exit status" % what, c.kill("coordinator"), 1)
        refused += 1
        errors = [line for line in c.log("coordinator").splitlines() if " error " in line]
        check_equal("%s: lines that say why" % what, len(errors), 1)
        check("%s: the place in \"%s\"" % (what, errors[0]),
              "store " in errors[0] or "ledger" in errors[0])
    check("some are noticed at start, these are %d" % refused, refused > 5)
print("ok")
