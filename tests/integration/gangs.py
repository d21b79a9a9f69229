"""What tests of gangs share: workers that have room for a part of a model only, what they are asked,
and what the answers must be.
"""

import json
import os

from cluster import Cluster, check_equal, engine

MAX_TOKENS = 192
CONTEXT = 2048
SLOTS = 2
# The model takes 213 MiB so; of two shares each takes up to 162 MiB, of three 125 MiB.
ROOM = {2: "190MiB", 3: "145MiB"}
ROOM_BYTES = {2: 190 << 20, 3: 145 << 20}
JOBS = {"greedy": ["Why is the sky blue?"],
        "drawn": ["--temperature", "0.8", "--seed", "11", "Tell me about the sea."]}


class Gang(Cluster):
    """A cluster whose workers have room for a share of the model only."""

    def __init__(self, room, transport="auto", split="shards", config="", model=None, context=CONTEXT,
                 slots=SLOTS, own=None):
        """`own`: by a worker's name, settings of its engine that are not as the others'. None measures how
        fast it reads memory, which would cut the model by what else the machine does."""
        super().__init__(model=model, config='gang_split = "%s";\n%s' % (split, config))
        self.room = room
        self.transport = transport
        self.context = context
        self.slots = slots
        self.own = own or {}

    def settings(self, name):
        path = os.path.join(self.dir, name + ".cfg")
        engine_keys = dict({"memory": self.room, "gang_transport": self.transport, "bandwidth": "off"},
                           **self.own.get(name, {}))
        with open(path, "w") as f:
            f.write('models = ({ name = "m"; path = "%s"; context = %d; slots = %d; });\n'
                    'engine = { threads = 1; %s };\n'
                    % (self.model, self.context, self.slots,
                       " ".join("%s = %s;" % (key, json.dumps(value))
                                for key, value in engine_keys.items())))
        return path

    def member(self, name):
        self.start(name, "cloister-worker", "--config", self.settings(name), "--coordinator", self.url,
                   "--name", name, "--state-dir", os.path.join(self.dir, name))

    def model_of(self, name):
        for w in self.json("workers")["workers"]:
            if w["name"] == name and w["models"]:
                return dict(w["models"][0], claimed=w["claimed_bytes"], used=w["memory"]["used_bytes"],
                            alive=w["state"] == "alive")
        return {"gang": None, "state": "none", "alive": False}

    def gang(self, n):
        """(its number, the workers by rank) once n of them are ready; None before."""
        models = {w["name"]: w["models"][0] for w in self.json("workers")["workers"]
                  if w["state"] == "alive" and w["models"]}
        ranks = {}
        for name, m in models.items():
            if m["state"] == "ready" and m["gang"] is not None:
                ranks.setdefault(m["gang"], {})[m["rank"]] = name
        for number, of in ranks.items():
            if len(of) == n:
                return number, [of[r] for r in range(n)]
        return None

    def ask(self, which):
        return self.json("submit", "--model", "m", "--detach", "--max-tokens", str(MAX_TOKENS),
                         *JOBS[which])["id"]

    def answer(self, job):
        return self.json("watch", job)

    def begun(self, job, tokens):
        """The stream has begun, and is not over."""
        self.wait("some tokens of a job", lambda: self.json("job", job)["usage"]["completion_tokens"]
                  >= tokens)


def undisturbed(model, context=CONTEXT):
    return {name: json.loads(engine("generate", model, "--chat", "--max-tokens", str(MAX_TOKENS),
                                    "--context", str(context), "--json", "--prompt", flags[-1],
                                    *flags[:-1]))
            for name, flags in JOBS.items()}


def check_answer(what, got, want):
    check_equal("text " + what, got["text"], want["text"])
    check_equal("ids " + what, got["ids"], want["ids"])
    check_equal("completion tokens " + what, got["usage"]["completion_tokens"], len(want["ids"]))


def check_ledger(c, answers):
    """Every job was reserved and settled once, and every token billed once."""
    records = c.ledger()
    reserves = [r["job_id"] for r in records if r["kind"] == "RESERVE"]
    settles = [r for r in records if r["kind"] == "SETTLE"]
    check_equal("each job reserved once", len(set(reserves)), len(reserves))
    check_equal("each job settled once", sorted(r["job_id"] for r in settles), sorted(reserves))
    check_equal("sum of the ledger", sum(int(r["completion_billable"]) for r in settles),
                sum(len(a["ids"]) for a in answers))
