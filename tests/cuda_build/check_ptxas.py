#!/usr/bin/env python3
"""Registers, shared memory, stack and spills of each kernel and architecture against budgets.txt.

  check_ptxas.py --budgets FILE LOG...     the logs that ptxas -v wrote (cmake/nvcc_logged.sh)
  check_ptxas.py --show LOG...             the figures, as lines of a budget file
  check_ptxas.py --off REASON              says why there is nothing to check; status 77
  check_ptxas.py --self-test               it finds what it is for
"""

import argparse
import os
import re
import sys
import tempfile

import table

COLUMNS = ("registers", "shared", "stack", "spills")
ENTRY = re.compile(r"ptxas info\s*: Compiling entry function '([^']+)' for 'sm_(\d+)[a-z]?'")
PROPERTIES = re.compile(r"ptxas info\s*: Function properties for (\S+)")
STACK = re.compile(r"\s*(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"ptxas info\s*: Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")


def read_log(path):
    """(mangled name, architecture): figures by COLUMNS."""
    found = {}
    key = None
    properties = None
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            match = ENTRY.match(line)
            if match:
                key = match.groups()
                found[key] = {"shared": 0}
                continue
            match = PROPERTIES.match(line)
            if match:  # of functions that were not inlined too: they are no kernels
                properties = match.group(1)
                continue
            match = STACK.match(line)
            if match and key:
                stack, stores, loads = map(int, match.groups())
                if properties == key[0]:
                    found[key]["stack"] = stack
                spills = found[key].get("spills", 0)
                found[key]["spills"] = spills + stores + loads
                continue
            match = USED.match(line)
            if match and key:
                found[key]["registers"] = int(match.group(1))
                shared = SHARED.search(line)
                found[key]["shared"] = int(shared.group(1)) if shared else 0
    for (name, arch), figures in found.items():
        missing = [c for c in COLUMNS if c not in figures]
        if missing:
            raise table.Problem("%s: %s for sm_%s: no %s" % (path, name, arch, missing[0]))
    if not found:
        raise table.Problem("%s: no kernel in it" % path)
    return found


def read_logs(paths):
    """(name, architecture, figures), sorted."""
    found = {}
    for path in paths:
        found.update(read_log(path))
    names = table.demangle(name for name, _ in found)
    return sorted((names[name], int(arch), figures) for (name, arch), figures in found.items())


def check(budget_path, kernels, say):
    wrong = 0
    used = set()
    rows = table.read_table(budget_path, 2 + len(COLUMNS))
    for name, arch, figures in kernels:
        row = next((r for r in rows if table.fits(r[1][0], r[1][1], name, str(arch))), None)
        if row is None:
            say("%s for sm_%d has no line in %s" % (name, arch, budget_path))
            wrong += 1
            continue
        number, words = row
        used.add(number)
        for column, word in zip(COLUMNS, words[2:]):
            most = table.number_of(budget_path, number, word)
            if figures[column] > most:
                say("%s for sm_%d: %d %s, the budget is %d (%s:%d)"
                    % (name, arch, figures[column], column, most, budget_path, number))
                wrong += 1
    built = {str(arch) for _, arch, _ in kernels}
    for number, words in rows:
        if words[0] != "*" and number not in used and (words[1] == "*" or words[1] in built):
            say("%s:%d: no kernel fits %s" % (budget_path, number, words[0]))
            wrong += 1
    return wrong


LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z9probe_dotPK4int4S1_Pi' for 'sm_90'
ptxas info    : Function properties for _Z9probe_dotPK4int4S1_Pi
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 16 registers, used 1 barriers, 512 bytes smem
ptxas info    : Compile time = 2.178 ms
ptxas info    : Compiling entry function '_Z9probe_sumILi16EEvPKfS1_Pf' for 'sm_120'
ptxas info    : Function properties for _Z9probe_sumILi16EEvPKfS1_Pf
    48 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers, 48 bytes cumulative stack size
"""

# A budget file, and what is said of LOG: words of each line, in order.
SELF_TEST = [
    ("probe_dot 90 16 512 0 0\nprobe_sum<*> 120 255 0 48 12\n", []),
    ("probe_* * 255 512 48 12\n", []),
    ("'probe_dot' * 16 512 0 0\n'probe_sum<16>' * 255 0 48 12\n", []),
    ("probe_dot * 15 512 0 0\nprobe_sum<*> * 255 0 48 12\n", ["probe_dot for sm_90: 16 registers"]),
    ("probe_dot * 16 511 0 0\nprobe_sum<*> * 255 0 48 12\n", ["probe_dot for sm_90: 512 shared"]),
    ("probe_dot * 16 512 0 0\nprobe_sum<*> * 255 0 48 11\n", ["probe_sum<16> for sm_120: 12 spills"]),
    ("probe_dot * 16 512 0 0\nprobe_sum<*> * 255 0 47 12\n", ["probe_sum<16> for sm_120: 48 stack"]),
    ("probe_dot * 16 512 0 0\n", ["probe_sum<16> for sm_120 has no line"]),
    ("probe_dot 80 16 512 0 0\nprobe_* * 255 512 48 12\n", []),
    ("probe_dot 90 16 512 0 0\nprobe_* * 255 512 48 12\n* * 1 1 1 1\n", []),
    ("probe_dot 90 16 512 0 0\n* * 255 512 48 11\n", ["probe_sum<16> for sm_120: 12 spills"]),
    ("probe_dot 90 16 512 0 0\nprobe_* * 255 512 48 12\ngone * 1 1 1 1\n", ["no kernel fits gone"]),
    ("probe_dot 120 16 512 0 0\nprobe_* * 255 512 48 12\n", ["no kernel fits probe_dot"]),
    ("probe_dot * 16\n", ["3 words, not 6"]),
    ("probe_* * 16 few 0 0\n", ["few is no number"]),
]


def self_test():
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        log = os.path.join(folder, "log")
        budgets = os.path.join(folder, "budgets")
        with open(log, "w") as f:
            f.write(LOG)
        kernels = read_logs([log])
        for text, expected in SELF_TEST:
            with open(budgets, "w") as f:
                f.write(text)
            said = []
            try:
                bad = check(budgets, kernels, said.append)
            except table.Problem as problem:
                said.append(str(problem))
                bad = 1
            if (len(said) != len(expected) or bad != len(expected)
                    or any(e not in s for e, s in zip(expected, said))):
                print("self-test: %r: said %s, not %s" % (text, said, expected))
                wrong += 1
        for text in ("", LOG.replace("Used 16 registers", "used"),
                     LOG.replace("bytes stack frame", "bytes of stack")):
            with open(log, "w") as f:
                f.write(text)
            try:
                read_log(log)
                print("self-test: a log that cannot be read was")
                wrong += 1
            except table.Problem:
                pass
    print("self-test: %d cases, %d wrong" % (len(SELF_TEST) + 3, wrong))
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budgets")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--off")
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("logs", nargs="*")
    args = parser.parse_args()
    if args.self_test:
        return 1 if self_test() else 0
    if args.off is not None:
        print("skipped: CUDA is off: %s" % args.off)
        return 77
    try:
        kernels = read_logs(args.logs)
        if args.show or args.budgets is None:
            for name, arch, figures in kernels:
                quoted = "'%s'" % name if " " in name else name
                print("%-40s %4d %s" % (quoted, arch, "".join("%8d" % figures[c] for c in COLUMNS)))
            return 0
        wrong = check(args.budgets, kernels, print)
    except (table.Problem, OSError) as problem:
        print(problem)
        return 1
    print("%d kernels, counted once an architecture; %d over their budget" % (len(kernels), wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
