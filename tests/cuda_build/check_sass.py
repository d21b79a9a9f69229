#!/usr/bin/env python3
"""What is in the machine code of each kernel, against sass.txt.

  check_sass.py --expected FILE --cuobjdump PROGRAM OBJECT...
  check_sass.py --show --cuobjdump PROGRAM OBJECT...     how often each instruction is in each kernel
  check_sass.py --off REASON                             why there is nothing to look at; status 77
  check_sass.py --self-test                              it finds what it is for
"""

import argparse
import collections
import os
import re
import subprocess
import sys
import tempfile

import table

ARCH = re.compile(r"\s*code for sm_(\d+)[a-z]?\s*$")
FUNCTION = re.compile(r"\s*Function : (\S+)")
INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.a-z]*)")


def read_sass(text):
    """(mangled name, architecture): a counter of instruction names."""
    found = {}
    arch = None
    counts = None
    for line in text.splitlines():
        match = ARCH.match(line)
        if match:
            arch = match.group(1)
            counts = None
            continue
        match = FUNCTION.match(line)
        if match:
            counts = found.setdefault((match.group(1), arch), collections.Counter())
            continue
        match = INSTRUCTION.match(line)
        if match and counts is not None:
            counts[match.group(1)] += 1
    return found


def read_objects(cuobjdump, objects):
    """(name, architecture, counter), sorted."""
    found = {}
    environment = dict(os.environ)
    # cuobjdump calls nvdisasm, which lies beside it
    environment["PATH"] = os.path.dirname(os.path.realpath(cuobjdump)) + os.pathsep + environment["PATH"]
    for path in objects:
        run = subprocess.run([cuobjdump, "-sass", path], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, universal_newlines=True, env=environment)
        kernels = read_sass(run.stdout) if run.returncode == 0 else {}
        if not kernels:
            raise table.Problem("%s -sass %s: status %d, no kernel; %s"
                                % (cuobjdump, path, run.returncode, run.stderr.strip()))
        found.update(kernels)
    names = table.demangle(name for name, _ in found)
    return sorted((names[name], int(arch), counts) for (name, arch), counts in found.items())


def check(path, kernels, say):
    """The number of wrong lines, and of checks made."""
    wrong = 0
    checks = 0
    built = {str(arch) for _, arch, _ in kernels}
    for number, (pattern, arch_pattern, instruction, least, most) in table.read_table(path, 5):
        try:
            wanted = re.compile(instruction)
        except re.error as error:
            raise table.Problem("%s:%d: %s: %s" % (path, number, instruction, error))
        least = 0 if least == "-" else table.number_of(path, number, least)
        most = None if most == "-" else table.number_of(path, number, most)
        fitting = [k for k in kernels if table.fits(pattern, arch_pattern, k[0], str(k[1]))]
        if not fitting and (arch_pattern == "*" or arch_pattern in built):
            say("%s:%d: no kernel fits %s" % (path, number, pattern))
            wrong += 1
        for name, arch, counts in fitting:
            count = sum(n for text, n in counts.items() if wanted.fullmatch(text))
            checks += 1
            if count < least or (most is not None and count > most):
                say("%s for sm_%d: %d of %s, should be %d to %s (%s:%d)"
                    % (name, arch, count, instruction, least,
                       "any number" if most is None else most, path, number))
                wrong += 1
    return wrong, checks


SASS = """
	code for sm_90
		Function : _Z9probe_dotPK4int4S1_Pi
	.headerflags	@"EF_CUDA_SM90"
        /*0000*/                   LDC R1, c[0x0][0x28] ;                /* 0x00000a00ff017b82 */
                                                                         /* 0x000fe20000000800 */
        /*0080*/                   LDG.E.128 R4, desc[UR4][R4.64] ;      /* 0x0000000404047981 */
        /*0090*/              @!P0 LDG.E.128.CONSTANT R8, desc[UR4][R8.64] ; /* 0x000000040808 */
        /*00b0*/                   IDP.4A.S8.S8 R7, R7, R11, RZ ;        /* 0x0000000b07077226 */
        /*10c0*/              @UP1 IDP.4A.S8.S8 R6, R6, R10, R7 ;        /* 0x0000000a06067226 */
	code for sm_120
		Function : _Z9probe_dotPK4int4S1_Pi
        /*0080*/                   LDG.E.64 R4, desc[UR4][R4.64] ;       /* 0x0000000404047981 */
"""

# A table, and what is said of SASS.
SELF_TEST = [
    (r"probe_dot 90 IDP\.4A\.S8\.S8 2 2", []),
    (r"probe_dot 90 LDG\.E\.128.* 2 2", []),
    (r"probe_dot 90 LDG\.E\.128 1 1", []),
    (r"probe_dot 90 FFMA.* 0 0", []),
    (r"probe_dot 90 LDC.* 2 -", ["1 of LDC.*, should be 2 to any number"]),
    (r"probe_dot 90 LDG.* - 1", ["2 of LDG.*, should be 0 to 1"]),
    (r"probe_dot * LDG\.E\.128.* 2 -", ["sm_120: 0 of LDG"]),
    (r"probe_dot 100 IMMA.* 1 -", []),
    (r"gone * IMMA.* 1 -", ["no kernel fits gone"]),
    (r"probe_dot * IMMA( 1 -", ["IMMA("]),
    (r"probe_dot * IMMA 1", ["4 words, not 5"]),
]


def self_test():
    wrong = 0
    sass = read_sass(SASS)
    names = table.demangle(name for name, _ in sass)
    kernels = sorted((names[name], int(arch), counts) for (name, arch), counts in sass.items())
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "expected")
        for text, expected in SELF_TEST:
            with open(path, "w") as f:
                f.write(text + "\n")
            said = []
            try:
                check(path, kernels, said.append)
            except table.Problem as problem:
                said.append(str(problem))
            if len(said) != len(expected) or any(e not in s for e, s in zip(expected, said)):
                print("self-test: %r: said %s, not %s" % (text, said, expected))
                wrong += 1
    print("self-test: %d cases, %d wrong" % (len(SELF_TEST), wrong))
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--expected")
    parser.add_argument("--cuobjdump")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--off")
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("objects", nargs="*")
    args = parser.parse_args()
    if args.self_test:
        return 1 if self_test() else 0
    if args.off is not None:
        print("skipped: %s" % args.off)
        return 77
    try:
        kernels = read_objects(args.cuobjdump, args.objects)
        if args.show or args.expected is None:
            for name, arch, counts in kernels:
                print("%s for sm_%d: %s" % (name, arch, ", ".join(
                    "%d %s" % (n, text) for text, n in counts.most_common())))
            return 0
        wrong, checks = check(args.expected, kernels, print)
    except table.Problem as problem:
        print(problem)
        return 1
    print("%d checks of %d kernels, counted once an architecture; %d wrong"
          % (checks, len(kernels), wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
