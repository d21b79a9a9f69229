#!/usr/bin/env python3
"""That kernels call nothing of libm that rounds: its results differ between the host and a device.

  check_libm.py --cc CC LIBRARY...   the undefined symbols of emulated kernels against libm's own

What is exact or correctly rounded on both sides may be called. Everything else is to come from
worker/kernels/numerics.h.
"""

import argparse
import re
import subprocess
import sys

EXACT = re.compile(r"(fma|sqrt|rint|nearbyint|floor|ceil|trunc|round|roundeven|fabs|fmax|fmin|copysign|"
                   r"ldexp|scalbn|frexp|lrint|llrint)f?")


def symbols(flags, path):
    run = subprocess.run(["nm", "-P"] + flags + [path], stdout=subprocess.PIPE, check=True,
                         universal_newlines=True)
    for line in run.stdout.splitlines():
        fields = line.split()
        if len(fields) >= 2:
            yield fields[0].split("@")[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cc", required=True)
    parser.add_argument("libraries", nargs="+")
    args = parser.parse_args()
    libm = subprocess.run([args.cc, "-print-file-name=libm.so.6"], stdout=subprocess.PIPE, check=True,
                          universal_newlines=True).stdout.strip()
    rounding = {name for name in symbols(["-D", "--defined-only"], libm) if not EXACT.fullmatch(name)}
    if not {"expf", "tanhf"} <= rounding or "fmaf" in rounding:
        sys.exit("%s is not the libm that was expected" % libm)
    bad = 0
    for library in args.libraries:
        for name in sorted(rounding.intersection(symbols(["-u"], library))):
            print("%s calls %s" % (library, name))
            bad += 1
    print("%d libraries, %d calls of libm that round" % (len(args.libraries), bad))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
