"""cloister-engine beside llama.cpp: the same file, the same threads, in turns.

    compare_llama.py BIN LLAMA_CPP FILE.gguf... [--threads 2] [--rounds 3] [--depth 4096]
                     [--streams 8,32,64] [--generate 64] [--prompt 512] [--isa auto]

BIN holds cloister-engine and bench_kernels, LLAMA_CPP what tests/bench/llama_cpp brought. Each round
runs every measurement once with each, in turns, so that a machine that is slow for a while is slow
for both; printed are the medians of the rounds and their ratio. The machine's memory bandwidth and
its peak of integer products are measured in the same run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

parser = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("bin")
parser.add_argument("llama_cpp")
parser.add_argument("files", nargs="+")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--prompt", type=int, default=512)
parser.add_argument("--generate", type=int, default=64)
parser.add_argument("--depth", type=int, default=4096)
parser.add_argument("--streams", default="8,32,64")
parser.add_argument("--isa", default="auto", help="ours; llama.cpp has what it was built for")
options = parser.parse_args()
STREAMS = [int(s) for s in options.streams.split(",") if s]
STREAM_PROMPT = 32  # as cloister-engine bench has it


def output_of(*command):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit("%s: exit %d: %s" % (" ".join(map(str, command)), done.returncode,
                                      done.stderr.decode(errors="replace")[-800:]))
    return done.stdout.decode()


def ours(*more):
    if "--depth" not in more:
        more += ("--depth", 0)
    out = output_of(os.path.join(options.bin, "cloister-engine"), "bench", *more, "--json",
                    "--threads", options.threads, "--isa", options.isa, "--runs", 1,
                    "--generate", options.generate)
    return json.loads(out)["measurements"]


def llama(program, *more):
    return output_of(os.path.join(options.llama_cpp, "build", "bin", program), "-t",
                     options.threads, *more)


def llama_bench(file, prompt, generate, depth):
    rows = json.loads(llama("llama-bench", "-m", file, "-p", prompt, "-n", generate, "-d", depth,
                            "-r", 1, "-o", "json"))
    return [row for row in rows if row["n_prompt"] == prompt and row["n_gen"] == generate][0][
        "avg_ts"]


def llama_streams(file, streams):
    context = streams * (STREAM_PROMPT + options.generate) + 64
    out = llama("llama-batched-bench", "-m", file, "-c", context, "-npp", STREAM_PROMPT, "-ntg",
                options.generate, "-npl", streams, "--output-format", "jsonl")
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return rows[0]["speed_tg"]


def measurements(file):
    """Name, what gives our rate, what gives theirs."""
    yield ("prompt of %d" % options.prompt,
           lambda: ours(file, "--prompt", options.prompt, "--streams", 1)[0]["tokens_per_s"],
           lambda: llama_bench(file, options.prompt, 0, 0))
    yield ("decode",
           lambda: ours(file, "--prompt", 0, "--streams", 1)[0]["tokens_per_s"],
           lambda: llama_bench(file, 0, options.generate, 0))
    if options.depth:
        yield ("decode behind %d" % options.depth,
               lambda: ours(file, "--prompt", 0, "--streams", 1, "--depth",
                            options.depth)[1]["tokens_per_s"],
               lambda: llama_bench(file, 0, options.generate, options.depth))
    for n in STREAMS:
        yield ("decode of %d streams" % n,
               lambda n=n: ours(file, "--prompt", 0, "--streams", n)[1]["tokens_per_s"],
               lambda n=n: llama_streams(file, n))


def limits():
    out = output_of(os.path.join(options.bin, "bench_kernels"), "--ms", 50, "--threads",
                    options.threads, "--isa", options.isa)
    return out.splitlines()[0]


print(limits())
for file in options.files:
    print(os.path.basename(file))
    rows = [(name, our, their, [], []) for name, our, their in measurements(file)]
    for round_ in range(options.rounds):
        for name, our, their, our_rates, their_rates in rows:
            pair = [(our, our_rates), (their, their_rates)]
            for run, rates in pair if round_ % 2 == 0 else reversed(pair):
                rates.append(run())
    print("  %-24s %20s %20s %8s" % ("tokens/s", "cloister", "llama.cpp", "ratio"))
    for name, our, their, our_rates, their_rates in rows:
        a, b = statistics.median(our_rates), statistics.median(their_rates)
        print("  %-24s %9.1f (%.0f-%.0f) %9.1f (%.0f-%.0f) %8.2f" %
              (name, a, min(our_rates), max(our_rates), b, min(their_rates), max(their_rates),
               a / b), flush=True)
