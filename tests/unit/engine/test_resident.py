"""Resident memory beside `cloister-engine estimate`: what a job takes at its peak is at most 1.1 times
what was stated, alone and among others, and hardly less than what it must hold.

    test_resident.py DIRECTORY_OF_PROGRAMS smollm2|gemma3

CLOISTER_TEST_MODEL and CLOISTER_TEST_GEMMA name the files; exit code 77 where there is none.
"""

import json
import os
import subprocess
import sys
import tempfile

BIN, NAME = sys.argv[1:3]
ENGINE = os.path.join(BIN, "cloister-engine")
FILE = os.environ.get({"smollm2": "CLOISTER_TEST_MODEL", "gemma3": "CLOISTER_TEST_GEMMA"}[NAME], "")
PAGE = 32  # positions
OTHERS_TOKENS = 64  # longest prompt of one of generate's neighbours
WORDS = "what the sea had brought, hour by hour, to the foot of the tower "

# How much of a context, how many jobs beside, of how many tokens each, and the cache.
ROWS = [
    (1024, 0, 8, "f16"),
    (1024, 0, 8, "q8_0"),
    (512, 31, 32, "f16"),
]


def estimate(context, slots, cache):
    out = subprocess.run([ENGINE, "estimate", FILE, "--json", "--context", str(context), "--slots",
                          str(slots), "--kv", cache, "--threads", "2"], capture_output=True,
                         text=True, check=True).stdout
    return json.loads(out)


def peak_of(*command):
    """Bytes resident at most, of a process of its own, and what it printed."""
    with tempfile.TemporaryFile() as out:
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if child.returncode != 0:
        sys.exit("%s: exit %d" % (" ".join(command), child.returncode))
    return usage.ru_maxrss * 1024, text


def prompt_of(context, tokens):
    """A text that fills the context but for the answer."""
    ids = subprocess.run([ENGINE, "tokenize", FILE], input=(WORDS * context).encode(),
                         capture_output=True, check=True).stdout.split()
    return b" ".join(ids[:context - tokens - 1]).decode()


if not FILE:
    print("no model to run")
    sys.exit(77)
# The program itself, with its libraries.
base, _ = peak_of(ENGINE, "--version")
failed = 0
print("%-28s %10s %10s %10s" % ("", "estimate", "at peak", ""))
for context, others, tokens, cache in ROWS:
    each = min(tokens + OTHERS_TOKENS + PAGE, context)
    e = estimate(context, 1 + (each * others + context - 1) // context, cache)
    peak, out = peak_of(ENGINE, "generate", FILE, "--json", "--context", str(context), "--kv", cache,
                        "--threads", "2", "--beside", str(others), "--ignore-end", "--max-tokens",
                        str(tokens), "--prompt-ids", prompt_of(context, tokens))
    if len(json.loads(out)["ids"]) != tokens:
        sys.exit("not %d tokens" % tokens)
    # Every matrix is read and every page of the job's own is written: much less would mean that
    # something else was measured. Pages and rows of steps that nobody filled are not resident.
    least = e["weights_bytes"] + e["kv_page_bytes"] * (context // PAGE)
    good = peak <= base + 1.1 * e["total_bytes"] and peak >= least
    failed += not good
    print("%-28s %7.1f MB %7.1f MB %9.3f%s" %
          ("%d tokens, %s, %d beside" % (context, cache, others), e["total_bytes"] / 1e6, peak / 1e6,
           peak / e["total_bytes"], "" if good else "   OUT OF BOUNDS"), flush=True)
sys.exit(1 if failed else 0)
