"""A model computed by workers of several hosts, over libucx and real cables: hosts are network
namespaces, with a switch between them. Needs root, iproute2 and libucx; skipped without.
"""

import os
import subprocess
import tempfile
import time

from cluster import BIN, check, check_equal, model_file, skip
from gangs import JOBS, ROOM, Gang, check_answer, check_ledger, undisturbed

NETWORK = "10.78.91."


def ip(*words):
    done = subprocess.run(["ip", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise OSError("ip %s: %s" % (" ".join(words), done.stdout.decode(errors="replace").strip()))


class Hosts(Gang):
    """hosts: how many workers each of them has; worker "b1" is the second host's first. Coordinator
    and client are at the switch."""

    def __init__(self, hosts, room, split, **settings):
        super().__init__(room, split=split, config="allow_plaintext = true; allow_any_key = true;",
                         **settings)
        self.names = [chr(ord("a") + h) + str(k + 1) for h, n in enumerate(hosts) for k in range(n)]
        self.spaces = []
        self.url = "tcp://%s1:%d" % (NETWORK, self.port)
        self.env["CLOISTER_URL"] = self.url
        try:
            self.lay_cables(len(hosts))
        except OSError as e:
            self.__exit__(None, None, None)
            skip(str(e))

    def space(self, host):
        return "cloister-%d-%s" % (os.getpid(), host)

    def lay_cables(self, n_hosts):
        switch = self.space("switch")
        for host in ["switch"] + [chr(ord("a") + h) for h in range(n_hosts)]:
            ip("netns", "add", self.space(host))
            self.spaces.append(self.space(host))
            ip("-n", self.space(host), "link", "set", "lo", "up")
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "addr", "add", NETWORK + "1/24", "dev", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for h in range(n_hosts):
            host = chr(ord("a") + h)
            ip("-n", switch, "link", "add", "to-" + host, "type", "veth", "peer", "name", "eth0",
               "netns", self.space(host))
            ip("-n", switch, "link", "set", "to-" + host, "master", "bridge", "up")
            ip("-n", self.space(host), "addr", "add", "%s%d/24" % (NETWORK, h + 2), "dev", "eth0")
            ip("-n", self.space(host), "link", "set", "eth0", "up")

    def __exit__(self, *why):
        super().__exit__(*why)
        for space in self.spaces:
            ip("netns", "del", space)

    def at(self, name):
        host = name[0] if name in self.names else "switch"
        return ["ip", "netns", "exec", self.space(host)]

    def start_all(self):
        self.coordinator()
        for name in self.names:
            self.member(name)
        self.wait_workers(len(self.names))

    def cable(self, host, state):
        ip("-n", self.space("switch"), "link", "set", "to-" + host, state)


def hosts_answer_as_one(hosts, room, split, cut, want, **settings):
    n = sum(hosts)
    with Hosts(hosts, room, split, **settings) as c:
        c.start_all()
        jobs = {which: c.ask(which) for which in JOBS}
        c.wait("a gang of %d" % n, lambda: c.gang(n))
        number, ranks = c.gang(n)
        answers = {which: c.answer(job) for which, job in jobs.items()}
        for which, got in answers.items():
            check_answer("of hosts of %s workers, %s" % (hosts, which), got, want[which])
        said = c.log(ranks[-1])
        check("%s says %s" % (ranks[-1], cut), "over ucx, " + cut in said)
        if split == "hosts":
            check_equal("a host's workers are neighbours", [r[0] for r in ranks],
                        sorted(r[0] for r in ranks))
        check_ledger(c, answers.values())
    print("hosts of %s workers, %s: one engine's texts" % (hosts, cut))


def a_cable_is_pulled(want):
    """With a third host in reserve. Whoever is cut off finds its way back."""
    answers = []
    with Hosts([1, 1, 1], ROOM[2], "shards") as c:
        c.start_all()
        for rank in (0, 1):
            job = c.ask("drawn")
            c.wait("a gang of 2", lambda: c.gang(2))
            number, ranks = c.gang(2)
            c.begun(job, 12)
            began = time.monotonic()
            c.cable(ranks[rank][0], "down")
            check("the stream was not over before", c.json("job", job)["state"] != "done")
            got = c.answer(job)
            took = time.monotonic() - began
            check_answer("after a cable was pulled", got, want["drawn"])
            answers.append(got)
            c.wait("another gang", lambda: c.gang(2))
            after, now = c.gang(2)
            check("gang %s is another than %s, without %s" % (after, number, ranks[rank]),
                  after != number and ranks[rank] not in now)
            c.cable(ranks[rank][0], "up")
            c.wait_workers(3)
            c.wait("it to be out of the old gang", lambda: c.model_of(ranks[rank])["alive"] and
                   c.model_of(ranks[rank])["gang"] != number)
            print("the cable of rank %d was pulled: the same text, %.1f s" % (rank, took))
        check_ledger(c, answers)


if os.geteuid() != 0:
    skip("this user may not make network namespaces")
if subprocess.run(["sh", "-c", "command -v ip"], stdout=subprocess.DEVNULL).returncode != 0:
    skip("no `ip` here (iproute2)")
with Gang(ROOM[2], "ucx") as probe:
    if subprocess.run([os.path.join(BIN, "cloister-worker"), "--config", probe.settings("w1"),
                       "--name", "w1", "--state-dir", os.path.join(probe.dir, "w1"),
                       "--check-config"], stdout=subprocess.DEVNULL,
                      stderr=subprocess.DEVNULL).returncode != 0:
        skip("no libucx here")
WANT = undisturbed(model_file())
hosts_answer_as_one([1, 1], ROOM[2], "shards", "stages 1, shards 2", WANT)
with tempfile.TemporaryDirectory() as folder:
    # Of two layers, in contexts for 256 jobs: 34 MiB, of which each of four holds 10.
    tiny = dict(model=os.path.join(folder, "tiny.gguf"), context=256)
    subprocess.run([os.path.join(BIN, "write_tiny_model"), tiny["model"]], check=True)
    hosts_answer_as_one([2, 2], "16MiB", "hosts", "stages 2, shards 2", undisturbed(**tiny), slots=256,
                        **tiny)
a_cable_is_pulled(WANT)
print("ok")
