"""How much of the code ran: lines and branches of each folder, and the files with least of it.

    coverage.py BUILD [--worst 10] [--functions] [--lines FILE]

BUILD is a build folder of the preset "coverage" in which programs ran (deploy/test --preset coverage
runs the suite and then this). --functions names every function that was never called, --lines the
lines of one file that never ran. Counted is what the repository holds and a build compiles, without
tests and generated code; of what is compiled several times (headers, the loops of each instruction
set) a line ran when it ran in one. A process that is killed leaves no counts.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import subprocess
import sys

REPO = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDERS = ("common", "proto", "coordinator", "worker", "client")

parser = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("build")
parser.add_argument("--worst", type=int, default=10)
parser.add_argument("--functions", action="store_true")
parser.add_argument("--lines")
options = parser.parse_args()


class File:
    def __init__(self):
        self.lines = collections.Counter()      # number -> times it ran
        self.branches = collections.Counter()   # (line, index) -> times it was taken
        self.functions = collections.Counter()  # (line, name) -> calls

    def add(self, counted):
        for line in counted["lines"]:
            at = line["line_number"]
            self.lines[at] += line["count"]
            for i, branch in enumerate(line["branches"]):
                self.branches[at, i] += branch["count"]
        for function in counted["functions"]:
            self.functions[function["start_line"], function["name"]] += function["execution_count"]


def notes(build):
    """What the compiler wrote beside each object: gcov finds the counts from it, if there are any."""
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(build)
                  for name in names if name.endswith(".gcno"))


def counts(note):
    done = subprocess.run(["gcov", "--branch-probabilities", "--json-format", "--stdout", note],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit("gcov %s: %s" % (note, done.stderr.decode(errors="replace")))
    return [json.loads(line) for line in done.stdout.splitlines()]


def gather(build):
    files = collections.defaultdict(File)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for unit in pool.map(counts, notes(build)):
            for counted in (f for part in unit for f in part["files"]):
                path = os.path.normpath(os.path.join(REPO, counted["file"]))
                name = os.path.relpath(path, REPO)
                if name.split(os.sep)[0] in FOLDERS:
                    files[name].add(counted)
    return files


def part(counter):
    """Of how many, and percent of them that are not 0."""
    return len(counter), 100 * sum(n > 0 for n in counter.values()) / max(len(counter), 1)


def report(files):
    folders = collections.defaultdict(list)
    for name, file in files.items():
        folders[os.path.dirname(name)].append(file)
        folders["all"].append(file)
    row = "%-34s %5s %7d %6.1f %% %8d %6.1f %%"
    print("%-34s %5s %7s %8s %8s %8s" % ("", "files", "lines", "ran", "branches", "taken"))
    for folder in sorted(folders, key=lambda name: (name == "all", name)):
        held = folders[folder]
        lines, branches = ({(i, at): n for i, f in enumerate(held) for at, n in of(f).items()}
                           for of in (lambda f: f.lines, lambda f: f.branches))
        print(row % (folder, len(held), *part(lines), *part(branches)))
    print("\nleast, of files with 20 lines and more:")
    known = [name for name, file in files.items() if len(file.lines) >= 20]
    for name in sorted(known, key=lambda name: part(files[name].lines)[1])[:options.worst]:
        print(row % (name, "", *part(files[name].lines), *part(files[name].branches)))


found = gather(options.build)
if not found:
    sys.exit("%s: no counts: not a build of the preset coverage" % options.build)
if not any(any(f.lines.values()) for f in found.values()):
    sys.exit("%s: nothing ran" % options.build)
if options.lines:
    if options.lines not in found:
        sys.exit("%s: not in the build" % options.lines)
    never = sorted(at for at, n in found[options.lines].lines.items() if n == 0)
    with open(os.path.join(REPO, options.lines)) as f:
        text = f.read().splitlines()
    for at in never:
        print("%5d  %s" % (at, text[at - 1]))
    sys.exit(0)
report(found)
if options.functions:
    print("\nnever called:")
    for name in sorted(found):
        for (at, function), n in sorted(found[name].functions.items()):
            if n == 0:
                print("%s:%d: %s" % (name, at, function))
