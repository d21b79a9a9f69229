"""What a GPU says reaches operators, placement and `explain` as it was said: free memory, other
people's processes, energy, trouble. A lost one ends its worker, and the jobs go on elsewhere.

The GPU is the library in tests/nvml_stand_in, found as NVIDIA's would be: by its name."""

import os
import time

from cluster import BIN, PATIENCE, Cluster, Failed, check, check_equal

MIB = 1 << 20
GIB = 1 << 30
STAND_IN = os.path.join(os.path.dirname(BIN), "lib", "nvml_stand_in")
check("the stand-in is built", os.path.exists(os.path.join(STAND_IN, "libnvidia-ml.so.1")))

IDENTITY = """count 1
name Stand-in H100
uuid GPU-5ca1ab1e
pci 00000000:3B:00.0
driver 580.65.06
mig 0
"""


class Gpu:
    """The numbers of the stand-in; `say` changes some of them."""

    def __init__(self, path):
        self.path = path
        self.numbers = {"total": 81 * GIB, "reserved": GIB, "free": 70 * GIB, "utilization": 12,
                        "power": 321500, "energy": 123456789012, "temperature": 47, "ecc": 0}
        self.lines = []
        self.say()

    def say(self, lines=None, **numbers):
        if lines is not None:
            self.lines = lines
        self.numbers.update(numbers)
        with open(self.path + ".new", "w") as f:
            f.write(IDENTITY)
            f.writelines("%s %d\n" % item for item in self.numbers.items() if item[1] is not None)
            f.writelines(line + "\n" for line in self.lines)
        os.replace(self.path + ".new", self.path)


def gpu_worker(c, name, *options):
    c.start(name, "cloister-worker-nvml", "--coordinator", c.url, "--name", name, "--device",
            "cuda:0", "--state-dir", os.path.join(c.dir, name), "--threads", "1", "--model",
            "m=" + c.model, *options)


def shown(c, name="gpu"):
    return next(w for w in c.json("workers")["workers"] if w["name"] == name)


def wait_shown(c, what, want):
    """Until `workers` shows exactly these numbers; `want` has paths such as memory.free_bytes."""
    def differing():
        worker = shown(c)
        out = {}
        for path, value in want.items():
            got = worker
            for key in path.split("."):
                got = got[key]
            if got != value:
                out[path] = (got, value)
        return out
    try:
        c.wait(what, lambda: not differing())
    except Failed as failed:
        raise Failed("%s: got, want: %r" % (failed, differing()))


def wait_end(c, name):
    end = time.monotonic() + PATIENCE
    while c.processes[name].poll() is None:
        if time.monotonic() > end:
            raise Failed("%s did not end" % name)
        time.sleep(0.02)
    return c.processes.pop(name).returncode


with Cluster(config='energy_interval = "1s";') as c:
    gpu = Gpu(os.path.join(c.dir, "gpu.txt"))
    c.env["NVML_STAND_IN"] = gpu.path
    c.env["LD_LIBRARY_PATH"] = os.pathsep.join([STAND_IN, c.env.get("LD_LIBRARY_PATH", "")])
    c.coordinator()
    gpu_worker(c, "gpu")
    c.wait_workers(1)

    wait_shown(c, "its first numbers", {
        "device": "Stand-in H100",
        "memory.total_bytes": 80 * GIB, "memory.free_bytes": 70 * GIB, "memory.used_bytes": 0,
        "memory.budget_bytes": 79 * GIB,  # less what CUDA takes
        "stranger_bytes": 10 * GIB,
        "gpu": {"uuid": "GPU-5ca1ab1e", "pci": "00000000:3B:00.0", "driver": "580.65.06",
                "utilization_percent": 12, "power_mw": 321500, "energy_mj": 123456789012,
                "temperature_c": 47, "ecc_uncorrected": 0, "xid": 0, "stranger_processes": 0,
                "stranger_process_bytes": 0, "trouble": ""}})

    # Numbers that change, and some that it does not tell any more: null, not 0.
    gpu.say(free=MIB, power=None, energy=123456799012, utilization=99, temperature=83, ecc=2,
            lines=["process 4711 %d" % (60 * GIB), "process 4712 %d" % (12 * GIB),
                   "graphics 4712 %d" % (12 * GIB), "remap 1 0"])
    wait_shown(c, "changed numbers", {
        "memory.free_bytes": MIB, "stranger_bytes": 80 * GIB - MIB,
        "gpu.utilization_percent": 99, "gpu.power_mw": None, "gpu.energy_mj": 123456799012,
        "gpu.temperature_c": 83, "gpu.ecc_uncorrected": 2, "gpu.stranger_processes": 2,
        "gpu.stranger_process_bytes": 72 * GIB,
        "gpu.trouble": "a memory row is to be replaced, it needs a reset"})
    text = c.cli("workers").decode()
    for part in ("Stand-in H100", "GPU-5ca1ab1e at 00000000:3B:00.0", "99 %", "83 C", "34.294 kWh",
                 "2 processes", "79.0 GiB", "it needs a reset"):
        check("`workers` says %r in\n%s" % (part, text), part in text)

    # Placement goes by what the GPU says is free, and explains by it.
    job = c.submit("-n", "8", "The capital of France is")

    def explained():
        rows = c.json("jobs")["jobs"]
        return c.json("explain", rows[0]["id"])["candidates"] if rows else []

    c.wait("a decision", lambda: explained() and explained()[0]["predicate"] == "memory")
    detail = explained()[0]["detail"]
    for part in ("free %d," % MIB, "strangers hold %d" % (80 * GIB - MIB)):
        check("explain says %r: %s" % (part, detail), part in detail)
    check_equal("the job waits", c.json("jobs")["jobs"][0]["state"], "queued")
    gpu.say(free=70 * GIB, lines=[])
    first = c.result(job)["text"]

    # What models hold stands for what the device does not tell of our process, until it does.
    model = shown(c)["models"][0]
    held = model["weights_bytes"] + model["kv_bytes"] + model["scratch_bytes"]
    check("a loaded model holds something", held > 0)
    wait_shown(c, "what models hold", {"memory.used_bytes": held,
                                       "stranger_bytes": 10 * GIB - held})
    gpu.say(lines=["process self %d" % (2 * GIB), "process 4711 %d" % GIB])
    wait_shown(c, "what the device says of us", {"memory.used_bytes": 2 * GIB,
                                                 "stranger_bytes": 8 * GIB,
                                                 "gpu.stranger_processes": 1,
                                                 "gpu.stranger_process_bytes": GIB})

    # A critical error that the driver names is said; the worker goes on.
    gpu.say(lines=["xid 94"])
    wait_shown(c, "an Xid", {"gpu.xid": 94, "gpu.trouble": "its last error was Xid 94"})
    check_equal("the same text", c.result(c.submit("-n", "8", "The capital of France is"))["text"],
                first)

    # Lost in the middle of an answer: the worker ends with its own status, the job elsewhere.
    long = ("-n", "600", "--raw", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,")
    whole = c.result(c.submit(*long))["text"]
    job = c.submit(*long)
    c.wait("the answer under way", lambda: any(
        r["state"] == "running" and r["usage"]["completion_tokens"] > 0
        for r in c.json("jobs")["jobs"]))
    gpu.say(lines=["error nvmlDeviceGetMemoryInfo_v2 15"])
    check_equal("exit status of a worker whose GPU is lost", wait_end(c, "gpu"), 5)
    check("its log says why", "GPU is lost (NVML error 15)" in c.log("gpu"))
    c.worker("cpu")
    check_equal("the text that it would have had", c.result(job)["text"], whole)
    check_equal("who ended it", c.json("jobs")["jobs"][0]["worker"], "cpu")
    c.wait("the worker to be gone", lambda: shown(c)["state"] == "gone")
    # What its meter said is in the ledger, as it said it, and is added up from there.
    meters = [r for r in c.ledger() if r["kind"] == "METER"]
    check("readings at intervals: %s" % meters, len(meters) >= 2)
    check_equal("who and what", {(m["worker"], m["device"]) for m in meters},
                {("gpu", "GPU-5ca1ab1e")})
    check_equal("the first reading", meters[0]["energy_mj"], 123456789012)
    check_equal("the last reading", meters[-1]["energy_mj"], 123456799012)
    verified = c.json("ledger", "verify", os.path.join(c.dir, "ledger.jsonl"))
    check_equal("energy that is proven", verified["energy_mj"] + verified["unsigned"]["energy_mj"],
                10000)
    check_equal("readings", verified["meters"] + verified["unsigned"]["meters"], len(meters))

    # What keeps a worker from starting on a GPU, and the status it ends with.
    for lines, status, part in (
            (["error nvmlInit_v2 9"], 1, "nvmlInit_v2"),
            (["error nvmlDeviceGetHandleByIndex_v2 15"], 5, "GPU is lost (NVML error 15)"),
            (["error nvmlDeviceGetMemoryInfo_v2 16"], 5, "NVML error 16")):
        gpu.say(lines=lines)
        name = "refused-%d" % len(os.listdir(c.dir))
        gpu_worker(c, name)
        check_equal("exit status with %s" % lines, wait_end(c, name), status)
        check("its log says %r:\n%s" % (part, c.log(name)), part in c.log(name))
print("ok")
