#!/usr/bin/env python3
"""That the tables of what GPUs are predicted to do (docs/cuda.md, "Predicted") are what predict_cuda.py
prints for this build: both models, on 1, 2, 4 and 8 GPUs, and what bounds each kernel.

  check_predicted.py PROGRAMS DOCUMENT

Left aside: the measured column, and registers, which take a compiler for CUDA.
"""

import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PREDICT = os.path.join(HERE, "../bench/predict_cuda.py")
GPUS = ("1", "2", "4", "8")


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def rows(text):
    """Tables' rows without what is left aside, by their heads."""
    head, found = None, []
    for line in text.splitlines():
        if not line.startswith("|"):
            head = None
        elif head is None:
            head = cells(line)
        elif not re.match(r"\|[-|]+$", line):
            found.append(tuple((name, cell) for name, cell in zip(head, cells(line))
                               if name != "measured" and not name.startswith("registers")))
    return found


def main():
    programs, document = sys.argv[1:]
    printed = rows(subprocess.run([sys.executable, PREDICT, programs], check=True, stdout=subprocess.PIPE,
                                  text=True).stdout)
    with open(document, encoding="utf-8") as f:
        written = rows(f.read().partition("\n## Predicted\n")[2].partition("\n## ")[0])
    failed = 0
    for row in printed:
        if row not in written:
            print("not in the document: " + " | ".join(cell for _, cell in row))
            failed += 1
    for row in written:
        if dict(row).keys() & {"step", "operation"} and row not in printed:
            print("in the document only: " + " | ".join(cell for _, cell in row))
            failed += 1
    steps = [dict(row) for row in printed if "step" in dict(row)]
    for step in ("decode 1", "decode 8", "decode 32", "prefill 512", "prefill 4096"):
        for gpus in GPUS:
            n = sum(row["step"] == step and row["GPUs"] == gpus for row in steps)
            if n != 2:
                print("%s on %s GPUs: %d models" % (step, gpus, n))
                failed += 1
    print("%d rows, %d wrong" % (len(printed), failed))
    return 1 if failed or not printed else 0


sys.exit(main())
