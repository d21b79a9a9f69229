"""Models that are not like others, made for the test: what they ask of admission and of loading."""

import os
import signal
import struct
import subprocess
import tempfile

from cluster import BIN, Cluster, check, check_equal

DEFAULT = "You answer in a few words, and never in more than is asked for. " * 6
TEMPLATE = ("{{ '<|im_start|>system\\n" + DEFAULT + "<|im_end|>\\n' }}"
            "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
            "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}")


def tiny(path, *arguments):
    subprocess.run([os.path.join(BIN, "write_tiny_model"), path, *arguments], check=True)
    return path


def with_template(path, template):
    """The file with another chat template, longer by so much that its tensors stay aligned."""
    with open(path, "rb") as f:
        data = f.read()
    at = data.index(b"tokenizer.chat_template") + len(b"tokenizer.chat_template") + 4
    size = struct.unpack_from("<Q", data, at)[0]
    text = template.encode()
    text += b" " * ((size - len(text)) % 32)
    with open(path, "wb") as f:
        f.write(data[:at] + struct.pack("<Q", len(text)) + text + data[at + 8 + size:])
    return path


def a_template_may_bring_a_long_message_of_its_own(path):
    """It is in the reservation: the worker counts no more than was reserved."""
    with Cluster(model=with_template(tiny(path, "1024"), TEMPLATE)) as c:
        c.coordinator()
        c.worker("one")
        c.wait_workers(1)
        usage = c.result(c.submit("--max-tokens", "5", "Hi"))["usage"]
        check("the template's message is counted", usage["prompt_tokens"] > 200)
        records = {r["kind"]: r for r in c.ledger() if r.get("job_id")}
        check("no more is settled than was reserved",
              int(records["SETTLE"]["prompt_tokens"]) <= int(records["RESERVE"]["reserved_tokens"]))


def a_model_that_does_not_load_ends_its_jobs(path):
    """Its file is replaced after the worker looked at it. The job is told why, and the next one at
    once."""
    with Cluster(model=tiny(path), config='load_retry = "1s";') as c:
        c.coordinator()
        c.worker("one")
        c.wait_workers(1)
        tiny(path, "128")
        for _ in range(2):
            done = c.run("submit", "--model", "m", "--max-tokens", "5", "Hi")
            check_equal("submit succeeds", done.returncode == 0, False)
            said = done.stderr.decode()
            for part in ("no worker can load model m", "one", path, "restart"):
                check("%r in %r" % (part, said), part in said)
        check("it was tried three times", c.log("one").count("loading model m") == 3)
        check_equal("exit status of the worker", c.kill("one", signal.SIGTERM), 0)
        c.worker("one")
        c.wait_workers(1)
        c.result(c.submit("--max-tokens", "5", "Hi"))


with tempfile.TemporaryDirectory(prefix="cloister-test-") as folder:
    a_template_may_bring_a_long_message_of_its_own(os.path.join(folder, "long.gguf"))
    a_model_that_does_not_load_ends_its_jobs(os.path.join(folder, "replaced.gguf"))
print("ok")
