"""A model on several processes: any of them killed ends the others at once, and says who.

    test_ranks.py DIRECTORY_OF_PROGRAMS
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time

BIN = sys.argv[1]
ENGINE = os.path.join(BIN, "cloister-engine")
SHAPE = ["--layers", "4", "--embd", "256", "--ff", "512", "--heads", "4", "--kv-heads", "2", "--vocab",
         "300", "--context", "8192", "--type", "Q4_K_M"]
# A rank that is gone is noticed at once; the rest is a busy machine's.
END_S = 2.0


def generate(file, *options):
    return [ENGINE, "generate", file, "--raw", "--prompt", "The sea", "--ignore-end", "--threads", "1",
            *options]


def children(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
        return [int(child) for child in f.read().split()]


def is_there(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def shared():
    return sorted(name for name in os.listdir("/dev/shm") if "cloister" in name)


def same_answer(file):
    want = None
    for options in ([], ["--shards", "2"], ["--shards", "3"], ["--split", "1,2,5"], ["--split", "1,0"]):
        p = subprocess.run(generate(file, "--max-tokens", "20", "--json", *options),
                           capture_output=True, text=True, timeout=120)
        if p.returncode != 0:
            sys.exit("%s: %s" % (options, p.stderr))
        got = json.loads(p.stdout)["logits_sha256"]
        want = want or got
        if got != want:
            sys.exit("%s: other logits than on one process" % options)
    print("the same logits on 1, 2 and 3 processes")


def kill_one(file, ranks, victim):
    """victim: 0, or which of the children."""
    before = shared()
    p = subprocess.Popen(generate(file, "--max-tokens", "8000", "--shards", str(ranks)),
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    p.stdout.read(1)  # the answer has begun
    others = children(p.pid)
    if len(others) != ranks - 1:
        sys.exit("%d ranks have %d processes beside rank 0" % (ranks, len(others)))
    os.kill(others[victim - 1] if victim > 0 else p.pid, signal.SIGKILL)
    killed = time.monotonic()
    text = p.communicate(timeout=30)[1].decode()
    while any(is_there(pid) for pid in others):
        if time.monotonic() - killed > 30:
            sys.exit("rank %d of %d was killed, and others are still there" % (victim, ranks))
        time.sleep(0.005)
    seconds = time.monotonic() - killed
    if victim > 0 and (p.returncode != 1 or "rank %d ended" % victim not in text):
        sys.exit("rank %d of %d was killed; rank 0 said: %s" % (victim, ranks, text))
    if shared() != before:
        sys.exit("left behind: %s" % shared())
    return seconds


def refused(file):
    for options, text in ((["--shards", "2", "--stages", "2"], "stages"), (["--split", "0,0"], "0"),
                          (["--shards", "17"], "17"), (["--shards", "3", "--split", "1,2"], "2")):
        p = subprocess.run(generate(file, "--max-tokens", "2", *options), capture_output=True, text=True,
                           timeout=60)
        if p.returncode not in (1, 2) or text not in p.stderr:
            sys.exit("%s: exit code %d, %s" % (options, p.returncode, p.stderr))


with tempfile.TemporaryDirectory() as folder:
    model = os.path.join(folder, "model.gguf")
    subprocess.run([os.path.join(BIN, "synthetic_model"), model, *SHAPE], check=True)
    same_answer(model)
    refused(model)
    for ranks in (2, 3):
        for victim in range(ranks):
            seconds = min(kill_one(model, ranks, victim) for _ in range(3))
            print("rank %d of %d killed: the others gone after %.3f s" % (victim, ranks, seconds))
            if seconds > END_S:
                sys.exit("that is more than %.0f s" % END_S)
