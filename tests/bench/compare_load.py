"""From the start of a process to the first token on its stdout, cloister-engine beside llama.cpp.

    compare_load.py BIN LLAMA_CPP FILE.gguf... [--threads 2] [--rounds 7] [--prompt Hello]

Each file is read once, so that it is in the page cache; then the two run in turns, each a process of
its own with one prompt and a context of 512, and what is printed is the median of the seconds until
the first byte of the answer, the range, and how many times longer llama.cpp takes. llama-completion
runs without its warm-up and without printing the prompt, whose tokens would come before the answer.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

parser = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("bin")
parser.add_argument("llama_cpp")
parser.add_argument("files", nargs="+")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=7)
parser.add_argument("--prompt", default="Hello")
options = parser.parse_args()
CONTEXT = 512


def ours(file):
    return [os.path.join(options.bin, "cloister-engine"), "generate", file, "--raw", "--prompt",
            options.prompt, "--max-tokens", 1, "--threads", options.threads, "--context", CONTEXT]


def theirs(file):
    return [os.path.join(options.llama_cpp, "build", "bin", "llama-completion"), "-m", file, "-p",
            options.prompt, "-n", 1, "-t", options.threads, "-c", CONTEXT, "-no-cnv",
            "--no-warmup", "--no-display-prompt"]


def seconds_to_answer(command):
    start = time.monotonic()
    with subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0) as process:
        first = process.stdout.read(1)
        seconds = time.monotonic() - start
        process.stdout.read()
    if process.returncode != 0 or not first:
        sys.exit("%s: exit %d and %s" % (" ".join(map(str, command)), process.returncode,
                                         "an answer" if first else "no answer"))
    return seconds


def read_once(file):
    with open(file, "rb") as f:
        while f.read(1 << 24):
            pass


print("  %-28s %22s %22s %8s" % ("seconds to the first token", "cloister", "llama.cpp", "ratio"))
for path in options.files:
    read_once(path)
    runs = [(ours(path), []), (theirs(path), [])]
    for round_ in range(options.rounds):
        for command, seconds in runs if round_ % 2 == 0 else reversed(runs):
            seconds.append(seconds_to_answer(command))
    a, b = [statistics.median(seconds) for _, seconds in runs]
    print("  %-28s %s %8.2f" %
          (os.path.basename(path),
           " ".join("%8.3f (%.3f-%.3f)" % (statistics.median(s), min(s), max(s)) for _, s in runs),
           b / a), flush=True)
