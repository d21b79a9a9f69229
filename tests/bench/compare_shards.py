"""One process with N threads beside N processes with one thread each, which hold a shard each, or a stage
each: the price of the exchanges between them, and of waiting for each other. In turns, medians, the ratio
of their speeds.

    compare_shards.py PROGRAMS MODEL.gguf... [--processes 2] [--rounds 5]
"""

import argparse
import json
import os
import statistics
import subprocess


def rates(engine, model, options):
    out = subprocess.run([engine, "bench", model, "--json", "--runs", "1", "--prompt", "512",
                          "--generate", "64", "--streams", "8", *options], check=True,
                         capture_output=True, text=True).stdout
    return {("prompt" if m["what"] == "prompt" else
             "8 streams" if m["streams"] > 1 else "decode"): m["tokens_per_s"]
            for m in json.loads(out)["measurements"]}


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("programs")
    p.add_argument("models", nargs="+")
    p.add_argument("--processes", type=int, default=2)
    p.add_argument("--rounds", type=int, default=5)
    o = p.parse_args()
    engine = os.path.join(o.programs, "cloister-engine")
    n = str(o.processes)
    ways = {"threads": ["--threads", n], "shards": ["--threads", "1", "--shards", n],
            "stages": ["--threads", "1", "--stages", n]}
    for model in o.models:
        seen = {}
        for _ in range(o.rounds):
            for way, options in ways.items():
                for what, rate in rates(engine, model, options).items():
                    seen.setdefault((what, way), []).append(rate)
        for what in ("prompt", "decode", "8 streams"):
            for way in ("shards", "stages"):
                one, many = seen[what, "threads"], seen[what, way]
                ratios = [b / a for a, b in zip(one, many)]
                print("%-24s %-10s %7.1f tokens/s on %s threads, %7.1f on %s %s: %.2f (%.2f to %.2f)"
                      % (os.path.basename(model), what, statistics.median(one), n,
                         statistics.median(many), n, way, statistics.median(ratios), min(ratios),
                         max(ratios)), flush=True)


main()
