"""A whole model on the emulated GPU, or on several, a shard or a stage on each: the same tokens and the same logits,
bit for bit, as on the CPU.

    test_cuda.py DIRECTORY_OF_PROGRAMS tiny|smollm2|gemma3

Between shards bytes go through host memory, or, with what stands in for NCCL, from device to device.

CLOISTER_TEST_MODEL and CLOISTER_TEST_GEMMA name the files; exit code 77 where there is none. The tiny
model is made here, and is run under every schedule of the emulation (tests/cuda_emulation).
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time

BIN, NAME = sys.argv[1:3]
CPU = os.path.join(BIN, "cloister-engine")
GPU = os.path.join(BIN, "cloister-engine-emulated")
PROMPT = "The lighthouse keeper wrote down"
# A prompt in one step and in pieces; one answer alone, and beside others; both caches. Steps of the same
# shape come again, so that graphs are replayed.
WAYS = [
    ("in one step", ["--max-tokens", "5"]),
    ("in pieces, beside others, q8_0", ["--max-tokens", "3", "--chunk", "5", "--beside", "2", "--kv",
                                        "q8_0"]),
]


NCCL = ["--transport", "nccl"]
SHARDS = [["--shards", "2"], ["--split", "3,1"], ["--shards", "4"], ["--stages", "2"],
          ["--stages", "2", "--shards", "2"]]
OVER_NCCL = [SHARDS[0] + NCCL, SHARDS[1] + NCCL, SHARDS[2] + NCCL, SHARDS[4] + NCCL]
# Which stages hand on in several pieces.
LONG = [("a long prompt", ["--max-tokens", "3", "--beside", "1"])]
LONG_PROMPT = (PROMPT + " ") * 6
STAND_IN = os.path.join(os.path.dirname(BIN), "lib", "nccl_stand_in")


def environment(schedule, **more):
    return dict(os.environ, CUDA_EMULATION_SCHEDULE=schedule, CUDA_EMULATION_DEVICES="4",
                LD_LIBRARY_PATH=STAND_IN, **more)


def generate(program, file, more, schedule, prompt=PROMPT):
    command = [program, "generate", file, "--prompt", prompt, "--raw", "--json", "--ignore-end",
               "--context", "256"] + more
    out = subprocess.run(command, capture_output=True, text=True, check=False,
                         env=environment(schedule))
    if out.returncode != 0:
        sys.exit("%s: exit %d\n%s" % (" ".join(command), out.returncode, out.stderr))
    return json.loads(out.stdout)


# An id, a short list, a list that may be too short, and all of a row.
SAMPLINGS = [
    [],
    ["--temperature", "1"],
    ["--temperature", "0.8", "--top-k", "40", "--top-p", "0.95", "--min-p", "0.05"],
    ["--temperature", "2", "--top-p", "0.97"],
    ["--temperature", "1", "--repetition-penalty", "1.2"],
]


def same_text(file, schedule, shards, sampling, more_of_both):
    """Without a digest only what is picked of a row of logits comes to the host."""
    def text(program, more):
        command = [program, "generate", file, "--prompt", PROMPT, "--raw", "--ignore-end", "--context",
                   "256", "--seed", "11"] + sampling + more_of_both + more
        return subprocess.run(command, stdout=subprocess.PIPE, check=True,
                              env=environment(schedule)).stdout

    want = text(CPU, [])
    for more in [["--backend", "cuda-emulated"], ["--isa", "scalar"],
                 ["--backend", "cuda-emulated", *shards]]:
        if text(GPU, more) != want:
            sys.exit("%s, %s: other text than on the CPU" % (schedule, " ".join(more)))
    print("%s, %s: the same text, with and without shards" % (schedule, " ".join(sampling) or "greedy"))


def compare(file, schedule, ways, shards, prompt=PROMPT):
    for what, more in ways:
        cpu = generate(CPU, file, more, schedule, prompt)
        for cut in [[]] + shards:
            gpu = generate(GPU, file, more + cut + ["--backend", "cuda-emulated"], schedule,
                           prompt)
            how = " ".join([what, schedule] + cut)
            for key in ("ids", "logits_sha256"):
                if cpu[key] != gpu[key]:
                    sys.exit("%s: %s differs: %s on the CPU, %s on the GPU" %
                             (how, key, cpu[key], gpu[key]))
            if not gpu["isa"].startswith("cuda"):
                sys.exit("it ran on %s" % gpu["isa"])
            print("%s: %s, %d us decode" %
                  (how, gpu["logits_sha256"][:16], gpu["usage"]["decode_us"]))


def nccl_fails(file, folder):
    """Everybody ends, soon, and rank 0 says why."""
    with open(os.path.join(folder, "libnccl.so.2"), "w") as f:
        f.write("no library\n")
    cases = [
        ("no library", {"LD_LIBRARY_PATH": folder}, "collectives between GPUs need NCCL"),
        ("too old", {"NCCL_STAND_IN_VERSION": "21602"}, "is NCCL 2.16.2; 2.18.1 or newer is needed"),
        ("no communicator", {"NCCL_STAND_IN": "init:1"}, "rank 1: NCCL: system error"),
        ("an error on the way", {"NCCL_STAND_IN": "async:1:4"},
         "rank 1: NCCL: unhandled cuda error"),
        ("a CPU has none", {"backend": "cpu"}, "nccl moves bytes between GPUs"),
    ]
    for what, change, says in cases:
        backend = change.pop("backend", "cuda-emulated")
        started = time.monotonic()
        p = subprocess.run([GPU, "generate", file, "--raw", "--prompt", PROMPT, "--max-tokens", "4",
                            "--backend", backend, "--shards", "3", *NCCL], capture_output=True,
                           text=True, check=False, timeout=60, env={**environment("forward"), **change})
        if p.returncode != 1 or says not in p.stderr:
            sys.exit("%s: exit %d, %s" % (what, p.returncode, p.stderr))
        print("%s: %.1f s, %s" % (what, time.monotonic() - started, p.stderr.strip()))


def rank_is_killed(file, transport):
    p = subprocess.Popen([GPU, "generate", file, "--raw", "--prompt", PROMPT, "--max-tokens", "4000",
                          "--ignore-end", "--backend", "cuda-emulated", "--shards", "3", *transport],
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                         env=environment("forward"))
    time.sleep(2)
    with open("/proc/%d/task/%d/children" % (p.pid, p.pid)) as f:
        ranks = [int(child) for child in f.read().split()]
    os.kill(ranks[1], signal.SIGKILL)
    killed = time.monotonic()
    text = p.communicate(timeout=60)[1]
    if p.returncode != 1 or "rank 2 ended" not in text or time.monotonic() - killed > 3:
        sys.exit("a killed rank: exit %d after %.1f s, %s" %
                 (p.returncode, time.monotonic() - killed, text))
    print("killed: %.1f s, %s" % (time.monotonic() - killed, text.strip()))


if NAME == "tiny":
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "tiny.gguf")
        subprocess.run([os.path.join(BIN, "write_tiny_model"), path], check=True)
        for order in ("forward", "reverse", "random:7"):
            compare(path, order, WAYS, SHARDS + OVER_NCCL)
            compare(path, order, LONG, SHARDS[3:] + OVER_NCCL[3:], LONG_PROMPT)
            for sampling in SAMPLINGS:
                same_text(path, order, OVER_NCCL[0], sampling, ["--max-tokens", "12", "--beside", "1"])
        nccl_fails(path, folder)
        long = os.path.join(folder, "long.gguf")
        subprocess.run([os.path.join(BIN, "write_tiny_model"), long, "8192"], check=True)
        for transport in ([], NCCL):
            rank_is_killed(long, transport)
        lacks = subprocess.run([GPU, "generate", path, "--prompt", PROMPT, "--shards", "3", "--backend",
                                "cuda-emulated"], capture_output=True, text=True, check=False,
                               env=dict(os.environ, CUDA_EMULATION_DEVICES="2"))
        if lacks.returncode == 0 or "GPU 2: there are 2" not in lacks.stderr:
            sys.exit("3 shards on 2 GPUs: exit %d, %s" % (lacks.returncode, lacks.stderr))
else:
    path = os.environ.get({"smollm2": "CLOISTER_TEST_MODEL", "gemma3": "CLOISTER_TEST_GEMMA"}[NAME], "")
    if not path:
        print("no model to run")
        sys.exit(77)
    compare(path, "forward", WAYS, [SHARDS[0], OVER_NCCL[0], SHARDS[4]])
    for how in SAMPLINGS[1:4]:
        same_text(path, "forward", SHARDS[0], how, ["--max-tokens", "4"])
