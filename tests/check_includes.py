#!/usr/bin/env python3
"""Which part may know which, read from the #include lines (ARCHITECTURE.md, "Parts and direction").

  check_includes.py [--root DIR]                    the #include lines of the tree
  check_includes.py --cc CC [--include DIR]...      also: every header compiles alone
  check_includes.py --self-test                     each rule finds what it is for
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

PARTS = ("common", "proto", "coordinator", "worker", "client")

# Who may include which of our headers. The first pattern that fits a file is its rule.
OURS = [
    (r"client/cloister\.h", []),
    (r"client/cli/", [r"common/", r"proto/wire\.h", r"client/", r"coordinator/ledger/export\.h"]),
    (r"client/", [r"common/", r"proto/(wire|hello)\.h", r"client/(?!cli/)"]),
    (r"common/", [r"common/"]),
    (r"proto/", [r"common/", r"proto/"]),
    (r"coordinator/core/",
     [r"common/(?!transport|log|clock|config|notify|crypto|folder|memory|program)", r"proto/(wire|record)\.h",
      r"coordinator/core/"]),
    (r"coordinator/store/", [r"common/", r"coordinator/store/"]),
    (r"coordinator/ledger/",
     [r"common/", r"proto/(wire|record)\.h", r"coordinator/ledger/", r"coordinator/store/store\.h"]),
    (r"coordinator/", [r"common/", r"proto/(wire|record)\.h", r"coordinator/"]),
    (r"worker/kernels/", [r"common/", r"worker/kernels/"]),
    (r"worker/coll/", [r"common/(?!transport)", r"worker/coll/"]),
    (r"worker/model/", [r"common/", r"worker/model/", r"worker/kernels/(quant_type|backend)\.h"]),
    (r"worker/gpu/", [r"common/", r"worker/gpu/"]),
    (r"worker/engine/(batch(_internal|_pages|_plan)?|kv_pages|stream|sampling)\.[ch]",
     [r"common/(?!transport|log|clock|config|notify|crypto|folder|memory|program)",
      r"worker/engine/(batch(_internal|_pages|_plan)?|kv_pages|stream|sampling)\.h", r"worker/kernels/(numerics|philox|pick|sample)\.h"]),
    (r"worker/engine/",
     [r"common/(?!transport)", r"worker/engine/", r"worker/kernels/", r"worker/model/",
      r"worker/coll/coll\.h"]),
    (r"worker/engine_tool/",
     [r"common/(?!transport)", r"worker/"]),
    (r"worker/", [r"common/", r"proto/(wire|hello)\.h", r"worker/"]),
]

# Libraries: each is known to few files.
LIBRARIES = [
    (r".*\.pb-c\.h", r"proto/(wire|record|convert)\w*\.c"),
    (r"(google/)?protobuf-c/.*", r"proto/convert(_\w+)?\.[ch]"),
    (r"nng/.*", r"common/transport_(nng|conn|server|client)\.[ch]"),
    (r"lmdb\.h", r"coordinator/store/store_lmdb\.c"),
    (r"libconfig\.h", r"common/config\w*\.c"),
    (r"openssl/.*", r"common/(crypto|sha256|transport_endpoint)\.c|coordinator/ledger/\w+\.c"),
    (r"jansson\.h", r"(coordinator/ledger|client/cli|worker/engine_tool)/\w+\.[ch]"),
    (r"pcre2\.h", r"worker/model/tokenizer\w*\.c"),
    (r"uc[mps]/.*", r"worker/coll/ucx_library\.h"),
    (r"xxhash\.h", r"(coordinator/store|worker/engine|worker/model)/\w+\.c"),
    (r"immintrin\.h|cpuid\.h", r"worker/kernels/.*"),
    (r"dlfcn\.h", r"worker/(gpu/nvml|coll/(ucx|nccl)_library)\.c"),
    (r"malloc\.h", r"worker/engine/runtime\.c"),
    (r"cuda_runtime_api\.h", r"worker/kernels/cuda/\w+\.[ch]u?"),
    (r"cuda_runtime\.h", r"worker/kernels/cuda/\w+\.(cu|h)"),
]

STANDARD_C = r"""assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal
stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads time
uchar wchar wctype"""
SYSTEM = r"""dirent fcntl fnmatch getopt glob grp libgen netdb poll pthread pwd sched semaphore spawn
strings syslog termios unistd"""

# Files that compute and nothing else: no clock, thread, socket or file behind their back. stdio.h
# is for snprintf.
PURE = [
    (r"coordinator/core/.*", "inttypes limits stdarg stdbool stddef stdint stdio stdlib string"),
    (r"worker/engine/(batch(_internal|_pages|_plan)?|kv_pages|stream|sampling)\.[ch]",
     "float inttypes limits math stdarg stdbool stddef stdint stdio stdlib string xxhash"),
    (r"client/cloister\.h", "stdbool stddef stdint"),
]

# Pieces of one translation unit, included at one place; they do not stand alone.
FRAGMENTS = r"worker/kernels/cpu/(body_\w+|kernel_bodies|vec_\w+)\.h"
# CUDA's headers are not on every machine: what includes them is compiled where they are.
NEEDS_CUDA = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<cuda_\w+\.h>", re.M)

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.M)


def names(text):
    return {name + ".h" for name in text.split()}


def is_system(header):
    return (header in names(STANDARD_C) or header in names(SYSTEM)
            or re.match(r"(sys|linux|arpa|net|netinet|asm)/", header) is not None)


def check_file(path, text):
    """The violations of one file: (line, header, why)."""
    for match in INCLUDE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        why = check_include(path, match.group(1) == '"', match.group(2))
        if why is not None:
            yield line, match.group(2), why


def check_include(path, quoted, header):
    for pattern, owners in LIBRARIES:
        if re.fullmatch(pattern, header):
            return None if re.fullmatch(owners, path) else "this library is known only to " + owners
    if header.split("/")[0] in PARTS:
        if not quoted:
            return "our headers are included with quotes"
        for files, allowed in OURS:
            if re.match(files, path):
                if any(re.match(a, header) for a in allowed):
                    return None
                return "%s may include only %s" % (files, " ".join(allowed) or "standard headers")
        return "no rule says what this file may include"
    if quoted:
        return "our headers are named from the root of the repository"
    for files, allowed in PURE:
        if re.fullmatch(files, path):
            return None if header in names(allowed) else "%s is pure: only %s" % (files, allowed)
    return None if is_system(header) else "no rule names this library"


def sources(root):
    for part in PARTS:
        for path in sorted((root / part).rglob("*")):
            if path.suffix in (".c", ".h", ".cu"):
                yield path.relative_to(root).as_posix()


def check_tree(root):
    bad = 0
    count = 0
    for path in sources(root):
        count += 1
        for line, header, why in check_file(path, (root / path).read_text()):
            print("%s:%d: #include of %s: %s" % (path, line, header, why))
            bad += 1
    if count == 0:
        print("no sources under %s" % root)
        return 1
    print("%d files, %d wrong includes" % (count, bad))
    return bad


def needs_cuda(root, path):
    """Itself, or by another header of worker/kernels/cuda."""
    text = (root / path).read_text()
    if NEEDS_CUDA.search(text):
        return True
    others = {h for _, h in INCLUDE.findall(text) if h.startswith("worker/kernels/cuda/") and h != path}
    return any((root / h).exists() and needs_cuda(root, h) for h in others)


def check_headers(root, cc, includes):
    bad = 0
    headers = [p for p in sources(root) if p.endswith(".h") and not re.fullmatch(FRAGMENTS, p)
               and not needs_cuda(root, p)]
    flags = ["-std=c11", "-D_GNU_SOURCE", "-fsyntax-only", "-Wall", "-Wextra", "-Werror",
             "-Wno-unused-function", "-I" + str(root)] + ["-I" + d for d in includes]
    for path in headers:
        # Twice: the include guard is checked as well. The last line keeps the unit from being empty.
        text = '#include "%s"\n#include "%s"\nextern int not_empty;\n' % (path, path)
        with tempfile.NamedTemporaryFile("w", suffix=".c") as unit:
            unit.write(text)
            unit.flush()
            run = subprocess.run([cc] + flags + [unit.name], stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, universal_newlines=True)
        if run.returncode != 0:
            print("%s does not compile alone:\n%s" % (path, run.stdout))
            bad += 1
    print("%d headers, %d do not stand alone" % (len(headers), bad))
    return bad


# A file, a line in it, and whether it is allowed.
SELF_TEST = [
    ("common/buf.c", '#include "common/buf.h"', True),
    ("common/buf.c", '#include "proto/wire.h"', False),
    ("common/buf.c", '  #  include   "proto/wire.h"', False),
    ("common/buf.c", '#include "buf.h"', False),
    ("common/buf.c", "#include <common/buf.h>", False),
    ("common/buf.c", "#include <pthread.h>", True),
    ("common/buf.c", "#include <surprise.h>", False),
    ("common/config.c", "#include <libconfig.h>", True),
    ("common/log.c", "#include <libconfig.h>", False),
    ("common/transport_nng.c", "#include <nng/nng.h>", True),
    ("common/transport_endpoint.c", "#include <nng/nng.h>", False),
    ("coordinator/loop.c", "#include <nng/nng.h>", False),
    ("proto/wire.c", '#include "common/arena.h"', True),
    ("proto/wire.c", '#include "coordinator/core/core.h"', False),
    ("proto/wire_tables.c", '#include "proto/cloister.pb-c.h"', True),
    ("proto/convert.h", "#include <protobuf-c/protobuf-c.h>", True),
    ("proto/wire.h", "#include <protobuf-c/protobuf-c.h>", False),
    ("coordinator/loop.c", '#include "proto/cloister.pb-c.h"', False),
    ("coordinator/loop.c", '#include "proto/convert.h"', False),
    ("coordinator/loop.c", '#include "proto/wire.h"', True),
    ("coordinator/loop.c", '#include "worker/engine/engine.h"', False),
    ("coordinator/loop.c", "#include <lmdb.h>", False),
    ("coordinator/store/store_lmdb.c", "#include <lmdb.h>", True),
    ("coordinator/store/store.c", "#include <lmdb.h>", False),
    ("coordinator/store/store.c", '#include "coordinator/core/core.h"', False),
    ("coordinator/core/job.c", '#include "coordinator/core/state.h"', True),
    ("coordinator/core/job.c", '#include "proto/record.h"', True),
    ("coordinator/core/job.c", '#include "coordinator/store/store.h"', False),
    ("coordinator/core/job.c", '#include "coordinator/loop.h"', False),
    ("coordinator/core/job.c", '#include "common/limits.h"', True),
    ("coordinator/core/job.c", '#include "common/clock.h"', False),
    ("coordinator/core/job.c", '#include "common/log.h"', False),
    ("coordinator/core/job.c", '#include "common/transport.h"', False),
    ("coordinator/core/job.c", '#include "common/crypto.h"', False),
    ("coordinator/core/job.c", '#include "common/sha256.h"', True),
    ("coordinator/core/job.c", '#include "common/folder.h"', False),
    ("coordinator/core/job.c", "#include <string.h>", True),
    ("coordinator/core/job.c", "#include <time.h>", False),
    ("coordinator/core/job.c", "#include <pthread.h>", False),
    ("coordinator/core/job.c", "#include <sys/socket.h>", False),
    ("coordinator/core/job.c", "#include <unistd.h>", False),
    ("coordinator/core/job.c", "#include <math.h>", False),
    ("worker/engine/batch.c", '#include "common/check.h"', True),
    ("worker/engine/batch.c", '#include "common/clock.h"', False),
    ("worker/engine/batch.c", '#include "worker/engine/engine.h"', False),
    ("worker/engine/stream.c", "#include <pthread.h>", False),
    ("worker/engine/sampling.c", "#include <math.h>", True),
    ("worker/engine/engine.c", "#include <pthread.h>", True),
    ("worker/engine/engine.c", '#include "proto/wire.h"', False),
    ("worker/engine/engine.c", '#include "worker/agent.h"', False),
    ("worker/kernels/host.c", '#include "worker/model/gguf.h"', False),
    ("worker/kernels/cuda/gemv.cu", "#include <cuda_runtime.h>", True),
    ("worker/kernels/cuda/device.h", "#include <cuda_runtime.h>", True),
    ("worker/kernels/cuda/cuda_memory.c", "#include <cuda_runtime_api.h>", True),
    ("worker/kernels/cuda/cuda_memory.c", "#include <cuda_runtime.h>", False),
    ("worker/kernels/cuda/gemv.cu", '#include "worker/model/gguf.h"', False),
    ("worker/kernels/host.c", "#include <cuda_runtime_api.h>", False),
    ("worker/agent.c", "#include <cuda_runtime_api.h>", False),
    ("worker/gpu/nvml.c", "#include <dlfcn.h>", True),
    ("worker/device.c", "#include <dlfcn.h>", False),
    ("worker/gpu/nvml.c", '#include "worker/kernels/backend.h"', False),
    ("worker/kernels/host.c", '#include "worker/gpu/nvml.h"', False),
    ("worker/coll/shm.c", '#include "worker/coll/coll.h"', True),
    ("worker/coll/coll.h", '#include "worker/kernels/backend.h"', False),
    ("worker/coll/ucx_library.h", "#include <ucp/api/ucp.h>", True),
    ("worker/coll/ucx.c", "#include <ucp/api/ucp.h>", False),
    ("worker/coll/ucx_library.c", "#include <dlfcn.h>", True),
    ("worker/coll/nccl_library.c", "#include <dlfcn.h>", True),
    ("worker/model/gguf.c", '#include "worker/engine/engine.h"', False),
    ("worker/agent.c", '#include "proto/wire.h"', True),
    ("worker/agent.c", '#include "coordinator/ledger/export.h"', False),
    ("worker/agent.c", '#include "client/cloister.h"', False),
    ("client/stream.c", '#include "proto/wire.h"', True),
    ("client/stream.c", '#include "coordinator/ledger/export.h"', False),
    ("client/stream.c", '#include "client/cli/table.h"', False),
    ("client/cli/command_ledger.c", '#include "coordinator/ledger/export.h"', True),
    ("client/cli/command_ledger.c", '#include "coordinator/ledger/ledger.h"', False),
    ("client/cli/main.c", '#include "worker/engine/engine.h"', False),
    ("client/cloister.h", "#include <stdint.h>", True),
    ("client/cloister.h", '#include "common/err.h"', False),
    ("client/cloister.h", "#include <pthread.h>", False),
]


def self_test():
    wrong = 0
    for path, line, allowed in SELF_TEST:
        found = list(check_file(path, "/* text */\n%s\nint x;\n" % line))
        if (not found) != allowed or any(number != 2 for number, _, _ in found):
            print("self-test: %s in %s: %s" % (line, path, found or "nothing found"))
            wrong += 1
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "common").mkdir()
        (root / "common/good.h").write_text("#ifndef GOOD_H\n#define GOOD_H\n#include <stdint.h>\n"
                                            "struct good {\n    uint32_t x;\n};\n#endif\n")
        (root / "common/bad.h").write_text("#ifndef BAD_H\n#define BAD_H\n"
                                           "struct bad {\n    uint32_t x;\n};\n#endif\n")
        (root / "common/unguarded.h").write_text("struct unguarded {\n    int x;\n};\n")
        sys.stdout.flush()
        with open(os.devnull, "w") as quiet:
            keep, sys.stdout = sys.stdout, quiet
            bad = check_headers(root, "cc", [])
            sys.stdout = keep
        if bad != 2:
            print("self-test: %d headers that do not stand alone, not 2" % bad)
            wrong += 1
    print("self-test: %d cases, %d wrong" % (len(SELF_TEST) + 3, wrong))
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parent.parent)
    parser.add_argument("--cc", help="also check that every header compiles alone")
    parser.add_argument("--include", action="append", default=[], help="a folder of headers")
    parser.add_argument("--self-test", action="store_true")
    args = parser.parse_args()
    if args.self_test:
        sys.exit(1 if self_test() else 0)
    bad = check_tree(args.root.resolve())
    if args.cc:
        bad += check_headers(args.root.resolve(), args.cc, args.include)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
