"""A whole model on the emulated GPU, or on several, a shard or a stage on each: the same tokens and the same logits,
bit for bit, as on the CPU.

    test_cuda.py DIRECTORY_OF_PROGRAMS tiny|smollm2|gemma3

CLOISTER_TEST_MODEL and CLOISTER_TEST_GEMMA name the files; exit code 77 where there is none. The tiny
model is made here, and is run under every schedule of the emulation (tests/cuda_emulation).
"""

import json
import os
import subprocess
import sys
import tempfile

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


SHARDS = [["--shards", "2"], ["--split", "3,1"], ["--shards", "4"], ["--stages", "2"],
          ["--stages", "2", "--shards", "2"]]
# Which stages hand on in several pieces.
LONG = [("a long prompt", ["--max-tokens", "3", "--beside", "1"])]
LONG_PROMPT = (PROMPT + " ") * 6


def generate(program, file, more, schedule, prompt=PROMPT):
    command = [program, "generate", file, "--prompt", prompt, "--raw", "--json", "--ignore-end",
               "--context", "256"] + more
    out = subprocess.run(command, capture_output=True, text=True, check=False,
                         env=dict(os.environ, CUDA_EMULATION_SCHEDULE=schedule,
                                  CUDA_EMULATION_DEVICES="4"))
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
                              env=dict(os.environ, CUDA_EMULATION_SCHEDULE=schedule,
                                       CUDA_EMULATION_DEVICES="4")).stdout

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


if NAME == "tiny":
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "tiny.gguf")
        subprocess.run([os.path.join(BIN, "write_tiny_model"), path], check=True)
        for order in ("forward", "reverse", "random:7"):
            compare(path, order, WAYS, SHARDS)
            compare(path, order, LONG, SHARDS[3:], LONG_PROMPT)
            for sampling in SAMPLINGS:
                same_text(path, order, SHARDS[0], sampling, ["--max-tokens", "12", "--beside", "1"])
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
    compare(path, "forward", WAYS, [SHARDS[0], SHARDS[4]])
    for how in SAMPLINGS[1:4]:
        same_text(path, "forward", SHARDS[0], how, ["--max-tokens", "4"])
