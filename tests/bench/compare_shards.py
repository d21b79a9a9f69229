"""One process with N threads beside N processes with one thread each, which hold a shard each, or a stage
each: the price of the exchanges between them, and of waiting for each other. In turns, medians, the ratio
of their speeds.

    compare_shards.py PROGRAMS MODEL.gguf... [--processes 2] [--rounds 5] [--before PROGRAMS] [--urgent]

--before: the threads of an older build in the same turns. --urgent: at real-time priority, and a process of
several threads has its first on a CPU of its own; for a machine that has other work to do (root).
"""

import argparse
import json
import os
import statistics
import subprocess
import time


def urgent():
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(5))


def place(pid, threads):
    """The first thread has what CPU the others are not pinned to."""
    for _ in range(500):
        if len(os.listdir("/proc/%d/task" % pid)) >= threads:
            os.sched_setaffinity(pid, {min(os.sched_getaffinity(0))})
            return
        time.sleep(0.002)


def rates(programs, model, options, is_urgent):
    p = subprocess.Popen([os.path.join(programs, "cloister-engine"), "bench", model, "--json", "--runs", "1",
                          "--prompt", "512", "--generate", "64", "--streams", "8", "--depth", "0", *options],
                         stdout=subprocess.PIPE, text=True, preexec_fn=urgent if is_urgent else None)
    threads = int(options[options.index("--threads") + 1])
    if is_urgent and threads > 1:
        place(p.pid, threads)
    out = p.communicate()[0]
    if p.returncode != 0:
        raise SystemExit(1)
    return {("prompt" if m["what"] == "prompt" else
             "8 streams" if m["streams"] > 1 else "decode"): m["tokens_per_s"]
            for m in json.loads(out)["measurements"]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("programs")
    p.add_argument("models", nargs="+")
    p.add_argument("--processes", type=int, default=2)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--before")
    p.add_argument("--urgent", action="store_true")
    o = p.parse_args()
    n = str(o.processes)
    ways = {"threads": (o.programs, ["--threads", n]),
            "shards": (o.programs, ["--threads", "1", "--shards", n]),
            "stages": (o.programs, ["--threads", "1", "--stages", n])}
    if o.before:
        ways["threads before"] = (o.before, ["--threads", n])
    for model in o.models:
        seen = {}
        for _ in range(o.rounds):
            for way, (programs, options) in ways.items():
                for what, rate in rates(programs, model, options, o.urgent).items():
                    seen.setdefault((what, way), []).append(rate)
        for what in ("prompt", "decode", "8 streams"):
            for way in [way for way in ways if way != "threads"]:
                one, many = seen[what, "threads"], seen[what, way]
                ratios = [b / a for a, b in zip(one, many)]
                print("%-24s %-10s %7.1f tokens/s on %s threads, %7.1f on %s %s: %.2f (%.2f to %.2f)"
                      % (os.path.basename(model), what, statistics.median(one), n,
                         statistics.median(many), n, way, statistics.median(ratios), min(ratios),
                         max(ratios)), flush=True)


main()
