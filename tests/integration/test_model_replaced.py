"""A model's name moves to another file, and the coordinator restarts in the middle of a job.

The name goes on to mean the new file, whichever of the two digests is the smaller one.
"""

import os
import signal

from cluster import Cluster, check_equal


def other_file(path, to):
    """The same model, called otherwise inside: another digest."""
    with open(path, "rb") as f:
        data = bytearray(f.read())
    key = data.find(b"general.name") + len(b"general.name") + 4 + 8  # type, length of the text
    data[key] ^= 1
    with open(to, "wb") as f:
        f.write(data)
    return to


with Cluster() as c:
    files = [c.model, other_file(c.model, os.path.join(c.dir, "other.gguf"))]
    for first, second in (files, files[::-1]):
        c.coordinator()
        c.worker("one", model=first)
        c.wait_workers(1)
        want = c.result(c.submit("-n", "150", "Tell me a long story."))
        check_equal("exit status of the worker", c.kill("one", signal.SIGTERM), 0)
        c.worker("one", model=second)
        c.wait_workers(1)
        stream = c.submit("-n", "150", "Tell me a long story.")
        c.wait("tokens", lambda: any(j["state"] == "running" for j in c.json("jobs")["jobs"]))
        c.kill("coordinator")
        c.kill("one")
        c.coordinator()
        c.worker("one", model=second)
        check_equal("text", c.result(stream)["text"], want["text"])
        c.kill("one")
        c.kill("coordinator", signal.SIGTERM)
        c.data += "-next"
print("ok")
