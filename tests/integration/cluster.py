"""A cluster on loopback for the integration tests: starts and kills programs, reads what they say.

Nothing here knows more than a user does: programs from build/bin, their options, their --json.
A test that ends, however it ends, leaves no process behind. Standard library only.
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

SKIP = 77
BIN = os.environ.get("CLOISTER_BIN") or sys.exit("CLOISTER_BIN is not set: run through ctest")
# Sanitizers and busy machines are slow; a wait that is too short would make a test depend on time.
PATIENCE = float(os.environ.get("CLOISTER_TEST_PATIENCE", "120"))


def skip(why):
    print("skipped: " + why)
    sys.exit(SKIP)


def model_file():
    path = os.environ.get("CLOISTER_TEST_MODEL", "")
    if not path:
        skip("CLOISTER_TEST_MODEL names no model file (deploy/test sets it)")
    return path


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Failed(Exception):
    pass


class Cluster:
    """with Cluster() as c: c.coordinator(); c.worker("one"); print(c.cli("status"))"""

    def __init__(self, model=None, lease="1500ms", heartbeat="300ms", config="", data=None):
        self.model = model or model_file()
        self.dir = tempfile.mkdtemp(prefix="cloister-test-")
        self.data = data or os.path.join(self.dir, "coordinator")
        self.port = free_port()
        self.url = "tcp://127.0.0.1:%d" % self.port
        self.processes = {}
        self.keep = bool(os.environ.get("CLOISTER_TEST_KEEP"))
        self.config = os.path.join(self.dir, "coordinator.cfg")
        with open(self.config, "w") as f:
            f.write('lease = "%s";\nheartbeat = "%s";\n%s\n' % (lease, heartbeat, config))
        self.env = dict(os.environ, CLOISTER_URL=self.url,
                        XDG_CONFIG_HOME=os.path.join(self.dir, "client"))

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        for name in list(self.processes):
            self.kill(name)
        if value is not None:
            for name in sorted(os.listdir(self.dir)):
                if name.endswith(".log"):
                    with open(os.path.join(self.dir, name), errors="replace") as f:
                        sys.stderr.write("---- %s\n%s" % (name, "".join(f.readlines()[-15:])))
        if not self.keep:
            shutil.rmtree(self.dir, ignore_errors=True)

    def at(self, name):
        """What a program of this name, or "cloister", is started with: words before its own."""
        return []

    def start(self, name, *command):
        with open(os.path.join(self.dir, name + ".log"), "a") as log:
            self.processes[name] = subprocess.Popen(
                [*self.at(name), os.path.join(BIN, command[0]), *command[1:]],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env)

    def coordinator(self, *options):
        self.start("coordinator", "cloister-coordinator", "--config", self.config,
                   "--listen", self.url, "--data", self.data, *options)

    def worker(self, name, *options, model=None):
        self.start(name, "cloister-worker", "--coordinator", self.url, "--name", name,
                   "--state-dir", os.path.join(self.dir, name), "--threads", "1",
                   "--model", "m=" + (model or self.model), *options)

    def kill(self, name, how=signal.SIGKILL):
        process = self.processes.pop(name, None)
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(how)
        return process.wait(timeout=PATIENCE)

    def log(self, name):
        with open(os.path.join(self.dir, name + ".log"), errors="replace") as f:
            return f.read()

    def command(self, *arguments):
        return [*self.at("cloister"), os.path.join(BIN, "cloister"), *arguments]

    def run(self, *arguments, stdin=None):
        return subprocess.run(self.command(*arguments), env=self.env, input=stdin,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=PATIENCE)

    def cli(self, *arguments, stdin=None):
        done = self.run(*arguments, stdin=stdin)
        if done.returncode != 0:
            raise Failed("cloister %s: exit %d: %s" % (" ".join(arguments), done.returncode,
                                                       done.stderr.decode(errors="replace")))
        return done.stdout

    def json(self, *arguments):
        return json.loads(self.cli(*arguments, "--json"))

    def submit(self, *arguments):
        return subprocess.Popen(self.command("submit", "--model", "m", "--json", *arguments),
                                env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)

    def result(self, process):
        out, err = process.communicate(timeout=PATIENCE)
        if process.returncode != 0:
            raise Failed("submit: exit %d: %s" % (process.returncode,
                                                  err.decode(errors="replace")))
        return json.loads(out)

    def workers_alive(self):
        done = self.run("workers", "--json")
        if done.returncode != 0:
            return 0
        return sum(w["state"] == "alive" for w in json.loads(done.stdout)["workers"])

    def wait_workers(self, n):
        self.wait("%d workers" % n, lambda: self.workers_alive() >= n)

    def wait(self, what, condition):
        end = time.monotonic() + PATIENCE
        while not condition():
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise Failed("%s ended with %d while waiting for %s"
                                 % (name, process.returncode, what))
            if time.monotonic() > end:
                raise Failed("waited too long for " + what)
            time.sleep(0.05)

    def ledger(self):
        """The exported ledger's records, after `cloister ledger verify` found it good, and that it
        begins with what the export before it had under its checkpoint."""
        path = os.path.join(self.dir, "ledger.jsonl")
        kept = path + ".kept"
        if os.path.exists(path):
            os.replace(path, kept)
        self.cli("ledger", "export", "-o", path)
        self.cli("ledger", "verify", path, *(["--against", kept] if os.path.exists(kept) else []))
        with open(path) as f:
            return [r for r in map(json.loads, f) if "kind" in r]


def engine(*arguments, stdin=None):
    """cloister-engine, which runs the same engine with no cluster around it."""
    done = subprocess.run([os.path.join(BIN, "cloister-engine"), *arguments], input=stdin,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=PATIENCE)
    if done.returncode != 0:
        raise Failed("cloister-engine %s: %s" % (" ".join(arguments),
                                                 done.stderr.decode(errors="replace")))
    return done.stdout


def check_equal(what, got, want):
    if got != want:
        raise Failed("%s: got %r, want %r" % (what, got, want))


def check(what, condition):
    if not condition:
        raise Failed(what)


def random_from(seed):
    print("seed %d" % seed)
    return random.Random(seed)
