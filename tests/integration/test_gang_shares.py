"""By what a gang's shares are cut: bandwidth that workers are told, room that they have. Whatever it is,
the text is one engine's, everybody who is asked says the same of it, and what each holds is its share.
"""

import re

from cluster import check, check_equal, model_file
from gangs import JOBS, Gang, check_answer, undisturbed

# Small steps and a small pool, so that a share of three quarters takes less than all of it: 118 MB.
ENGINE = {"step_tokens": 64, "sequences": 8}
CONTEXT = 512


def text_of(c, job):
    said = c.json("explain", job)["gang"]
    check("explain has a gang", said is not None)
    return said


def weights_held(c, names):
    return [c.model_of(name)["weights_bytes"] for name in names]


def of_two(what, own, want, order, says, log, least, most, split="shards", bandwidth=None):
    """`least` and `most`: bounds for the first rank's part of all weights that the two hold."""
    own = {name: dict(ENGINE, **keys) for name, keys in own.items()}
    with Gang("105MiB", "shm", split, context=CONTEXT, slots=1, own=own) as c:
        c.coordinator()
        for name in sorted(own):
            c.member(name)
        c.wait_workers(2)
        if bandwidth is not None:
            check_equal("bandwidth of workers", {w["name"]: w["read_bytes_per_s"]
                                                 for w in c.json("workers")["workers"]}, bandwidth)
        jobs = {which: c.ask(which) for which in JOBS}
        c.wait("a gang of two", lambda: c.gang(2))
        check_equal("the ranks " + what, c.gang(2)[1], order)
        said = text_of(c, jobs["greedy"])
        check("explain says %s: %s" % (says, said), re.search(says, said) is not None)
        for name in order:
            check("%s says %s" % (name, log), log in c.log(name))
        for which, job in jobs.items():
            check_answer("%s, %s" % (what, which), c.answer(job), want[which])
        first, second = weights_held(c, order)
        check("%d and %d bytes of weights %s" % (first, second, what),
              least <= first / (first + second) <= most)
        print("%s: %s" % (what, said[said.rindex("; ") + 2:]))


def table_shows_it(model):
    own = {"w1": {"bandwidth": "30GB/s"}, "w2": {"bandwidth": "off"}, "w3": {"bandwidth": "measure"},
           "w4": {"bandwidth": "measure", "gangs": False}}
    with Gang("105MiB", own=own) as c:
        c.coordinator()
        for name in own:
            c.member(name)
        c.wait_workers(4)
        rows = c.cli("workers").decode().splitlines()
        check("a row with it: " + rows[1], ", 1 threads, 30.0 GB/s)" in rows[1])
        check("a row without: " + rows[2], ", 1 threads)" in rows[2])
        measured, alone = [w["read_bytes_per_s"] for w in c.json("workers")["workers"]][2:]
        check("w3 says what it has measured, or why it is not known",
              (measured is None and "reads memory is not known: " in c.log("w3")) or
              (measured > 0 and "1 threads read memory at %.1f GB/s, " % (measured / 1e9) in c.log("w3")))
        check("one that is in no gangs measures nothing", alone is None and "memory" not in c.log("w4"))
        bad = c.settings("w1").replace("w1.cfg", "bad.cfg")
        with open(c.settings("w1")) as f, open(bad, "w") as out:
            out.write(f.read().replace("30GB/s", "fast"))
        c.start("bad", "cloister-worker", "--config", bad, "--check-config")
        check_equal("exit status of a bandwidth that is none", c.processes["bad"].wait(), 2)
        check("and why", "bad.cfg:2: engine.bandwidth: bandwidth fast: write \"measure\", \"off\", or"
              in c.log("bad"))
    print("a bandwidth is shown, and what is none is refused")


MODEL = model_file()
WANT = undisturbed(MODEL, CONTEXT)
of_two("one to three", {"w1": {"bandwidth": "10GB/s"}, "w2": {"bandwidth": "30GB/s"}}, WANT, ["w1", "w2"],
       r"; shares by bandwidth: w1 [\d.]+ MB at 10\.0 GB/s, w2 [\d.]+ MB at 30\.0 GB/s$",
       ", shares 25 %, 75 %", 0.2, 0.3, bandwidth={"w1": 10 ** 10, "w2": 3 * 10 ** 10})
of_two("stages of one to two", {"w1": {"bandwidth": "10GB/s"}, "w2": {"bandwidth": "20GB/s"}}, WANT,
       ["w1", "w2"], r", 2 stages over shm: .*; shares by bandwidth: w1 [\d.]+ MB at 10\.0 GB/s, w2 ",
       "stages 2, shards 1, shares 33 %, 67 %", 0.3, 0.45, split="stages")
of_two("alike", {"w1": {"bandwidth": "20GB/s"}, "w2": {"bandwidth": "21GB/s"}}, WANT, ["w1", "w2"],
       r"; even shares: w1 [\d.]+ MB at 20\.0 GB/s, w2 [\d.]+ MB at 21\.0 GB/s$", ", even shares", 0.49, 0.51)
of_two("one says nothing", {"w1": {"bandwidth": "10GB/s"}, "w2": {}}, WANT, ["w1", "w2"],
       r"; even shares, the bandwidth of w2 is not known: w1 ", ", even shares", 0.49, 0.51,
       bandwidth={"w1": 10 ** 10, "w2": None})
of_two("by room", {"w1": {"memory": "50MiB"}, "w2": {}}, WANT, ["w2", "w1"],
       r"; shares by room: w2 [\d.]+ MB of 110\.1, w1 [\d.]+ MB of 52\.4$", ", shares ", 0.6, 0.9)
of_two("fast, and little room", {"w1": {"bandwidth": "30GB/s", "memory": "50MiB"},
                                 "w2": {"bandwidth": "10GB/s"}}, WANT, ["w2", "w1"],
       r"; shares by bandwidth as far as each has room: w2 [\d.]+ MB at 10\.0 GB/s, w1 ", ", shares ",
       0.55, 0.9)
table_shows_it(MODEL)
print("ok")
