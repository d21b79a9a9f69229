"""The example configurations are what the programs print, and what they read."""

import os
import subprocess

from cluster import BIN, check_equal

EXAMPLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../deploy/examples")


def run(program, *arguments):
    return subprocess.run([os.path.join(BIN, program), *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60)


for program, option, name in (("cloister-coordinator", "--print-config", "coordinator.cfg"),
                              ("cloister-worker", "--print-config", "worker.cfg"),
                              ("cloister", "--print-config", "client.cfg")):
    path = os.path.join(EXAMPLES, name)
    with open(path) as f:
        text = f.read()
    check_equal("%s against `%s %s`" % (name, program, option),
                text, run(program, option).stdout.decode())
    done = run(program, "--config", path, "--check-config")
    # The worker's example names no model, since no path in it could be right everywhere.
    if program == "cloister-worker":
        check_equal("worker.cfg", (done.returncode, done.stderr.decode().strip()),
                    (2, "cloister-worker: no models to serve: name at least one, in `models` or by "
                        "--model NAME=PATH"))
    else:
        check_equal("%s: %s" % (name, done.stderr.decode()), done.returncode, 0)
print("ok")
