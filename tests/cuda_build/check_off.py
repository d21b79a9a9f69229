#!/usr/bin/env python3
"""That a build without CUDA says so: CMake, which compiler it did not find and that kernels are left out, or
ends where they are asked for by name; and the programs, what they lack.

  check_off.py CMAKE SOURCE [ENGINE WORKER]      the programs, where they are of a build without CUDA
"""

import os
import subprocess
import sys
import tempfile

CMAKE, SOURCE = sys.argv[1:3]
PROGRAMS = sys.argv[3:]
failures = 0


def check(what, good, text):
    global failures
    print("%s: %s" % (what, "said" if good else "NOT SAID in\n" + text))
    failures += not good


def configured(folder, *options):
    done = subprocess.run([CMAKE, "-S", SOURCE, "-B", os.path.join(folder, "build"),
                           "-DCLOISTER_TESTS=OFF", *options], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    return done.returncode, " ".join(done.stdout.split())


with tempfile.TemporaryDirectory() as folder:
    nowhere = os.path.join(folder, "toolkit")
    os.mkdir(nowhere)
    for what, options, status, says in (
            ("off by name", ["-DCLOISTER_CUDA=OFF"], 0, "-- CUDA is off: CLOISTER_CUDA is OFF"),
            ("no compiler", ["-DCLOISTER_CUDA=AUTO", "-DCLOISTER_CUDA_ROOT=" + nowhere], 0,
             "-- CUDA is off: no nvcc in %s/bin, the CLOISTER_CUDA_ROOT" % nowhere),
            ("a build with sanitizers", ["-DCLOISTER_SANITIZE=address"], 0,
             "-- CUDA is off: an instrumented build"),
            ("asked for, and not there", ["-DCLOISTER_SANITIZE=", "-DCLOISTER_CUDA=ON"], 1,
             "CLOISTER_CUDA is ON, but no nvcc in " + nowhere)):
        got, text = configured(folder, *options)
        check(what, got == status and says in text, text)
    model = os.path.join(folder, "model.gguf")
    if PROGRAMS:
        engine, worker = PROGRAMS
        made = os.path.join(os.path.dirname(engine), "write_tiny_model")
        subprocess.run([made, model], check=True)
        for what, status, command, says in (
                ("cloister-engine", 1, [engine, "generate", model, "--raw", "--prompt", "x", "--backend",
                                        "cuda"],
                 "this build has no CUDA backend"),
                ("cloister-worker", 2, [worker, "--coordinator", "tcp://127.0.0.1:1", "--name", "w", "--state-dir",
                                        folder, "--device", "cuda:0", "--model", "m=" + model],
                 "device cuda:0: this build has no CUDA backend")):
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
            check(what, done.returncode == status and says in done.stderr, done.stderr)
sys.exit(1 if failures else 0)
