"""What `cmake --install --prefix` leaves is whole: the programs start, their manual pages and completion
are there, a program that asks pkg-config builds and runs, and the services start what was installed.
The prefix is not the one that the build was configured with."""

import os
import re
import subprocess
import sys
import tempfile

CMAKE, BUILD, ROOT, CC, FLAGS = *sys.argv[1:5], sys.argv[5].split()
PROGRAMS = {"cloister": 1, "cloister-engine": 1, "cloister-coordinator": 8, "cloister-worker": 8}
failures = []


def check(what, condition, detail=""):
    if not condition:
        failures.append(what + (": " + detail if detail else ""))


def run(*command, **environment):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env={**os.environ, **environment})


def installed(folder):
    """{path below the prefix: path}"""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            found[os.path.relpath(path, folder)] = path
    return found


def programs(files):
    for name, section in PROGRAMS.items():
        page = "share/man/man%d/%s.%d" % (section, name, section)
        check(page, page in files)
        check("bin/" + name, "bin/" + name in files)
        if "bin/" + name in files:
            done = run(files["bin/" + name], "--version")
            check(name + " --version", done.returncode == 0 and
                  re.match(re.escape(name) + r" \d+\.\d+\.\d+ \(.+\)\n$", done.stdout), done.stdout)
    for wanted in ("share/man/man5/cloister.cfg.5", "share/bash-completion/completions/cloister",
                   "share/zsh/site-functions/_cloister",
                   "share/fish/vendor_completions.d/cloister.fish",
                   "share/doc/cloister/examples/coordinator.cfg",
                   "share/doc/cloister/examples/worker.cfg",
                   "share/doc/cloister/examples/client.cfg", "include/cloister.h",
                   "share/doc/cloister/README.md", "share/doc/cloister/docs/operations.md"):
        check(wanted, wanted in files)


def services(files):
    for name in ("cloister-coordinator", "cloister-worker"):
        with open(files["lib/systemd/system/%s.service" % name]) as f:
            starts = re.findall(r"^ExecStart=(\S+)", f.read(), re.M)
        check(name + ".service", starts == [files["bin/" + name]], str(starts))


def library(files, folder):
    notes = [path for name, path in files.items() if name.endswith("pkgconfig/cloister.pc")]
    check("one cloister.pc", len(notes) == 1, str(notes))
    found = {"PKG_CONFIG_PATH": os.path.dirname(notes[0])}
    libdir = run("pkg-config", "--variable=libdir", "cloister", **found).stdout.strip()
    check("libdir", os.path.exists(os.path.join(libdir, "libcloister.so.0")), libdir)
    for kind, options in (("shared", ["--libs"]), ("static", ["--static", "--libs"])):
        asked = run("pkg-config", "--cflags", *options, "cloister", **found).stdout.split()
        if kind == "static":
            asked = ["-l:libcloister.a" if a == "-lcloister" else a for a in asked]
        program = os.path.join(folder, kind)
        built = run(CC, "-std=c11", "-Wall", "-Werror", *FLAGS,
                    os.path.join(ROOT, "tests/unit/client/example.c"), "-o", program, *asked)
        check("building, " + kind, built.returncode == 0, built.stdout)
        if built.returncode == 0:
            done = run(program, "tcp://127.0.0.1:1", LD_LIBRARY_PATH=libdir)
            check("running, " + kind, done.returncode == 1 and
                  done.stdout.startswith("no coordinator at tcp://127.0.0.1:1: connection refused"),
                  done.stdout)


with tempfile.TemporaryDirectory() as folder:
    prefix = os.path.join(folder, "usr")
    done = run(CMAKE, "--install", BUILD, "--prefix", prefix)
    check("cmake --install", done.returncode == 0, done.stdout)
    if not failures:
        files = installed(prefix)
        programs(files)
        services(files)
        library(files, folder)
for failure in failures:
    print(failure, file=sys.stderr)
print("%d failures" % len(failures) if failures else "ok")
sys.exit(bool(failures))
