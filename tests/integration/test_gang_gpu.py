"""A model that no GPU has room for, computed by two GPUs, each its worker's, in shards and in stages: the text is a CPU's.

The GPUs are emulated (tests/cuda_emulation), and what they say of themselves is the stand-in for NVML's.
"""

import json
import os
import subprocess
import tempfile

from cluster import BIN, Cluster, check, check_equal, engine, skip

STAND_IN = os.path.join(os.path.dirname(BIN), "lib", "nvml_stand_in")
GIB = 1 << 30
SETTINGS = "context = 256; slots = 64;"  # the pool is most of what the model takes
ROOM = "8MiB"  # it takes 10, a share of it 7
TEXT = "one two"
FLAGS = ["--max-tokens", "12", "--temperature", "0.8", "--seed", "5"]

if not os.path.exists(os.path.join(BIN, "cloister-worker-emulated")):
    skip("this build has no emulated GPU")


def gpu(c, name):
    """What NVML says of it."""
    path = os.path.join(c.dir, name + ".gpu")
    with open(path, "w") as f:
        f.write("count 1\nname Emulated\nuuid GPU-%s\npci 00000000:3B:00.0\ndriver 580.65.06\nmig 0\n"
                "total %d\nreserved 0\nfree %d\n" % (name, GIB, GIB))
    return path


def member(c, name):
    config = os.path.join(c.dir, name + ".cfg")
    with open(config, "w") as f:
        f.write('models = ({ name = "m"; path = "%s"; %s });\n'
                'engine = { device = "cuda:0"; threads = 1; memory = "%s"; };\n'
                % (c.model, SETTINGS, ROOM))
    c.env["NVML_STAND_IN"] = gpu(c, name)
    c.start(name, "cloister-worker-emulated", "--config", config, "--coordinator", c.url, "--name",
            name, "--state-dir", os.path.join(c.dir, name))


def computed_by_two(model, split, want):
    with Cluster(model=model, config='gang_split = "%s";' % split) as c:
        c.env["LD_LIBRARY_PATH"] = os.pathsep.join([STAND_IN, c.env.get("LD_LIBRARY_PATH", "")])
        c.coordinator()
        for name in ("a", "b"):
            member(c, name)
        c.wait_workers(2)
        done = c.result(c.submit(*FLAGS, TEXT))
        check_equal("text", done["text"], want["text"])
        check_equal("ids", done["ids"], want["ids"])
        ranks = {w["name"]: w["models"][0] for w in c.json("workers")["workers"]}
        check_equal("both hold a share", sorted(m["rank"] for m in ranks.values()), [0, 1])
        check("of one gang", ranks["a"]["gang"] == ranks["b"]["gang"] != None)
        layout = {"shards": "stages 1, shards 2", "stages": "stages 2, shards 1"}[split]
        check("they say how it is cut", all(layout in c.log(name) for name in ranks))
        check_equal("devices", {w["device"] for w in c.json("workers")["workers"]}, {"Emulated"})


with tempfile.TemporaryDirectory() as folder:
    model = os.path.join(folder, "tiny.gguf")
    subprocess.run([os.path.join(BIN, "write_tiny_model"), model], check=True)
    want = json.loads(engine("generate", model, "--chat", "--context", "256", "--json", "--prompt",
                             TEXT, *FLAGS))
    for split in ("shards", "stages"):
        computed_by_two(model, split, want)
print("ok")
