"""The layers of an 8B model, two of them, on 1 to 16 processes: one hash of logits for each cache, and in every process
the memory that its plan says, within a hundredth, and no more of the file read than its part.

    test_large.py DIRECTORY_OF_PROGRAMS

4096 wide, feed-forward 14336, 32 heads over 8, 128,256 tokens, types as in Q4_K_M; at random, 0.7 GB.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

BIN = sys.argv[1]
ENGINE = os.path.join(BIN, "cloister-engine")
SHAPE = ["--layers", "2", "--embd", "4096", "--ff", "14336", "--heads", "32", "--kv-heads", "8", "--vocab",
         "128256", "--of", "32", "--context", "1024", "--type", "Q4_K_M"]
VOCAB = 128256
# More than a step, so that all of its room is used.
PROMPT, ANSWER, CONTEXT = 544, 4, 576
# The first of each pair: how it is cut. The second: whether memory is looked at. Over a network it is
# less than planned: what others have for others comes by nobody else; and in stages, which take a step
# in pieces and do not come to use all of their buffers.
WAYS = [
    ("--threads 2", True),
    ("--shards 2", True),
    ("--shards 3", True),
    ("--shards 4", True),
    ("--shards 8", True),
    ("--shards 16", True),  # each KV head is on two
    ("--split 3,1", True),
    ("--split 2,0,5,1,3", False),
    ("--stages 2", False),
    ("--threads 2 --kv q8_0", False),
    ("--shards 3 --kv q8_0", True),
    ("--shards 16 --kv q8_0", True),
    ("--shards 4 --transport ucx", False),
    ("--split 1,3,2 --transport ucx", False),
]
OFF = 0.01
# What a rank reads beside its own part of the weights: the header, which has the tokenizer, and libraries.
BESIDE = 16e6


def generate(file, way, *options):
    ids = " ".join(str(i * 7919 % VOCAB) for i in range(PROMPT))
    return [ENGINE, "generate", file, "--prompt-ids", ids, "--ignore-end", "--temperature", "0.7", "--seed",
            "3", "--context", str(CONTEXT), *way, *options]


def logits_of(file, way):
    """Their hash; None without libucx."""
    p = subprocess.run(generate(file, way, "--json", "--max-tokens", str(ANSWER)), capture_output=True,
                       text=True, timeout=300)
    if p.returncode == 1 and "libucx" in p.stderr:
        return None
    if p.returncode != 0:
        sys.exit("%s: %s" % (" ".join(way), p.stderr))
    answer = json.loads(p.stdout)
    if len(answer["ids"]) != ANSWER:
        sys.exit("%s: %d tokens" % (" ".join(way), len(answer["ids"])))
    return answer["logits_sha256"]


def planned(file, way):
    """Bytes of each rank: in all, and of weights."""
    out = subprocess.run([ENGINE, "estimate", file, "--json", "--context", str(CONTEXT), "--slots", "1",
                          "--sequences", "1", *way], capture_output=True, text=True, check=True).stdout
    plan = json.loads(out)
    return [(rank["total_bytes"], rank["weights_bytes"]) for rank in plan.get("ranks", [plan])]


def resident(pid):
    """Bytes but for the program's own file."""
    with open("/proc/%d/status" % pid) as f:
        return sum(int(line.split()[1]) * 1024 for line in f if line.startswith(("RssAnon", "RssShmem")))


def was_read(pid):
    """Bytes that the process has read of anything."""
    with open("/proc/%d/io" % pid) as f:
        return next(int(line.split()[1]) for line in f if line.startswith("rchar"))


def held(file, way):
    """Of each process, as its answer begins: bytes resident, and read."""
    p = subprocess.Popen(generate(file, way, "--max-tokens", str(CONTEXT - PROMPT)), stdout=subprocess.PIPE)
    p.stdout.read(1)
    with open("/proc/%d/task/%d/children" % (p.pid, p.pid)) as f:
        pids = [p.pid] + [int(child) for child in f.read().split()]  # in the order of their start
    found = [(resident(pid), was_read(pid)) for pid in pids]
    p.kill()
    p.communicate()
    return found


def main(file):
    failed, wants = 0, {}
    subprocess.run([os.path.join(BIN, "synthetic_model"), file, *SHAPE], check=True)
    for text, measures in WAYS:
        began = time.monotonic()
        way = text.split() if "--threads" in text else ["--threads", "1", *text.split()]
        got = logits_of(file, way)
        if got is None:
            print("%-32s no libucx" % text)
            continue
        line, good = "", got == wants.setdefault("q8_0" in text, got)
        if measures:
            plan, found = planned(file, way), held(file, way)
            off = [got[0] / want[0] - 1 for got, want in zip(found, plan)]
            beside = [got[1] - want[1] for got, want in zip(found, plan)]
            good = (good and len(plan) == len(found) and max(map(abs, off)) <= OFF and
                    max(beside) <= BESIDE)
            line = "%5.0f MB planned for rank 0, resident %+.2f to %+.2f %%, read %.0f MB beside weights  " % (
                plan[0][0] / 1e6, 100 * min(off), 100 * max(off), max(beside) / 1e6)
        good = good and len(set(wants.values())) == len(wants)
        failed += not good
        print("%-32s %s  %s%.1f s%s" % (text, got[:16], line, time.monotonic() - began,
                                        "" if good else "   WRONG"), flush=True)
    return failed


with tempfile.TemporaryDirectory() as folder:
    sys.exit(1 if main(os.path.join(folder, "large.gguf")) else 0)
