"""A real model in stages, with and without shards: the logits of one process, behind prompts that are
longer than a piece that stages hand on, than a step, and than the window of layers that have one.

    test_stages.py DIRECTORY_OF_PROGRAMS smollm2|gemma3 [--short]

CLOISTER_TEST_MODEL and CLOISTER_TEST_GEMMA name the files; exit code 77 where there is none. --short is for
builds with a sanitizer.
"""

import json
import os
import subprocess
import sys

BIN, NAME = sys.argv[1:3]
SHORT = "--short" in sys.argv
ENGINE = os.path.join(BIN, "cloister-engine")
FILE = os.environ.get({"smollm2": "CLOISTER_TEST_MODEL", "gemma3": "CLOISTER_TEST_GEMMA"}[NAME], "")
WORDS = "what the sea had brought, hour by hour, to the foot of the tower "
# Tokens of the prompt, and jobs beside it with prompts of their own; Gemma's window has 512.
PROMPTS = [(150, 2)] if SHORT else [(3, 0), (300, 3), (620, 2)]
WAYS = [["--stages", "2"], ["--stages", "3", "--split", "2,1,3"], ["--stages", "2", "--shards", "2"],
        ["--stages", "3", "--split", "1,2,3,1,1,0"],
        ["--stages", "2", "--shards", "2", "--transport", "ucx"]]


def generate(ids, beside, options):
    p = subprocess.run([ENGINE, "generate", FILE, "--json", "--ignore-end", "--max-tokens", "6", "--context",
                        "1024", "--beside", str(beside), "--temperature", "0.7", "--seed", "3",
                        "--prompt-ids", ids, *options], capture_output=True, text=True, timeout=800)
    if p.returncode == 1 and "libucx" in p.stderr:
        return None
    if p.returncode != 0:
        sys.exit("%s: exit code %d: %s" % (" ".join(options), p.returncode, p.stderr))
    return json.loads(p.stdout)["logits_sha256"]


if not FILE:
    print("no model to run")
    sys.exit(77)
text = subprocess.run([ENGINE, "tokenize", FILE], input=(WORDS * 100).encode(), capture_output=True,
                      check=True).stdout.split()
for tokens, beside in PROMPTS:
    ids = b" ".join(text[:tokens]).decode()
    want = generate(ids, beside, [])
    for way in WAYS:
        got = generate(ids, beside, [*way, "--threads", "1"])
        how = "%d tokens, %d beside, %s" % (tokens, beside, " ".join(way))
        if got is None:
            print("%s: no libucx" % how)
        elif got != want:
            sys.exit("%s: other logits than on one process" % how)
        else:
            print("%s: %s" % (how, got[:16]), flush=True)
