"""--check-store and --repair, as an operator meets them: on no store, on one in use, on a damaged one,
killed in the middle, on a full disk. Needs no model.

Whatever happens to a repair, the next one makes all of it good: no job that was accepted is missing,
and the ledger verifies.
"""

import os
import signal
import subprocess
import time

from cluster import BIN, PATIENCE, Cluster, check, check_equal, random_from

JOBS = 40
DAMAGED = 12
KILLS = 12


def mend(c, *options, how=None, after=0.0):
    """Exit status, what it printed, and its errors."""
    process = subprocess.Popen(
        [os.path.join(BIN, "cloister-coordinator"), "--config", c.config, "--data", c.data, *options],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if how is not None:
        time.sleep(after)
        process.send_signal(how)
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out.decode(), err.decode()


def damage_prompt(path, text):
    """A byte of a prompt, wherever it lies."""
    with open(path, "rb") as f:
        data = bytearray(f.read())
    n, at = 0, data.find(text)
    while at >= 0:
        data[at] ^= 1
        n, at = n + 1, data.find(text, at + 1)
    check("the prompt %r is found" % text, n > 0)
    with open(path, "wb") as f:
        f.write(data)


def damage(path, ids):
    """A byte of each of these jobs' records, wherever it lies: the key, 12 bytes of seal, the record,
    which begins with the id."""
    with open(path, "rb") as f:
        data = bytearray(f.read())
    for one in ids:
        key, n = bytes.fromhex(one.replace("-", "")), 0
        head = b"\x0a\x10" + key
        at = data.find(key)
        while at >= 0:
            if data[at + 28:at + 28 + len(head)] == head:
                data[at + 50] ^= 1
                n += 1
            at = data.find(key, at + 1)
        check("the record of %s is found" % one, n > 0)
    with open(path, "wb") as f:
        f.write(data)


with Cluster(model="none", config='expected_models = ["m"];') as c:
    status, out, err = mend(c, "--check-store")
    check_equal("of nothing: exit status", status, 1)
    check("of nothing: \"%s\"" % err, "error" in err and out == "")
    check("of nothing nothing is made", not os.path.exists(c.data))

    c.coordinator()
    c.wait("the coordinator", lambda: c.run("status").returncode == 0)
    for i in range(JOBS):
        newest = c.cli("submit", "--model", "m", "-n", "4", "--detach", "job %d" % i).decode().strip()
    ids = [j["id"] for j in c.json("jobs")["jobs"]]
    for one in ids[:3]:  # these are over
        c.cli("cancel", one)
    for option in "--check-store", "--repair":
        status, out, err = mend(c, option)
        check_equal("in use: exit status", status, 1)
        check("in use: \"%s\"" % err, "open already" in err and "restore" not in err)
    check_equal("exit status of the coordinator", c.kill("coordinator", signal.SIGTERM), 0)

    status, out, err = mend(c, "--check-store", "--repair")
    check_equal("one of them: exit status", status, 2)
    check_equal("whole", mend(c, "--check-store"), (0, "nothing is damaged\n", ""))

    os.rename(os.path.join(c.data, "store"), os.path.join(c.dir, "moved"))
    status, out, err = mend(c, "--repair")
    check_equal("a key and no store: exit status", status, 1)
    check("a key and no store: \"%s\"" % err, "there is no store" in err)
    check("no store is made", not os.path.exists(os.path.join(c.data, "store")))
    os.rename(os.path.join(c.dir, "moved"), os.path.join(c.data, "store"))

    draw = random_from(int(os.environ.get("CLOISTER_TEST_SEED", "0")) or time.time_ns() % 2**32)
    damage(os.path.join(c.data, "store", "data.mdb"), ids[:DAMAGED])
    began = time.monotonic()
    status, out, err = mend(c, "--check-store")
    took = time.monotonic() - began
    check_equal("damaged: exit status (%s)" % err, status, 1)
    check("damaged: \"%s\"" % out, "%d jobs end by it; nothing was changed" % (DAMAGED - 3) in out)

    for i in range(KILLS):
        mend(c, "--repair", how=(signal.SIGKILL, signal.SIGINT)[i % 2], after=draw.uniform(0, 2 * took))
    status, out, err = mend(c, "--repair")
    check_equal("repair: exit status (%s)" % err, status, 0)
    check_equal("and again", mend(c, "--repair"), (0, "nothing is damaged\n", ""))

    c.coordinator()
    c.wait("the coordinator", lambda: c.run("status").returncode in (0, 1))
    states = {j["id"]: j["state"] for j in c.json("jobs")["jobs"]}
    for i, one in enumerate(ids):
        want = "cancelled" if i < 3 else "failed" if i < DAMAGED else "queued"
        check_equal("job %d" % i, states.get(one), want)
    ends = [r["job_id"] for r in c.ledger() if r["kind"] not in ("RESERVE", "KEY")]
    check_equal("ends in the ledger", sorted(ends), sorted(ids[:DAMAGED]))
    check_equal("exit status of the coordinator", c.kill("coordinator", signal.SIGTERM), 0)

    # A prompt has no second copy: it is named, and left alone.
    check_equal("whole again", mend(c, "--check-store"), (0, "nothing is damaged\n", ""))
    damage_prompt(os.path.join(c.data, "store", "data.mdb"), b"job %d" % (JOBS - 1))
    for option in "--check-store", "--repair":
        status, out, err = mend(c, option)
        check_equal("a prompt: exit status (%s)" % err, status, 1)
        check("a prompt: \"%s\"" % out, "the prompt of job %s" % newest in out and
              "1 prompts and parts of answers cannot be read" in out and "repair" not in out)
    c.coordinator()
    c.wait("the coordinator", lambda: c.run("status").returncode in (0, 1))
    check_equal("the others are there", len(c.json("jobs")["jobs"]), len(ids))
    check_equal("exit status of the coordinator", c.kill("coordinator", signal.SIGTERM), 0)
print("ok")
