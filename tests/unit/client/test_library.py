"""libcloister as others get it: its names are those of the header, and a program that knows only the
header builds with the shared and with the static library and runs."""

import os
import re
import shutil
import subprocess
import sys
import tempfile

LIB, ROOT, CC, FLAGS = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4].split()
failures = []


def check(what, condition, detail=""):
    if not condition:
        failures.append(what + (": " + detail if detail else ""))


def run(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def names_in(path, *options):
    done = run("nm", "--defined-only", *options, path)
    return {line.split()[-1].split("@")[0] for line in done.stdout.decode().splitlines()
            if len(line.split()) == 3 and line.split()[1] in "TDBRVW"}


with open(os.path.join(ROOT, "client/cloister.h")) as f:
    header = f.read()
declared = set(re.findall(r"CLOISTER_API[^;]*?\b(cloister_\w+)\(", header))
check("the header declares functions", len(declared) > 20)
shared, static = os.path.join(LIB, "libcloister.so"), os.path.join(LIB, "libcloister.a")
check("names of the shared library", names_in(shared, "-D") == declared,
      str(names_in(shared, "-D") ^ declared))
check("names of the static library", names_in(static, "-g") == declared,
      str(names_in(static, "-g") ^ declared))
needed = run("readelf", "-d", shared).stdout.decode()
check("soname", "libcloister.so.0" in needed)
for other in ("jansson", "libconfig", "liblmdb", "pcre2"):
    check("the shared library needs no " + other, other not in needed)
check("only standard headers", set(re.findall(r"#include <(\w+)\.h>", header)) ==
      {"stdbool", "stddef", "stdint"} and '#include "' not in header)


# The header's example, between its first paragraph and how to build: every line, in order.
shown = [line[2:].strip() for line in header.split("Build with")[0].splitlines()
         if line.startswith(" *     ")]
with open(os.path.join(ROOT, "tests/unit/client/example.c")) as f:
    example = [line.strip() for line in f]
missing = []
for line in shown:
    if line in example:
        del example[:example.index(line) + 1]
    else:
        missing.append(line)
check("example.c is the header's example", len(shown) > 15 and not missing, str(missing))

with tempfile.TemporaryDirectory() as folder:
    shutil.copy(os.path.join(ROOT, "client/cloister.h"), folder)
    others = ["-lnng", "-lprotobuf-c", "-lcrypto", "-lpthread", "-lm"]
    for kind, libraries in (("shared", [shared, "-Wl,-rpath," + LIB]), ("static", [static] + others)):
        program = os.path.join(folder, kind)
        built = run(CC, "-std=c11", "-Wall", "-Werror", *FLAGS, "-I", folder,
                    os.path.join(ROOT, "tests/unit/client/example.c"), "-o", program, *libraries)
        check("building with the %s library" % kind, built.returncode == 0, built.stdout.decode())
        if built.returncode == 0:
            done = run(program, "tcp://127.0.0.1:1")
            check("running with the %s library" % kind, done.returncode == 1 and
                  done.stdout.startswith(b"no coordinator at tcp://127.0.0.1:1: connection"
                                         b" refused"), done.stdout.decode())

for failure in failures:
    print(failure, file=sys.stderr)
print("%d failures" % len(failures) if failures else "ok")
sys.exit(bool(failures))
