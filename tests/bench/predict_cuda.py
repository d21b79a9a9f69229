#!/usr/bin/env python3
"""Decode and prefill on GPUs, predicted from what the engine queues and what a GPU can do at most.

  predict_cuda.py BIN [PTXAS...]

BIN: folder of cuda_steps, synthetic_model and cloister-engine. PTXAS: what ptxas said of each .cu file
(BUILD/worker/kernels/cloister_cuda_kernels.dir/*.ptxas), for registers and occupancy. cuda_steps says which
kernels a step launches, with which grids and how many bytes; here each gets the time of what bounds it
most. Where the machine has a GPU, what `cloister-engine bench` measures stands beside it. The tables
of docs/cuda.md.
"""

import json
import math
import os
import re
import subprocess
import sys
import tempfile

# One H100 SXM5. Memory, int8, NVLink and PCIe: NVIDIA H100 Tensor Core GPU data sheet. Multiprocessors
# and what one has: NVIDIA H100 Tensor Core GPU Architecture, tables 3 and 4; CUDA C++ Programming Guide,
# "Compute Capabilities". The clock is less than its boost: what it holds under load.
MEMORY = 3.35e12  # bytes/s
INT8 = 1979e12  # operations/s, dense
NVLINK = 450e9  # bytes/s each way
PCIE = 64e9
SMS, CLOCK, SCHEDULERS, FP32 = 132, 1.755e9, 4, 128
L2_BYTES = 64  # a clock, from the second-level cache to one multiprocessor
REGISTERS, SHARED, WARPS, BLOCKS = 65536, 228 << 10, 64, 32
# Assumed, not measured: from the end of a kernel to the next one's work, and, with shards, from the end of
# one to the next when the host has waited for it and met the other ranks; and what NCCL takes for an exchange of
# any size, beside its bytes.
GAP, WAIT, NCCL = 2e-6, 10e-6, 8e-6
RUN = 32  # NCCL_RUN_MAX of worker/coll/nccl.h

# Instructions of a warp, counted in the SASS of sm_90 (docs/cuda.md). gemv: 32 rows x 256 columns of the
# matrix, by columns of x. gemm: a step of 128 columns, and its half of a leaf, by the tile's threads.
GEMV = {"Q4_K": {1: 486, 2: 655, 4: 885, 8: 1450}, "Q5_K": {1: 607, 2: 781, 4: 1010, 8: 1572},
        "Q6_K": {1: 630, 2: 798, 4: 1031, 8: 1600}}
GEMM = {"Q4_K": {256: 1100, 128: 761, 64: 443}, "Q5_K": {256: 1274, 128: 925, 64: 504},
        "Q6_K": {256: 1472, 128: 1056, 64: 563}}
TILES = {256: (128, 64, 32, 32, 3), 128: (64, 32, 32, 16, 4), 64: (32, 16, 16, 16, 7)}
NUMBERS = {"Q4_K": 12, "Q5_K": 13, "Q6_K": 14}

MODELS = [
    ("8B", "Llama 3.1 8B, Q4_K_M", "--layers 32 --of 32 --embd 4096 --ff 14336 --heads 32 --kv-heads 8"),
    ("70B", "Llama 3.1 70B, Q4_K_M", "--layers 80 --of 80 --embd 8192 --ff 28672 --heads 64 --kv-heads 8"),
]
SHARDS = (1, 2, 4, 8)
HERE = os.path.dirname(os.path.abspath(__file__))


def ptxas(files):
    """Name -> registers, static shared memory, on sm_90."""
    if not files:
        return {}
    show = subprocess.run([sys.executable, os.path.join(HERE, "../cuda_build/check_ptxas.py"), "--show",
                           *files], check=True, stdout=subprocess.PIPE, text=True).stdout
    found = re.findall(r"^'?(.+?)'?\s+90\s+(\d+)\s+(\d+)\s+\d+\s+\d+$", show, re.M)
    return {name: (int(registers), int(shared)) for name, registers, shared in found}


def compiled_name(launch):
    """The kernel as ptxas calls it; attention's instance is not told by its launch."""
    kernel = launch["kernel"].strip("()")
    if kernel.startswith("gemv"):
        return "gemv_kernel<(quant_type)%d, %s>" % (NUMBERS[launch["type"]], kernel[kernel.index(",") + 2:-1])
    if kernel.startswith("gemm"):
        rows, cols, down, across, stages = TILES[launch["threads"]]
        resident = 2 if launch["threads"] == 256 and launch["type"] != "Q6_K" else 1
        return "gemm_kernel<(quant_type)%d, gemm_tile<%du, %du, %du, %du, %du, %du> >" % (
            NUMBERS[launch["type"]], rows, cols, down, across, stages, resident)
    return kernel


def resident(launch, registers, static):
    """Blocks of a multiprocessor."""
    of_block = math.ceil(registers / 8) * 8 * launch["threads"]
    shared = launch["shared"] + static + 1024
    return min(REGISTERS // of_block, SHARED // shared, WARPS * 32 // launch["threads"], BLOCKS)


def slots(launch):
    """Issue slots of one block of a matrix product."""
    if launch["op"] != "matmul":
        return 0
    if "gemv" in launch["kernel"]:
        columns = int(re.search(r", (\d), ", launch["kernel"])[1])
        return math.ceil(launch["cols"] / 256) * GEMV[launch["type"]][columns]
    return math.ceil(launch["cols"] / 128) * launch["threads"] // 32 * GEMM[launch["type"]][launch["threads"]]


def bounds(launch, link):
    """Seconds of one launch by each of what may bound it."""
    per_sm = math.ceil(launch["blocks"] / SMS)
    used = min(launch["blocks"], SMS)
    return {
        "memory": launch["bytes"] / MEMORY,
        "few blocks": launch["bytes"] / (used * L2_BYTES * CLOCK),
        "issue": per_sm * slots(launch) / (SCHEDULERS * CLOCK),
        "FP32": launch["macs"] / (used * FP32 * CLOCK) if launch["op"] == "attention" else 0,
        "chain": launch["cols"] / 4 / CLOCK if launch["op"] == "norm" else 0,
        "link": launch["bus"] / link,
        "int8": 2 * launch["macs"] / INT8 if launch["op"] == "matmul" else 0,
    }


def longest(launch, link):
    return max(bounds(launch, link).items(), key=lambda b: b[1])


def waiting(step, link):
    """Seconds of a step that shards compute in which nobody computes: the host waits for the device and the other
    ranks, or NCCL is at work. Where all stretches of the step are known, NCCL is waited for once it has brought what
    is embedded, then for each RUN exchanges, and for the last of them; and the host for results."""
    results = 1 if step["results"] > 0 else 0
    exchanges = step["waits"] - results
    if link != NVLINK:
        return step["waits"] * WAIT
    waits = 1 + math.ceil((exchanges - 1) / RUN) + results if step["graphs"] > 0 else step["waits"]
    return waits * WAIT + exchanges * NCCL


def step_seconds(step, link):
    """The whole, and how much of it each bound has."""
    shares = {"gaps": waiting(step, link) if step["shards"] > 1 else 0}
    for launch in step["launches"]:
        bound, seconds = longest(launch, link)
        shares[bound] = shares.get(bound, 0) + seconds * launch["count"]
        shares["gaps"] += GAP * launch["count"]
    return sum(shares.values()), shares


def steps_of(tools, path, shards):
    more = ["--shards", str(shards)] if shards > 1 else []
    out = subprocess.run([os.path.join(tools, "cuda_steps"), path, *more], check=True,
                         stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def measured(tools, path, shards, transport):
    """Tokens a second by (what, streams or prompt); empty without a GPU, without enough, or without NCCL."""
    found = {}
    gang = ["--shards", str(shards), "--transport", transport] if shards > 1 else []
    for options in (["--prompt", "512", "--generate", "64", "--depth", "1024", "--streams", "8,32"],
                    ["--prompt", "4096", "--generate", "1", "--depth", "0", "--streams", "1"]):
        run = subprocess.run([os.path.join(tools, "cloister-engine"), "bench", path, "--backend", "cuda",
                              "--json", *options, *gang],
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
        if run.returncode != 0:
            return {}
        for m in json.loads(run.stdout)["measurements"]:
            if m["what"] == "prompt":
                found["prefill", m["prompt"]] = m["tokens_per_s"]
            elif m["what"] == "streams" or m["prompt"] == 1024:
                found["decode", m["streams"]] = m["tokens_per_s"]
    return found


def exchanged(steps):
    """Bytes that each rank has after an exchange of sums, the sizes there are but the last layer's; where it
    finishes a run of rows, also what it reads and writes for that."""
    embd = next((l["cols"] for l in steps[0]["launches"] if l["op"] == "norm"), 0)
    sizes = {l["bus"] for s in steps for l in s["launches"]
             if l["op"] == "join" and l["cols"] == embd and l["count"] > 2}
    return " / ".join("%.3g MB" % (size / 1e6) for size in sorted(sizes)) or "-"


def row(name, tokens, steps, key, measures):
    total = {link: sum(step_seconds(s, link)[0] for s in steps) for link in (PCIE, NVLINK)}
    shards = steps[0]["shards"]
    shares = {}
    for s in steps:
        for bound, seconds in step_seconds(s, PCIE)[1].items():
            shares[bound] = shares.get(bound, 0) + seconds
    most = sorted(shares.items(), key=lambda b: -b[1])[:3]
    print("| %s | %d | %.2f | %.0f | %d, %d | %s | %.2f | %d | %s | %s | %s |" % (
        name, shards, sum(l["bytes"] * l["count"] for s in steps for l in s["launches"]) / 1e9,
        sum(l["bus"] * l["count"] for s in steps for l in s["launches"]) / 1e6,
        sum(l["count"] for l in steps[0]["launches"]), steps[0]["graphs"] + steps[0]["single"],
        exchanged(steps), total[PCIE] * 1e3,
        tokens / total[PCIE],
        "%.2f, %d" % (total[NVLINK] * 1e3, tokens / total[NVLINK]) if shards > 1 else "-",
        ", ".join("%s %.0f %%" % (b, 100 * s / total[PCIE]) for b, s in most if s > 0.01 * total[PCIE]),
        ", ".join("%d%s" % (m[key], " " + transport if shards > 1 else "")
                  for transport, m in measures.items() if key in m) or "-"))


def model_table(tools, name, path):
    print("\n%s\n" % name)
    print("| step | GPUs | GB | MB by PCIe | kernels, queued | exchanged | ms | tokens/s | by NVLink | bound by | "
          "measured |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    first = None
    for shards in SHARDS:
        steps = steps_of(tools, path, shards)
        measures = {transport: measured(tools, path, shards, transport)
                    for transport in (("shm", "nccl") if shards > 1 else ("shm",))}
        first = first or steps
        by_name = {s["step"]: s for s in steps}
        for n in (1, 8, 32):
            row("decode %d" % n, n, [by_name["decode %d" % n]], ("decode", n), measures)
        prompt = [s for s in steps if s["step"].startswith("prompt")]
        row("prefill 512", 512, prompt[:1], ("prefill", 512), measures)
        row("prefill 4096", 4096, prompt, ("prefill", 4096), measures)
    return first


def kernel_table(steps, figures):
    for step in steps:
        print("\n%s\n" % step["step"])
        print("| operation | kernel | times | blocks | registers, blocks at once | MB | us | bound by |")
        print("|---|---|---|---|---|---|---|---|")
        for l in sorted(step["launches"], key=lambda l: -longest(l, PCIE)[1] * l["count"]):
            compiled = figures.get(compiled_name(l))
            bound, seconds = longest(l, PCIE)
            shape = "%s %d x %d" % (l["type"], l["rows"], l["cols"]) if l["op"] == "matmul" else \
                "%d columns" % l["cols"]
            print("| %s, %s | `%s` | %d | %d | %s | %.2f | %.1f | %s |" % (
                l["op"], shape, l["kernel"].strip("()"), l["count"], l["blocks"],
                "%d, %d" % (compiled[0], resident(l, *compiled)) if compiled else "-",
                l["bytes"] / 1e6, seconds * 1e6, bound if seconds > 0 else "gap"))


def main(tools, files):
    figures = ptxas(files)
    with tempfile.TemporaryDirectory() as folder:
        for short, name, shape in MODELS:
            path = os.path.join(folder, "empty.gguf")
            subprocess.run([os.path.join(tools, "synthetic_model"), path, "--empty", "--untied", "--vocab",
                            "128256", "--context", "8192", "--type", "Q4_K_M", *shape.split()], check=True)
            steps = model_table(tools, name, path)
            if short == "8B":
                whole = steps
    print("\nKernels of the 8B model on one GPU")
    kernel_table([s for s in whole if s["step"] in ("decode 1", "decode 32", "prompt 0")], figures)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
