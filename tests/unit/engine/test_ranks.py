"""A model on several processes: any of them that is killed, before they meet or later, or cannot load
ends the others at once, and it is said who and why.

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
# Heads and groups enough that each of 16 shards has some, and KV heads that several share.
MANY = ["--layers", "2", "--embd", "512", "--ff", "4096", "--heads", "16", "--kv-heads", "4", "--vocab",
        "1000", "--context", "256", "--type", "Q4_K_M"]
# A rank that is gone is noticed at once; the rest is a busy machine's.
END_S = 2.0


LONG = "The sea gave back what it had taken, and took what it had given. " * 6  # pieces of a step


def generate(file, *options, prompt="The sea"):
    return [ENGINE, "generate", file, "--raw", "--prompt", prompt, "--ignore-end", "--threads", "1",
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
    ways = ([], ["--shards", "2"], ["--shards", "3"], ["--split", "1,2,5"], ["--split", "1,0"],
            ["--stages", "2"], ["--stages", "3", "--split", "1,2,1"], ["--stages", "4"],
            ["--stages", "2", "--shards", "2"], ["--stages", "3", "--split", "1,2,1,1,3,0"],
            ["--shards", "3", "--transport", "ucx"], ["--shards", "1", "--transport", "ucx"],
            ["--stages", "2", "--shards", "2", "--transport", "ucx"])
    for prompt in ("The sea", LONG):
        want = None
        for options in ways:
            p = subprocess.run(generate(file, "--max-tokens", "20", "--json", *options, prompt=prompt),
                               capture_output=True, text=True, timeout=120)
            if p.returncode == 1 and "libucx" in p.stderr:
                print(p.stderr.strip())
                continue
            if p.returncode != 0:
                sys.exit("%s: %s" % (options, p.stderr))
            got = json.loads(p.stdout)["logits_sha256"]
            want = want or got
            if got != want:
                sys.exit("%s: other logits than on one process" % options)
    print("the same logits on 1 to 6 processes, as shards, as stages and as both")


def any_number_of_shards(file):
    """1 to 16, in both caches; of 5 and more each KV head is on two or more."""
    for cache in ("f16", "q8_0"):
        want = None
        for shards in range(1, 17):
            p = subprocess.run(generate(file, "--max-tokens", "4", "--json", "--kv", cache, "--shards",
                                        str(shards)), capture_output=True, text=True, timeout=120)
            if p.returncode != 0:
                sys.exit("%d shards, %s: %s" % (shards, cache, p.stderr))
            got = json.loads(p.stdout)["logits_sha256"]
            want = want or got
            if got != want:
                sys.exit("%d shards, %s: other logits than on one" % (shards, cache))
        print("the same logits on 1 to 16 shards, %s: %s" % (cache, want[:16]))


def kill_one(file, stages, shards, victim, transport="shm"):
    """victim: 0, or which of the children."""
    before = shared()
    ranks = stages * shards
    p = subprocess.Popen(generate(file, "--max-tokens", "8000", "--shards", str(shards), "--stages",
                                  str(stages), "--transport", transport),
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


def has_network(file):
    p = subprocess.run(generate(file, "--max-tokens", "1", "--shards", "2", "--transport", "ucx"),
                       capture_output=True, timeout=60)
    return b"libucx" not in p.stderr


def refused(file):
    for options, text in ((["--stages", "5"], "5 stages"), (["--split", "0,0"], "0"),
                          (["--shards", "5", "--stages", "4"], "at most 16"),
                          (["--stages", "2", "--split", "1,0"], "0"),
                          (["--shards", "17"], "17"), (["--shards", "3", "--split", "1,2"], "2")):
        p = subprocess.run(generate(file, "--max-tokens", "2", *options), capture_output=True, text=True,
                           timeout=60)
        if p.returncode not in (1, 2) or text not in p.stderr:
            sys.exit("%s: exit code %d, %s" % (options, p.returncode, p.stderr))


def lost_on_the_way_in(file):
    """A rank that ends before the gang stands ends all at once, and is named with what it died of."""
    told_of_signal = 0
    for turn in range(10):
        command = ["bench", file, "--threads", "1", "--shards", "3"] if turn % 2 == 0 else \
            generate(file, "--max-tokens", "8000", "--shards", "3")[1:]
        p = subprocess.Popen([ENGINE, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        until = time.monotonic() + 30
        others = []
        while len(others) < 2 and time.monotonic() < until:
            others = children(p.pid)
        os.kill(others[1], signal.SIGKILL)
        killed = time.monotonic()
        text = p.communicate(timeout=60)[1].decode()
        seconds = time.monotonic() - killed
        if p.returncode != 1 or seconds > END_S or "rank 2" not in text:
            sys.exit("%s, a rank killed on its way in: status %d after %.1f s: %s"
                     % (command[0], p.returncode, seconds, text))
        if any(is_there(pid) for pid in others):
            sys.exit("ranks outlive rank 0")
        told_of_signal += "rank 2 was ended by signal 9" in text
    if told_of_signal == 0:
        sys.exit("nobody watched the ranks before they met")
    print("a rank killed on its way in: the others gone at once")


def cannot_load(file, says):
    """A rank that cannot load ends all, and why is the program's message: one line, status 1."""
    for command in (["bench", file, "--threads", "1", "--shards", "3"],
                    generate(file, "--max-tokens", "2", "--shards", "3")[1:]):
        began = time.monotonic()
        p = subprocess.run([ENGINE, *command], capture_output=True, text=True, timeout=60)
        seconds = time.monotonic() - began
        if p.returncode != 1 or seconds > 2 * END_S or p.stderr.count("\n") != 1 or \
                not all(text in p.stderr for text in says):
            sys.exit("%s of a file that cannot be loaded: status %d after %.1f s: %s"
                     % (command[0], p.returncode, seconds, p.stderr))


def damaged(file, to, change):
    with open(file, "rb") as f:
        data = bytearray(f.read())
    change(data)
    with open(to, "wb") as f:
        f.write(data)
    return to


def without_tokenizer(data):
    at = data.index(b"tokenizer.ggml.model")
    data[at:at + 20] = b"tokenizer.ggml.mod__"


def with_a_hole(data):
    data[-210:] = b"\xff" * 210  # the scales of the last block of the last matrix


with tempfile.TemporaryDirectory() as folder:
    model = os.path.join(folder, "model.gguf")
    subprocess.run([os.path.join(BIN, "synthetic_model"), model, *SHAPE], check=True)
    same_answer(model)
    many = os.path.join(folder, "many.gguf")
    subprocess.run([os.path.join(BIN, "synthetic_model"), many, *MANY], check=True)
    any_number_of_shards(many)
    refused(model)
    lost_on_the_way_in(model)
    # Only rank 0 reads the tokenizer; only others read the end of each row.
    cannot_load(damaged(model, os.path.join(folder, "a.gguf"), without_tokenizer), ["tokenizer"])
    cannot_load(damaged(model, os.path.join(folder, "b.gguf"), with_a_hole),
                ["rank ", "blk.3.ffn_down.weight", "no finite number"])
    for stages, shards in ((1, 2), (1, 3), (2, 1), (2, 2)):
        for victim in range(stages * shards):
            seconds = max(kill_one(model, stages, shards, victim) for _ in range(3))
            print("%d stages of %d shards, rank %d killed: the others gone after %.3f s"
                  % (stages, shards, victim, seconds))
            if seconds > END_S:
                sys.exit("that is more than %.0f s" % END_S)
    ways = ((1, 3), (2, 2)) if has_network(model) else ()
    for stages, shards, victim in ((*way, r) for way in ways for r in range(way[0] * way[1])):
        seconds = kill_one(model, stages, shards, victim, "ucx")
        print("%d stages of %d shards over ucx, rank %d killed: the others gone after %.3f s"
              % (stages, shards, victim, seconds))
        if seconds > END_S:
            sys.exit("that is more than %.0f s" % END_S)
