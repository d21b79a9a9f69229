"""Perplexity beside llama.cpp: the same files, the same text, counted the same way.

    compare_perplexity.py BIN LLAMA_CPP TEXT FILE.gguf... [--types Q4_0,Q2_K,...|none] [--threads 2]
                          [--context 512] [--types-bytes 50000] [--bound 0.5] [--types-only]
                          [--json OUT]

BIN holds cloister-engine, LLAMA_CPP what tests/bench/llama_cpp brought. Each FILE is scored over the
whole text with an f16 and a q8_0 cache. Of each, llama-quantize makes a file of every type, which is
scored over the text's first bytes with an f16 cache: what is compared is the arithmetic of the type,
so it does not matter that the files come from quantized ones. Exit code 1 where the difference of
any is over the bound, in percent. --types-only leaves the FILEs themselves out.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile

# Each type of weights; what llama-quantize calls the file; what it is told beside. Rows of these
# models' other matrices are no whole super-blocks, and it would mix the types of the rest: ffn_down is
# put to the type by name. Its MXFP4 is for experts only.
TYPES = {
    "F32": ("F32", None), "F16": ("F16", None), "BF16": ("BF16", None), "Q4_0": ("Q4_0", None),
    "Q4_1": ("Q4_1", None), "Q5_0": ("Q5_0", None), "Q5_1": ("Q5_1", None), "Q8_0": ("Q8_0", None),
    "Q2_K": ("Q2_K", "ffn_down=q2_k"), "Q3_K": ("Q3_K_M", "ffn_down=q3_k"),
    "Q4_K": ("Q4_K_M", "ffn_down=q4_k"), "Q5_K": ("Q5_K_M", "ffn_down=q5_k"),
    "Q6_K": ("Q6_K", "ffn_down=q6_k"), "IQ4_NL": ("IQ4_NL", None),
    "IQ4_XS": ("IQ4_XS", "ffn_down=iq4_xs"), "MXFP4": ("Q8_0", "ffn_(up|gate|down)=mxfp4"),
}

parser = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("bin")
parser.add_argument("llama_cpp")
parser.add_argument("text")
parser.add_argument("files", nargs="+")
parser.add_argument("--types", default=",".join(TYPES))
parser.add_argument("--types-bytes", type=int, default=50000)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--context", type=int, default=512)
parser.add_argument("--bound", type=float, default=0.5)
parser.add_argument("--types-only", action="store_true")
parser.add_argument("--json")
options = parser.parse_args()


def output_of(*command):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    if done.returncode != 0:
        sys.exit("%s: exit %d: %s" % (" ".join(map(str, command)), done.returncode,
                                      done.stdout.decode(errors="replace")[-800:]))
    return done.stdout.decode(errors="replace")


def ours(file, text, kv):
    out = output_of(os.path.join(options.bin, "cloister-engine"), "perplexity", file, text, "--json",
                    "--context", options.context, "--kv", kv, "--threads", options.threads)
    return json.loads(out)["perplexity"]


def llama(program, *arguments):
    return output_of(os.path.join(options.llama_cpp, "build", "bin", program), *arguments)


def theirs(file, text, kv):
    cache = [] if kv == "f16" else ["-ctk", kv, "-ctv", kv, "-fa", "on"]
    out = llama("llama-perplexity", "-m", file, "-f", text, "-c", options.context, "-t",
                options.threads, *cache)
    found = re.search(r"Final estimate: PPL = ([0-9.]+)", out)
    if found is None:
        sys.exit("llama-perplexity printed no estimate:\n" + out[-800:])
    return float(found.group(1))


def quantize(source, kind, target):
    name, special = TYPES[kind]
    more = ["--tensor-type", special] if special else []
    llama("llama-quantize", "--allow-requantize", *more, source, target, name, options.threads)
    if kind not in types_in(target):
        sys.exit("%s: llama-quantize made %s of it" % (kind, ", ".join(types_in(target))))


def types_in(file):
    """Which types it holds, the one with most bytes first."""
    info = json.loads(output_of(os.path.join(options.bin, "cloister-engine"), "info", "--json",
                                file))
    return sorted(info["types"], key=lambda t: -info["types"][t]["bytes"])


results = []


def compare(name, file, text, kv):
    a, b = ours(file, text, kv), theirs(file, text, kv)
    percent = 100 * (a - b) / b
    results.append({"file": name, "kv": kv, "bytes": os.path.getsize(text), "types": types_in(file),
                    "cloister": a, "llama.cpp": b, "percent": percent})
    print("  %-30s %-5s %6.1f kB %11.4f %11.4f %+8.3f %%%s" %
          (name, kv, os.path.getsize(text) / 1e3, a, b, percent,
           "" if abs(percent) <= options.bound else "   OVER THE BOUND"), flush=True)


with open(options.text, "rb") as f:
    whole = f.read()
print("%s: %d bytes, SHA-256 %s, pieces of %d tokens" %
      (os.path.basename(options.text), len(whole), hashlib.sha256(whole).hexdigest()[:16],
       options.context))
print("  %-30s %-5s %9s %11s %11s %10s" % ("", "cache", "text", "cloister", "llama.cpp", "apart"))
with tempfile.TemporaryDirectory() as folder:
    short = os.path.join(folder, "text")
    with open(short, "wb") as f:
        f.write(whole[:options.types_bytes])
    for file in options.files:
        name = os.path.splitext(os.path.basename(file))[0]
        for kv in () if options.types_only else ("f16", "q8_0"):
            compare(name, file, options.text, kv)
        for kind in options.types.split(",") if options.types != "none" else []:
            made = os.path.join(folder, kind + ".gguf")
            quantize(file, kind, made)
            compare(name + " as " + kind, made, short, "f16")
            os.unlink(made)
if options.json:
    with open(options.json, "w") as f:
        json.dump(results, f, indent=1)
over = [r for r in results if abs(r["percent"]) > options.bound]
print("%d of %d over %g %%; the largest difference is %.3f %%" %
      (len(over), len(results), options.bound, max(abs(r["percent"]) for r in results)))
sys.exit(1 if over else 0)
