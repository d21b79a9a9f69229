"""The longest silence of running streams while a long prompt comes in: Cloister beside llama-server.

    stream_gap.py BIN LLAMA_CPP FILE.gguf [--streams 8] [--prompt 4096] [--threads 2] [--rounds 3]

Both serve the same file on loopback with the same threads: Cloister as coordinator, worker and one
`cloister submit` a stream, llama-server with one slot a stream over HTTP. Once all streams speak,
one more job with a long prompt is sent; until its first token, the longest time between two pieces
of any stream is taken. Printed are the medians of the rounds, and the time to the long job's first
token, since a server could buy one with the other.
"""

import argparse
import http.client
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

parser = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("bin")
parser.add_argument("llama_cpp")
parser.add_argument("file")
parser.add_argument("--streams", type=int, default=8)
parser.add_argument("--prompt", type=int, default=4096)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=3)
options = parser.parse_args()

STREAM_TOKENS = 2000  # longer than the long prompt takes; they are cut off then
WORDS = "river stone lamp garden window paper engine silver morning harbour".split()


CONTEXT = options.prompt + STREAM_TOKENS + 100


def text_of(seed, words):
    return " ".join(WORDS[(seed * 7 + i * (1 + seed % 3) + i * i % 11) % len(WORDS)]
                    for i in range(words))


def tokens_of(text):
    done = subprocess.run([os.path.join(options.bin, "cloister-engine"), "tokenize", options.file],
                          input=text.encode(), stdout=subprocess.PIPE, check=True)
    return len(done.stdout.split())


def long_prompt(seed):
    """A text of about options.prompt tokens."""
    words = options.prompt
    return text_of(seed, words * options.prompt // tokens_of(text_of(seed, words)))


def stream_prompt(i):
    return "Numbers from %d on: %s" % (i, ", ".join(str(i + k) for k in range(12))) + ","


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Stream:
    """A thread that notes when each piece of an answer came."""

    def __init__(self, pieces):
        self.times = []
        self.pieces = pieces
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        for _ in self.pieces:
            self.times.append(time.monotonic())

    def first(self):
        while not self.times and self.thread.is_alive():
            time.sleep(0.005)
        if not self.times:
            sys.exit("a stream ended without a token")
        return self.times[0]


class Cloister:
    def __init__(self):
        self.dir = tempfile.TemporaryDirectory(prefix="cloister-gap-")
        self.url = "tcp://127.0.0.1:%d" % free_port()
        self.env = dict(os.environ, CLOISTER_URL=self.url, XDG_CONFIG_HOME=self.dir.name)
        self.children = []
        self.numbers = itertools.count()
        config = os.path.join(self.dir.name, "worker.cfg")
        with open(config, "w") as f:
            f.write('models = ({ name = "m"; path = "%s"; context = %d; slots = 4; });\n'
                    % (os.path.abspath(options.file), CONTEXT))
        self.servers = [
            self.start("cloister-coordinator", "--listen", self.url, "--data",
                       os.path.join(self.dir.name, "c")),
            self.start("cloister-worker", "-c", config, "--coordinator", self.url, "--name", "w",
                       "--state-dir", os.path.join(self.dir.name, "w"), "--threads",
                       str(options.threads))]
        while not self.worker_is_here():
            time.sleep(0.1)
        self.run_to_end("ready", 1)

    def worker_is_here(self):
        for server in self.servers:
            if server.poll() is not None:
                sys.exit("%s ended with %d" % (server.args[0], server.returncode))
        done = subprocess.run([os.path.join(options.bin, "cloister"), "workers", "--json"],
                              env=self.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return done.returncode == 0 and '"alive"' in done.stdout.decode()

    def start(self, program, *arguments, out=subprocess.DEVNULL):
        return subprocess.Popen([os.path.join(options.bin, program), *arguments], env=self.env,
                                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL)

    def run_to_end(self, prompt, tokens):
        for _ in self.answer(prompt, tokens):
            pass

    def answer(self, prompt, tokens):
        path = os.path.join(self.dir.name, "prompt-%d" % next(self.numbers))
        with open(path, "w") as f:
            f.write(prompt)
        child = self.start("cloister", "submit", "--model", "m", "--raw", "--file", path,
                           "--max-tokens", str(tokens), out=subprocess.PIPE)
        self.children.append(child)
        while True:
            piece = os.read(child.stdout.fileno(), 4096)
            if not piece:
                return
            yield piece

    def end_answers(self):
        for child in self.children:
            child.terminate()
        for child in self.children:
            child.wait()
        self.children = []

    def close(self):
        self.end_answers()
        for server in reversed(self.servers):
            server.terminate()
            server.wait()
        self.dir.cleanup()


class Llama:
    def __init__(self):
        self.port = free_port()
        slots = options.streams + 1
        self.server = subprocess.Popen(
            [os.path.join(options.llama_cpp, "build", "bin", "llama-server"), "-m", options.file,
             "--port", str(self.port), "--host", "127.0.0.1", "-t", str(options.threads), "-np",
             str(slots), "-c", str(slots * CONTEXT)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.connections = []
        while not self.healthy():
            if self.server.poll() is not None:
                sys.exit("llama-server ended with %d" % self.server.returncode)
            time.sleep(0.1)

    def healthy(self):
        try:
            c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            c.request("GET", "/health")
            return c.getresponse().status == 200
        except OSError:
            return False

    def answer(self, prompt, tokens):
        c = http.client.HTTPConnection("127.0.0.1", self.port)
        self.connections.append(c)
        c.request("POST", "/completion", json.dumps(
            {"prompt": prompt, "n_predict": tokens, "stream": True, "temperature": 0,
             "ignore_eos": True, "cache_prompt": False}), {"Content-Type": "application/json"})
        try:
            for line in c.getresponse():
                if line.startswith(b"data:"):
                    yield line
        except (OSError, ValueError, AttributeError, http.client.HTTPException):
            return  # it was cut off

    def end_answers(self):
        for c in self.connections:
            if c.sock is not None:
                c.sock.shutdown(socket.SHUT_RDWR)
            c.close()
        self.connections = []
        time.sleep(0.5)

    def close(self):
        self.server.terminate()
        self.server.wait()


def a_round(server, round_):
    streams = [Stream(server.answer(stream_prompt(100 * round_ + i), STREAM_TOKENS))
               for i in range(options.streams)]
    for s in streams:
        s.first()
    time.sleep(0.5)
    prompt = long_prompt(round_ + 1)
    began = time.monotonic()
    long_job = Stream(server.answer(prompt, 1))
    first = long_job.first()
    gaps = []
    for s in streams:
        times = [t for t in list(s.times) if t >= began - 0.5]
        times = [t for t in times if t <= first] + [first]
        gaps.append(max(b - a for a, b in zip(times, times[1:])))
    server.end_answers()
    return max(gaps), first - began


results = {}
for name, server in (("cloister", Cloister), ("llama-server", Llama)):
    s = server()
    try:
        rounds = [a_round(s, i) for i in range(options.rounds)]
    finally:
        s.close()
    results[name] = [statistics.median(r[k] for r in rounds) for k in (0, 1)]
    print("%-14s longest silence of %d streams %.3f s, first token behind %d tokens %.2f s"
          % (name, options.streams, results[name][0], options.prompt, results[name][1]),
          flush=True)
print("silence: %.1f times shorter; first token of the long prompt: %.2f times the speed"
      % (results["llama-server"][0] / results["cloister"][0],
         results["llama-server"][1] / results["cloister"][1]))
