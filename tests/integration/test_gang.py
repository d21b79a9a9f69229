"""A model that no worker has room for, computed by several together: the text is one engine's, whatever
happens to whom while it comes.

Over shared memory, and over libucx where it is installed. Worker programs of this host are the members.
"""

import argparse
import os
import signal
import subprocess
import time

from cluster import BIN, check, check_equal, model_file, random_from
from gangs import JOBS, ROOM, ROOM_BYTES, Gang, check_answer, check_ledger, undisturbed

KILL, TERM = (signal.SIGKILL, "drawn"), (signal.SIGTERM, "greedy")


def several_answer_as_one(n, transport, want, split="shards"):
    names = ["w%d" % (i + 1) for i in range(n)]
    cut = ", %d stages" % n if split == "stages" else ""
    with Gang(ROOM[n], transport, split) as c:
        c.coordinator()
        for name in names:
            c.member(name)
        c.wait_workers(n)
        whole = c.json("models")["models"][0]
        check("no worker has room for all of it", ROOM_BYTES[n] < whole["weights_bytes"] +
              whole["kv_bytes"] + whole["scratch_bytes"])
        jobs = {which: c.ask(which) for which in JOBS}
        c.wait("a gang of %d" % n, lambda: c.gang(n))
        number, ranks = c.gang(n)
        check_equal("its members", sorted(ranks), names)
        explained = c.json("explain", jobs["greedy"])
        check("explain names it: %s" % explained["gang"], explained["gang"] is not None and
              explained["gang"].startswith(number + " of " + ", ".join(ranks) + cut + " over "))
        answers = {which: c.answer(job) for which, job in jobs.items()}
        for which, got in answers.items():
            check_answer("of %d workers, %s" % (n, which), got, want[which])
        plan = c.json("models", "plan", "m", "--" + split, str(n))["ranks"]
        for rank, name in enumerate(ranks):
            m = c.model_of(name)
            check_equal("ranks", (m["rank"], m["ranks"]), (rank, n))
            held = (m["weights_bytes"] + m["kv_bytes"] + m["scratch_bytes"] + m["exchange_bytes"])
            check("%s holds %d bytes of its %d" % (name, held, m["claimed"]),
                  m["exchange_bytes"] > 0 and held <= m["claimed"] <= ROOM_BYTES[n])
            off = held / plan[rank]["total_bytes"] - 1
            check("%s holds %+.2f %% more than planned" % (name, 100 * off),
                  abs(off) <= (0.02 if split == "stages" else 0.01))
            check("its log says it", "rank %d of %d of gang %s with %s over " % (
                rank, n, number, ", ".join(ranks)) in c.log(name))
        check_equal("the job's worker", c.json("job", jobs["greedy"])["worker"], ranks[0])
        check_ledger(c, answers.values())
        said = c.log("w1")
        over = said[said.index(" over ") + 6:].split(",")[0]
    print("%d workers with %s over %s: one engine's texts" % (n, split, over))
    return over


def disturbed(c, n, which, want, disturb, tokens=12):
    """A stream, and what `disturb(number, ranks)` does in the middle of it."""
    job = c.ask(which)
    c.wait("a gang of %d" % n, lambda: c.gang(n))
    number, ranks = c.gang(n)
    c.begun(job, tokens)
    what = disturb(number, ranks)
    check("the stream was not over before %s" % what, c.json("job", job)["state"] != "done")
    got = c.answer(job)
    check_answer("after " + what, got, want[which])
    return job, got, number


def members_leave(n, transport, ways, want, split="shards"):
    """Each rank in turn, killed or stopped in order, with another worker in reserve."""
    answers = []
    with Gang(ROOM[n], transport, split) as c:
        c.coordinator()
        for i in range(n + 1):
            c.member("w%d" % (i + 1))
        c.wait_workers(n + 1)
        for how, which in ways:
            for rank in range(n):
                left = []

                def leave(number, ranks):
                    left.append(ranks[rank])
                    status = c.kill(ranks[rank], how)
                    if how == signal.SIGTERM:
                        check_equal("exit status after SIGTERM", status, 0)
                    return "%s of rank %d" % (how.name, rank)

                began = time.monotonic()
                job, got, number = disturbed(c, n, which, want, leave)
                took = time.monotonic() - began
                answers.append(got)
                check_equal("attempts", c.json("job", job)["attempts"], 2)
                c.wait("another gang", lambda: c.gang(n))
                after, ranks = c.gang(n)
                check("gang %s is another one than %s" % (after, number), after != number)
                check("without the one that left", left[0] not in ranks)
                print("%s of rank %d of %d with %s over %s: the same text, %.1f s"
                      % (how.name, rank, n, split, transport, took))
                c.member(left[0])
                c.wait_workers(n + 1)
        check_ledger(c, answers)


def memory_comes_back(want):
    """With nobody in reserve: who is left holds nothing, until the other is there again."""
    with Gang(ROOM[2]) as c:
        c.coordinator()
        for name in ("w1", "w2"):
            c.member(name)
        c.wait_workers(2)
        before = {name: c.model_of(name)["used"] for name in ("w1", "w2")}
        answers = []
        for rank in (0, 1):
            def leave(number, ranks):
                victim, other = ranks[rank], ranks[1 - rank]
                held = c.model_of(other)["used"]
                c.kill(victim)
                c.wait("%s to be free" % other, lambda: c.model_of(other)["state"] == "available"
                       and c.model_of(other)["gang"] is None and c.model_of(other)["claimed"] == 0
                       and c.model_of(other)["used"] - before[other] < (held - before[other]) // 8)
                m = c.model_of(other)
                check_equal("bytes of its model", m["weights_bytes"] + m["kv_bytes"] +
                            m["scratch_bytes"] + m["exchange_bytes"], 0)
                check("what it heard: %s" % m["error"], "rank %d" % rank in m["error"])
                c.member(victim)
                return "kill -9 of rank %d with nobody in reserve" % rank

            answers.append(disturbed(c, 2, "greedy", want, leave)[1])
            c.wait_workers(2)
        check_ledger(c, answers)
    print("what the others held comes back, and the stream goes on with a worker that came again")


def coordinator_dies(want):
    """The gang computes on, and is the same one afterwards."""
    with Gang(ROOM[2]) as c:
        c.coordinator()
        for name in ("w1", "w2"):
            c.member(name)
        c.wait_workers(2)
        seen = []

        def die(number, ranks):
            seen.append((number, ranks))
            c.kill("coordinator")
            c.coordinator()
            return "kill -9 of the coordinator"

        job, got, number = disturbed(c, 2, "drawn", want, die)
        c.wait("the gang", lambda: c.gang(2))
        check_equal("the gang afterwards", c.gang(2), seen[0])
        check_equal("attempts", c.json("job", job)["attempts"], 1)
        check_ledger(c, [got])
    print("kill -9 of the coordinator: the same gang, the same text")


def members_stand_still(want):
    """A member that is not killed but stopped is given up as soon, and finds its way back."""
    answers = []
    with Gang(ROOM[2]) as c:
        c.coordinator()
        for name in ("w1", "w2", "w3"):
            c.member(name)
        c.wait_workers(3)
        for rank in (0, 1):
            still = []

            def stop(number, ranks):
                still.append(ranks[rank])
                c.processes[ranks[rank]].send_signal(signal.SIGSTOP)
                return "SIGSTOP of rank %d" % rank

            began = time.monotonic()
            job, got, number = disturbed(c, 2, "drawn", want, stop)
            took = time.monotonic() - began
            answers.append(got)
            c.processes[still[0]].send_signal(signal.SIGCONT)
            c.wait_workers(3)
            c.wait("it to be out of the old gang", lambda: c.model_of(still[0])["alive"] and
                   c.model_of(still[0])["gang"] != number)
            c.wait("another gang", lambda: c.gang(2))
            print("SIGSTOP of rank %d: the same text, %.1f s" % (rank, took))
        check_ledger(c, answers)


def at_any_moment(n, transport, rounds, rng, want):
    """Before the gang has met, while it loads, in a stream, when it idles: anybody may be killed."""
    names = ["w%d" % (i + 1) for i in range(n)]
    answers = []
    with Gang(ROOM[n], transport) as c:
        c.coordinator()
        for name in names:
            c.member(name)
        for _ in range(rounds):
            c.wait_workers(n)  # a job that nobody who is known can have room for is refused
            which = rng.choice(sorted(JOBS))
            victims = rng.sample(names + ["coordinator"], rng.choice((1, 1, 2)))
            delay = rng.uniform(0, 1.2)
            job = c.ask(which)
            time.sleep(delay)
            for victim in victims:
                c.kill(victim)
            for victim in victims:
                c.coordinator() if victim == "coordinator" else c.member(victim)
            got = c.answer(job)
            check_answer("after kill -9 of %s at %.2f s" % (" and ".join(victims), delay), got,
                         want[which])
            answers.append(got)
        check_ledger(c, answers)
    print("%d times somebody killed over %s: the same text each time" % (rounds, transport))


def has_ucx():
    with Gang(ROOM[2], "ucx") as c:
        done = subprocess.run([os.path.join(BIN, "cloister-worker"), "--config", c.settings("w1"),
                               "--name", "w1", "--state-dir", os.path.join(c.dir, "w1"),
                               "--check-config"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode == 0:
        return True
    why = done.stderr.decode(errors="replace").strip()
    check("a worker without libucx says so: " + why, "libucx" in why)
    print("skipped, over ucx: " + why)
    return False


arguments = argparse.ArgumentParser()
arguments.add_argument("--rounds", type=int, default=6)
arguments.add_argument("--seed", type=int, default=None)
options = arguments.parse_args()
RANDOM = random_from(options.seed if options.seed is not None else int(time.time()))
WANT = undisturbed(model_file())
for members in (2, 3):
    check_equal("what was chosen on one host", several_answer_as_one(members, "auto", WANT), "shm")
    several_answer_as_one(members, "auto", WANT, "stages")
members_leave(2, "shm", [KILL, TERM], WANT)
members_leave(3, "shm", [KILL], WANT)
members_leave(3, "shm", [KILL], WANT, "stages")
members_stand_still(WANT)
memory_comes_back(WANT)
coordinator_dies(WANT)
at_any_moment(2, "shm", options.rounds, RANDOM, WANT)
if has_ucx():
    check_equal("what was chosen", several_answer_as_one(2, "ucx", WANT), "ucx")
    several_answer_as_one(2, "ucx", WANT, "stages")
    members_leave(2, "ucx", [KILL, TERM], WANT)
    members_leave(2, "ucx", [KILL], WANT, "stages")
    at_any_moment(2, "ucx", options.rounds, RANDOM, WANT)
print("ok")
