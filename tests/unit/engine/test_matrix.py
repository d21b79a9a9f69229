"""The same bits everywhere: one hash of logits for each file and cache, however it is run.

    test_matrix.py DIRECTORY_OF_PROGRAMS [tiny|smollm2|gemma3] [--full] [--short]

tiny: a file of every weight type, made by synthetic_model. smollm2, gemma3: the files that
CLOISTER_TEST_MODEL and CLOISTER_TEST_GEMMA name; exit code 77 where there is none. Each line is one
file with one cache, run in every way of WAYS; --full runs it in every combination of them, which
takes hours. --short is for builds with a sanitizer.

Logits of the prompt's last and of every drawn position are hashed by cloister-engine itself.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time

BIN = sys.argv[1]
NAME = sys.argv[2] if len(sys.argv) > 2 else "tiny"
FULL = "--full" in sys.argv
SHORT = "--short" in sys.argv
ENGINE = os.path.join(BIN, "cloister-engine")
SYNTHETIC = os.path.join(BIN, "synthetic_model")

# What may change nothing. The first of each stands where another is changed. Others are jobs with
# prompts, lengths and seeds of their own in the same steps.
WAYS = {
    "others": ["--beside 0", "--beside 8"],
    "chunk": ["--chunk 512", "--chunk 64", "--chunk 17", "--chunk 1"],
    "threads": ["--threads 2", "--threads 1", "--threads 3"],
    "isa": ["--isa auto", "--isa scalar", "--isa avx2", "--isa avx512", "--isa amx"],
    "shards": ["--shards 1", "--shards 2", "--shards 3", "--shards 4", "--shards 8", "--split 3,1",
               "--stages 2", "--stages 2 --split 1,3,2,1"],
}
CROWDS = ["--beside 1", "--beside 6", "--beside 63"]  # without --full
# Real models.
NETWORK = [way + " --transport ucx" for way in ("--shards 2", "--shards 3", "--shards 4", "--shards 8",
                                                "--split 3,1")]
CACHES = ["f16", "q8_0"]
# Heads that share keys, and a head of the vocabulary that is no whole number of panels of 16 rows.
TINY = ["--layers", "2", "--embd", "256", "--ff", "512", "--heads", "4", "--kv-heads", "2",
        "--vocab", "300", "--context", "256"]
PROMPT = "The lighthouse keeper wrote down, hour by hour, what the sea had brought: "


def combinations():
    """One way changed at a time, and all at once; or, with --full, every combination."""
    defaults = [ways[0] for ways in WAYS.values()]
    if FULL:
        return [list(c) for c in itertools.product(*WAYS.values())]
    rows = [defaults]
    for at, ways in enumerate(WAYS.values()):
        rows += [defaults[:at] + [way] + defaults[at + 1:] for way in ways[1:]]
    rows += [[crowd] + defaults[1:] for crowd in CROWDS]
    return rows + [["--beside 8", "--chunk 17", "--threads 3", "--isa auto", "--shards 3"]]


def generate(file, cache, row, prompt, tokens):
    options = [word for way in row for word in way.split()]
    p = subprocess.run([ENGINE, "generate", file, "--raw", "--json", "--kv", cache, "--prompt",
                        prompt, "--max-tokens", str(tokens), "--temperature", "0.7", "--seed", "3",
                        "--ignore-end", *options], capture_output=True, text=True, timeout=800)
    if p.returncode == 1 and ("this machine lacks" in p.stderr or "libucx" in p.stderr):
        return None
    if p.returncode != 0:
        sys.exit("%s, %s cache, %s: %s" % (file, cache, " ".join(row), p.stderr))
    return json.loads(p.stdout)


def one_hash(name, file, cache, prompt, tokens, rows):
    """All rows against the first; how many differed."""
    want = generate(file, cache, rows[0], prompt, tokens)
    if len(want["ids"]) != tokens or len(want["prompt_ids"]) < 2:
        sys.exit("%s: %d tokens behind %d" % (name, len(want["ids"]), len(want["prompt_ids"])))
    same, missing, different = 1, 0, []
    for row in rows[1:]:
        got = generate(file, cache, row, prompt, tokens)
        if got is None:
            missing += 1
        elif got["logits_sha256"] == want["logits_sha256"] and got["ids"] == want["ids"]:
            same += 1
        else:
            different.append(" ".join(row))
    print("%-22s %-5s %3d + %2d tokens  %s  %3d ways the same%s" %
          (name, cache, len(want["prompt_ids"]), tokens, want["logits_sha256"][:16], same,
           ", %d not on this machine" % missing if missing else ""), flush=True)
    for row in different:
        print("    DIFFERENT: " + row)
    return len(different), want["logits_sha256"]


def tiny(folder):
    failed, hashes = 0, {}
    kinds = subprocess.run([SYNTHETIC, "--list"], capture_output=True, text=True,
                           check=True).stdout.split()
    if SHORT:
        kinds = ["F16", "Q4_1", "Q4_K_M", "Q8_0"]
    elif len(kinds) < 16:
        sys.exit("synthetic_model knows %d types only" % len(kinds))
    for kind in kinds:
        file = os.path.join(folder, kind + ".gguf")
        subprocess.run([SYNTHETIC, file, *TINY, "--type", kind], check=True)
        for cache in CACHES:
            lost, digest = one_hash(kind, file, cache, PROMPT, 6, combinations())
            failed += lost
            # A cache or type that changed nothing would not have been used.
            if digest in hashes:
                print("    THE SAME AS " + hashes[digest])
                failed += 1
            hashes[digest] = "%s, %s" % (kind, cache)
        os.unlink(file)
    return failed


def real(variable):
    file = os.environ.get(variable, "")
    if not file:
        print(variable + " is not set: no model to run")
        sys.exit(77)
    scalar = [row for row in combinations() if "--isa scalar" in row]
    vector = [row for row in combinations() if "--isa scalar" not in row]
    vector += [vector[0][:-1] + [way] for way in (NETWORK[:1] if SHORT else NETWORK)]
    failed = 0
    for cache in CACHES:
        # Three pages of the cache, so that every chunk size cuts it.
        failed += one_hash(NAME, file, cache, PROMPT * (2 if SHORT else 5), 8, vector)[0]
        # The reference takes a hundred times as long.
        failed += one_hash(NAME + ", scalar", file, cache, "The sea", 2, vector[:1] + scalar)[0]
    return failed


began = time.monotonic()
if NAME == "tiny":
    with tempfile.TemporaryDirectory() as tmp:
        wrong = tiny(tmp)
else:
    wrong = real({"smollm2": "CLOISTER_TEST_MODEL", "gemma3": "CLOISTER_TEST_GEMMA"}[NAME])
print("%s: %d different, %.0f s" % (NAME, wrong, time.monotonic() - began))
sys.exit(1 if wrong else 0)
