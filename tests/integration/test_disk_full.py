"""A full disk: what was acknowledged stays, new jobs are refused with the reason, reading goes on,
and serving resumes when there is space again."""

import json
import os
import subprocess
import tempfile

from cluster import Cluster, check, check_equal, skip



def status(c):
    """`cloister status` tells by its exit status, too, that not all is well."""
    return json.loads(c.run("status", "--json").stdout)


mount = tempfile.mkdtemp(prefix="cloister-full-")
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", mount],
                  stderr=subprocess.DEVNULL).returncode != 0:
    os.rmdir(mount)
    skip("no right to mount a small tmpfs here")
try:
    with Cluster(data=os.path.join(mount, "data")) as c:
        c.coordinator()
        c.worker("one")
        c.wait_workers(1)
        first = c.json("submit", "-m", "m", "-n", "8", "--detach", "Hello.")["id"]
        c.cli("watch", first)
        ballast = os.path.join(mount, "ballast")
        fd = os.open(ballast, os.O_WRONLY | os.O_CREAT)
        try:
            while True:
                os.write(fd, b"\0" * 4096)
        except OSError:
            pass
        os.close(fd)
        accepted, refusal = [], None
        # Free pages inside the store may take some more; a prompt of 64 kB soon finds the end.
        for i in range(200):
            done = c.run("submit", "-m", "m", "-n", "4", "--detach", "--wait", "1s", "--raw",
                         "-", stdin=b"word %d " % i * 8000)
            if done.returncode != 0:
                refusal = done
                break
            accepted.append(done.stdout.decode().split()[0])
        check("a submit was refused", refusal is not None)
        text = refusal.stderr.decode()
        check("it says why: " + text, "space" in text or "full" in text)
        check_equal("reading goes on", c.json("job", first)["state"], "done")
        check("status says that admission is closed",
              not status(c)["admission_open"])
        os.unlink(ballast)
        c.wait("admission", lambda: status(c)["admission_open"])
        again = c.json("submit", "-m", "m", "-n", "8", "Hello.")
        check_equal("finish", again["finish"] in ("stop", "length"), True)
        jobs = {j["id"] for j in c.json("jobs", "--limit", "1000")["jobs"]}
        check("nothing acknowledged is lost", set(accepted) | {first} <= jobs)
        c.ledger()
finally:
    subprocess.run(["umount", mount], check=False)
    os.rmdir(mount)
print("ok")
