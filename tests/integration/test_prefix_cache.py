"""What jobs of one tenant begin with is computed once; the answers are those of the engine alone."""

import json

from cluster import Cluster, check, check_equal, engine

SYSTEM = "You are the assistant of a hospital. " + " ".join(
    "Rule %d: say only what you know, and say where it stands." % i for i in range(12))
QUESTIONS = ["What is rule 3?", "Why is the sky blue?", "What is rule 3?", "Name two rules."]
OPTIONS = ["--system", SYSTEM, "--max-tokens", "16"]


def ask(c, tenant, question):
    p = c.submit(*OPTIONS, "--tenant", tenant, question)
    return c.result(p)


with Cluster() as c:
    c.coordinator()
    c.worker("one")
    c.wait_workers(1)
    want = {q: json.loads(engine("generate", c.model, "--prompt", q, "--chat", "--json", *OPTIONS))
            for q in QUESTIONS}
    for tenant in ("radiology", "surgery"):
        for at, question in enumerate(QUESTIONS):
            got = ask(c, tenant, question)
            usage = got["usage"]
            check_equal("ids", got["ids"], want[question]["ids"])
            check_equal("prompt", usage["prompt_tokens"], len(want[question]["prompt_ids"]))
            check_equal("computed", usage["prompt_computed"],
                        usage["prompt_tokens"] - usage["prompt_cached"])
            if at == 0:
                # The other tenant has asked all of this: nothing of it shows.
                check_equal("the first of %s finds nothing" % tenant, usage["prompt_cached"], 0)
            else:
                check("%s, question %d finds its system prompt: %r" % (tenant, at, usage),
                      usage["prompt_cached"] >= 128)
print("ok")
