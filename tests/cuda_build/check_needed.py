#!/usr/bin/env python3
"""No program needs a library of NVIDIA's to start: they are opened at run time, where there are any.

  check_needed.py PROGRAM...
"""

import re
import subprocess
import sys

NVIDIA = re.compile(r"lib(cuda|cudart|nvidia|nccl|nv|cublas)[\w-]*\.so")


def main():
    wrong = 0
    for program in sys.argv[1:]:
        run = subprocess.run(["readelf", "--dynamic", "--wide", program], stdout=subprocess.PIPE,
                             universal_newlines=True, check=True)
        needed = re.findall(r"\(NEEDED\).*\[(.*)\]", run.stdout)
        if not needed:
            print("%s: no needed library found; is readelf's output as it was?" % program)
            wrong += 1
        for library in needed:
            if NVIDIA.match(library):
                print("%s needs %s" % (program, library))
                wrong += 1
    print("%d programs, %d libraries that should be opened at run time" % (len(sys.argv) - 1, wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
