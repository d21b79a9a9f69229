"""A model that no GPU has room for, computed by two GPUs, each its worker's, in shards and in stages, over shared
memory and over NCCL: the text is a CPU's. So it is where NCCL fails, where a rank is killed, and where both workers
are on one GPU, which NCCL does not allow.

The GPUs are emulated (tests/cuda_emulation), what they say of themselves is the stand-in for NVML's, and in NCCL's
place is the library of tests/nccl_stand_in, each found as NVIDIA's would be: by its name.
"""

import json
import os
import subprocess
import tempfile

from cluster import BIN, Cluster, check, check_equal, engine, skip
from gangs import check_ledger

LIBRARIES = [os.path.join(os.path.dirname(BIN), "lib", name) for name in ("nvml_stand_in", "nccl_stand_in")]
GIB = 1 << 30
SETTINGS = "context = 256; slots = 64;"  # the pool is most of what the model takes
ROOM, ROOM_BYTES = "9MiB", 9 << 20  # it takes 10, a share of it 7, and over NCCL up to 8 with what is kept for that
NCCL_MEMORY, NCCL_BYTES = "128KiB", 128 << 10
TEXT = "one two"
FLAGS = ["--max-tokens", "96", "--temperature", "0.8", "--seed", "4"]

APART = ["unshare", "--user", "--map-root-user"]

if not os.path.exists(os.path.join(BIN, "cloister-worker-emulated")):
    skip("this build has no emulated GPU")


class Gpus(Cluster):
    def __init__(self, model, split, transport):
        super().__init__(model=model, config='gang_split = "%s";' % split)
        self.transport = transport
        self.env["LD_LIBRARY_PATH"] = os.pathsep.join([*LIBRARIES, self.env.get("LD_LIBRARY_PATH", "")])

    def gpu(self, name, number):
        """What NVML says of it."""
        path = os.path.join(self.dir, name + ".gpu")
        with open(path, "w") as f:
            f.write("count 2\nname Emulated\nuuid GPU-%d\npci 00000000:3%d:00.0\ndriver 580.65.06\nmig 0\n"
                    "total %d\nreserved 0\nfree %d\n" % (number, number, GIB, GIB))
        return path

    def member(self, name, number, nccl=NCCL_MEMORY):
        config = os.path.join(self.dir, name + ".cfg")
        with open(config, "w") as f:
            f.write('models = ({ name = "m"; path = "%s"; %s });\n'
                    'engine = { device = "cuda:%d"; threads = 1; memory = "%s"; gang_transport = "%s";\n'
                    '           nccl_memory = "%s"; };\n'
                    % (self.model, SETTINGS, number, ROOM, self.transport, nccl))
        self.env["NVML_STAND_IN"] = self.gpu(name, number)
        self.start(name, "cloister-worker-emulated", "--config", config, "--coordinator", self.url, "--name",
                   name, "--state-dir", os.path.join(self.dir, name))

    def open(self, numbers=(0, 1), **options):
        self.coordinator()
        for name, number in zip("ab", numbers):
            self.member(name, number, **options)
        self.wait_workers(2)

    def over(self):
        """What the gangs of worker a were over, one after the other."""
        return [line.split(" over ")[1].split(",")[0] for line in self.log("a").splitlines()
                if "model m: rank " in line and " over " in line]

    def ask(self, flags):
        return self.json("submit", "--model", "m", "--detach", *flags, TEXT)["id"]

    def answer(self, job, want, what):
        got = self.json("watch", job)
        check_equal("text " + what, got["text"], want["text"])
        check_equal("ids " + what, got["ids"], want["ids"])
        return got

    def explained(self, job):
        """Why it is computed as it is, while it is."""
        said = []
        self.wait("a gang for the job", lambda: said.append(self.json("explain", job)["gang"] or "")
                  or " of a, b" in said[-1] or " of b, a" in said[-1])
        return said[-1]

    def models(self):
        return {w["name"]: dict(w["models"][0], claimed=w["claimed_bytes"]) for w in
                self.json("workers")["workers"]}


def computed_by_two(model, split, transport, want, over):
    with Gpus(model, split, transport) as c:
        c.open()
        job = c.ask(FLAGS)
        said = c.explained(job)
        check("explain says over what: " + said, (" over %s: " % over) in said)
        why = {"nccl": "; nccl: each has a GPU of its own and NCCL ", "shm": "; not over nccl: "}[over]
        check("and why: " + said, why in said)
        answers = [c.answer(job, want, "in %s over %s" % (split, over))]
        models = c.models()
        check_equal("both hold a share", sorted(m["rank"] for m in models.values()), [0, 1])
        check("of one gang", models["a"]["gang"] == models["b"]["gang"] != None)
        layout = {"shards": "stages 1, shards 2", "stages": "stages 2, shards 1"}[split]
        check("they say over what, and how it is cut",
              all("over %s, %s" % (over, layout) in c.log(name) for name in models))
        check_equal("devices", {w["device"] for w in c.json("workers")["workers"]}, {"Emulated"})
        for name, m in models.items():
            held = m["weights_bytes"] + m["kv_bytes"] + m["scratch_bytes"] + m["exchange_bytes"]
            check("%s is claimed what it holds: %d of %d" % (name, held, m["claimed"]),
                  held <= m["claimed"] <= ROOM_BYTES)
        check_ledger(c, answers)
    print("in %s over %s: a CPU's text" % (split, over))
    return models


def killed_on_the_way(model, split, rank, want):
    """The stream goes on behind the tokens it has, in the next gang, over NCCL again."""
    with Gpus(model, split, "nccl") as c:
        c.open()
        job = c.ask(FLAGS)
        c.wait("some tokens", lambda: c.json("job", job)["usage"]["completion_tokens"] >= 10)
        first = c.models()["a"]["gang"]
        victim = next(name for name, m in c.models().items() if m["rank"] == rank)
        c.kill(victim)
        c.member(victim, "ab".index(victim))
        answers = [c.answer(job, want, "though rank %d was killed" % rank)]
        models = c.models()
        check("in another gang", models["a"]["gang"] == models["b"]["gang"] not in (None, first))
        check("over nccl again: %s" % c.over(), set(c.over()) == {"nccl"} and len(c.over()) >= 2)
        check("a second attempt", c.json("job", job)["attempts"] >= 2)
        check_ledger(c, answers)
    print("in %s, rank %d killed: the same text" % (split, rank))


def fails(model, told, says, want):
    """Two gangs end as the rank says that it failed; the third does without NCCL."""
    with Gpus(model, "shards", "auto") as c:
        c.env["NCCL_STAND_IN"] = told
        c.open()
        job = c.ask(FLAGS)
        c.wait("one without NCCL", lambda: "shm" in c.over())
        check("each time somebody says why", (c.log("a") + c.log("b")).count(says) >= 2)
        said = c.explained(job)
        check("explain says why: " + said, "; not over nccl: gangs over it ended 2 times in a row" in said)
        answers = [c.answer(job, want, "with NCCL that fails")]
        check_equal("over what it was tried", c.over(), ["nccl", "nccl", "shm"])
        check_ledger(c, answers)
    print("NCCL that fails (%s): %s, twice, and then over shm" % (told, says))


def on_two_hosts(model, want):
    """Workers in user namespaces of their own are not of one host: NCCL stands on ucx, and the coordinator
    carries the addresses. GPUs of several hosts are cut into stages."""
    if subprocess.run(APART + ["true"], stderr=subprocess.DEVNULL).returncode != 0:
        print("left out: no user namespaces here")
        return
    with Gpus(model, "auto", "nccl") as c:
        c.at = lambda name: APART if name == "b" else []
        c.open()
        if "gangs are of one host" in c.log("a"):
            print("left out: no libucx here")
            return
        job = c.ask(FLAGS)
        said = c.explained(job)
        check("explain says so: " + said, "2 stages over nccl: " in said and "which stands on ucx" in said)
        answers = [c.answer(job, want, "of two hosts")]
        check("in stages", all("over nccl, stages 2, shards 1" in c.log(name) for name in "ab"))
        check_ledger(c, answers)
    print("on two hosts, over nccl that stands on ucx: a CPU's text")


def not_over_nccl(model, what, want, why, numbers=(0, 1), **options):
    with Gpus(model, "shards", "auto") as c:
        c.open(numbers, **options)
        job = c.ask(FLAGS)
        said = c.explained(job)
        check("explain says why: " + said, "; not over nccl: " + why in said)
        c.answer(job, want, what)
        check_equal("over what", c.over(), ["shm"])
    print("%s: over shm" % what)


with tempfile.TemporaryDirectory() as folder:
    model = os.path.join(folder, "tiny.gguf")
    subprocess.run([os.path.join(BIN, "write_tiny_model"), model], check=True)
    want = json.loads(engine("generate", model, "--chat", "--context", "256", "--json", "--prompt", TEXT,
                             *FLAGS))
    for split in ("shards", "stages"):
        shm = computed_by_two(model, split, "shm", want, "shm")
        nccl = computed_by_two(model, split, "auto", want, "nccl")
        groups = {"shards": 1, "stages": 2}[split]
        for name in "ab":
            check("what NCCL is reckoned to take is in what %s holds" % name, nccl[name]["exchange_bytes"] >=
                  groups * NCCL_BYTES > 0 and nccl[name]["weights_bytes"] == shm[name]["weights_bytes"])
    for split in ("shards", "stages"):
        for rank in (0, 1):
            killed_on_the_way(model, split, rank, want)
    fails(model, "init:1", "rank 1: NCCL: system error", want)
    fails(model, "async:0:3", "rank 0: NCCL: unhandled cuda error", want)
    on_two_hosts(model, want)
    not_over_nccl(model, "two workers on one GPU", want, "a and b are on one GPU", numbers=(0, 0))
    not_over_nccl(model, "no room for NCCL", want, "with the 4.2 MB that it takes", nccl="4MiB")
print("ok")
