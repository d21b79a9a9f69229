#!/usr/bin/env python3
"""The tables of docs/shards.md: how models are cut for 1 to 16 devices, as cloister-engine says.

  shard_tables.py BIN [FILE...]     BIN: folder of cloister-engine and synthetic_model

FILEs are models; those that are too large to have at hand are headers of their shapes with nothing
behind them, made and removed here.
"""

import json
import os
import subprocess
import sys
import tempfile

SHAPES = [
    ("Llama 3 8B, Q4_K_M", "--layers 32 --of 32 --embd 4096 --ff 14336 --heads 32 --kv-heads 8 "
     "--vocab 128256"),
    ("Llama 3 70B, Q4_K_M", "--layers 80 --of 80 --embd 8192 --ff 28672 --heads 64 --kv-heads 8 "
     "--vocab 128256"),
    ("Qwen2 7B, Q4_K_M", "--layers 28 --of 28 --embd 3584 --ff 18944 --heads 28 --kv-heads 4 "
     "--vocab 152064"),
]
SHARDS = (1, 2, 3, 4, 8, 16)


def estimate(tools, path, shards):
    """For AVX2, whose layout most machines hold, with two threads."""
    out = subprocess.run([os.path.join(tools, "cloister-engine"), "estimate", path, "--json",
                          "--isa", "avx2", "--threads", "2", "--shards", str(shards)],
                         check=True, stdout=subprocess.PIPE).stdout
    return json.loads(out)


def counts(ranks, part):
    """What ranks have of a part: "3", or "2-3" where ranks or layers differ."""
    of = [run[1] - run[0] for rank in ranks for run in (layer[part] for layer in rank["of_layer"])]
    return str(min(of)) if min(of) == max(of) else "%d-%d" % (min(of), max(of))


def size(of):
    return "%.2f GiB" % (of / 2**30) if of >= 2**30 else "%.1f MiB" % (of / 2**20)


def table(tools, name, path):
    print("\n%s\n" % name)
    print("| shards | query heads | KV heads | ffn columns | vocabulary | weights | KV pool | "
          "scratch | exchange | largest | all |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for shards in SHARDS:
        ranks = estimate(tools, path, shards)["ranks"]
        rows = [r["head_rows"][1] - r["head_rows"][0] for r in ranks]
        most = {k: max(r[k] for r in ranks) for k in ranks[0] if k.endswith("_bytes")}
        print("| %d | %s | %s | %s | %d | %s | %s | %s | %s | %s | %s |" % (
            shards, counts(ranks, "heads"), counts(ranks, "kv_heads"), counts(ranks, "ffn_columns"),
            max(rows), size(most["weights_bytes"]), size(most["kv_bytes"]),
            size(most["scratch_bytes"]), size(most["exchange_bytes"]), size(most["total_bytes"]),
            size(sum(r["total_bytes"] for r in ranks))))


def main(tools, files):
    for path in files:
        table(tools, os.path.basename(path), path)
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in SHAPES:
            path = os.path.join(folder, "empty.gguf")
            subprocess.run([os.path.join(tools, "synthetic_model"), path, "--empty", "--untied",
                            *shape.split()], check=True)
            table(tools, name, path)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
