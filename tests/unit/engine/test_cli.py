"""cloister-engine as its users call it, on a model of a few hundred KB.

    test_cli.py DIRECTORY_OF_PROGRAMS
"""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile

BIN = sys.argv[1]
ENGINE = os.path.join(BIN, "cloister-engine")
failures = []


def run(*args, stdin=b""):
    return subprocess.run([ENGINE, *args], input=stdin, capture_output=True, timeout=120)


def check(what, condition, detail=""):
    if not condition:
        failures.append(what)
        print("FAILED: %s %s" % (what, detail))


def good(*args, stdin=b""):
    p = run(*args, stdin=stdin)
    check(" ".join(args[:3]), p.returncode == 0, p.stderr.decode())
    return p.stdout


def generate(model, *args):
    return json.loads(good("generate", model, "--json", *args) or b"{}")


def complaint(code, *args, stdin=b"", text=""):
    """One line that begins with the program's name; a second one only points to --help."""
    p = run(*args, stdin=stdin)
    lines = p.stderr.decode().splitlines()
    what = "complaint about " + " ".join(args)
    check(what, p.returncode == code, "exit code %d: %s" % (p.returncode, lines))
    check(what, lines and lines[-1 if code == 1 else 0].startswith("cloister-engine: "), lines)
    check(what, len(lines) == (1 if code == 1 else 2), lines)
    check(what, text in p.stderr.decode(), lines)
    check(what, p.stdout == b"", p.stdout[:100])


def wrong_command_lines(model):
    for args in ([], ["dance"], ["info"], ["info", model, model], ["info", "--jsn", model],
                 ["digest"], ["tokenize"], ["tokenize", "--json", "--jsonl", model],
                 ["generate", model], ["generate", "--prompt", "x"],
                 ["generate", model, "--prompt"],
                 ["generate", model, "--prompt", "x", "--prompt-ids", "1"],
                 ["generate", model, "--prompt", "x", "--raw", "--chat"],
                 ["generate", model, "--prompt", "x", "--raw", "--system", "y"],
                 ["generate", model, "--prompt", "x", "--chat", "--special"],
                 ["generate", model, "--prompt-ids", "1", "--raw"],
                 ["generate", model, "--prompt-ids", "1 x"],
                 ["generate", model, "--prompt-ids", "-1"],
                 ["generate", model, "--prompt-ids", "99999999999"]):
        complaint(2, *args)
    for option, value in (("--max-tokens", "0"), ("--max-tokens", "1e3"), ("--max-tokens", " 1"),
                          ("--temperature", "hot"), ("--temperature", "nan"),
                          ("--temperature", "-1"), ("--top-p", "0"), ("--top-p", "1.5"),
                          ("--top-k", "-3"), ("--min-p", "1"), ("--repetition-penalty", "0"),
                          ("--presence-penalty", "3"), ("--seed", "18446744073709551616"),
                          ("--threads", "0"), ("--isa", "mmx"), ("--chunk", "0"),
                          ("--kv", "f32"), ("--context", "1"), ("--beside", "many")):
        complaint(2, "generate", model, "--prompt", "x", option, value,
                  text=option + ":" if value in ("-1", "1.5", "3") else "")
    p = run("--version")
    check("--version", p.returncode == 0 and p.stdout.startswith(b"cloister-engine "))
    p = run("--help")
    check("--help", p.returncode == 0 and b"perplexity" in p.stdout and p.stderr == b"")
    for command, flag in (("info", b"--json"), ("digest", b"SHA-256"), ("tokenize", b"--jsonl"),
                          ("detokenize", b"--special"), ("generate", b"--beside"),
                          ("estimate", b"--sequences"), ("bench", b"--depth"),
                          ("perplexity", b"--context")):
        p = run(command, "--help")
        check("%s --help" % command, p.returncode == 0 and flag in p.stdout and p.stderr == b"")
    complaint(2, "generate", model, "--prompt", "x", "--sed", "1", text="--seed")
    complaint(2, "info", model, "--json", "--json", text="twice")


def closed_output(model):
    """What cannot be printed is a failure, and no file of the program's own gets the number."""
    for command in ("info %s", "digest %s", "generate %s --raw --prompt x --json --max-tokens 1"):
        p = subprocess.run("exec %s %s >&-" % (ENGINE, command % model), shell=True,
                           stderr=subprocess.PIPE, timeout=120)
        check("closed stdout: " + command, p.returncode == 1 and b"output" in p.stderr, p.stderr)
        with open("/dev/full", "wb") as full:
            p = subprocess.run([ENGINE, *(command % model).split()], stdout=full,
                               stderr=subprocess.PIPE, timeout=120)
        check("full stdout: " + command, p.returncode == 1 and b"output" in p.stderr, p.stderr)
    reader, writer = os.pipe()
    os.close(reader)
    p = subprocess.run([ENGINE, "info", model], stdout=writer, stderr=subprocess.PIPE, timeout=120,
                       restore_signals=True)
    os.close(writer)
    check("closed pipe", p.returncode == 1 and b"output" in p.stderr, (p.returncode, p.stderr))


def bad_files(model, folder):
    cut = os.path.join(folder, "cut.gguf")
    with open(model, "rb") as f:
        data = f.read()
    with open(cut, "wb") as f:
        f.write(data[:len(data) // 2])
    empty = os.path.join(folder, "empty.gguf")
    open(empty, "wb").close()
    for path in (cut, empty, os.path.join(folder, "none.gguf"), folder):
        for command in (["info"], ["tokenize"], ["detokenize"]):
            complaint(1, *command, path, text=path)
        complaint(1, "generate", path, "--raw", "--prompt", "x", text=path)
    complaint(1, "digest", os.path.join(folder, "none.gguf"))


def info_and_digest(model):
    info = json.loads(good("info", "--json", model))
    check("info", info["architecture"] == "llama" and info["gguf_version"] == 3, info)
    check("info runnable", info["runnable"] is True and info["reason"] is None, info)
    check("info quantization", info["quantization"] == "Q8_0", info["quantization"])
    check("info types", info["types"]["Q8_0"]["tensors"] == 15, info["types"])
    check("info template", info["chat_template"] == "chatml", info)
    check("info tokens", info["tokenizer"]["tokens"] == 264, info["tokenizer"])
    check("info Unicode", re.fullmatch(r"[1-9]\d*\.\d+\.\d+", info["tokenizer"]["unicode"]),
          info["tokenizer"])
    check("info estimate", info["estimate"]["weights_bytes"] > 50000, info["estimate"])
    text = good("info", model).decode()
    for word in ("llama", "chatml", "can run it", "256 tokens", "Q8_0",
                 "words by Unicode   %s\n" % info["tokenizer"]["unicode"]):
        check("info says %s" % word, word in text, text)
    with open(model, "rb") as f:
        want = hashlib.sha256(f.read()).hexdigest()
    check("digest", good("digest", model).split()[0].decode() == want)


def tokens_there_and_back(model):
    dice = random.Random(3)
    texts = [b"", b"the thing in the inn", bytes(range(256)), b"\xf4\x90\x80\x80", b"\xff\xfe\x00",
             "na\u00efve \U0001f642".encode()]
    texts += [bytes(dice.randrange(256) for _ in range(dice.randrange(200))) for _ in range(20)]
    for text in texts:
        ids = good("tokenize", model, stdin=text)
        check("there and back of %r" % text[:20], good("detokenize", model, stdin=ids) == text)
        check("as JSON", json.loads(good("tokenize", "--json", model, stdin=text)) ==
              [int(i) for i in ids.split()])
    lines = ["the inn", "", "\u00e4\u0000b", "\U0001f642", "<|im_end|>"]
    out = good("tokenize", "--jsonl", model, stdin="".join(json.dumps(t) + "\n" for t in lines)
               .encode()).splitlines()
    check("jsonl lines", len(out) == len(lines), out)
    back = good("detokenize", "--jsonl", model, stdin=b"\n".join(out) + b"\n").splitlines()
    check("jsonl back", [json.loads(b) for b in back] == lines, back)
    check("control tokens are text", len(json.loads(out[4])) > 5, out[4])
    special = good("tokenize", "--special", model, stdin=b"<|im_end|>").split()
    check("--special", special == [b"261"], special)
    check("control tokens are silent", good("detokenize", model, stdin=b"104 261 105") == b"hi")
    check("detokenize --special",
          good("detokenize", "--special", model, stdin=b"[104, 261]") == b"h<|im_end|>")
    check("broken bytes in JSON are marked",
          json.loads(good("detokenize", "--json", model, stdin=b"104 255")) == "h\ufffd")
    complaint(1, "detokenize", model, stdin=b"1 264", text="264")
    complaint(1, "detokenize", model, stdin=b"1 two", text="two")
    complaint(1, "tokenize", "--jsonl", model, stdin=b"12\n", text="line 1")
    complaint(1, "tokenize", "--jsonl", model, stdin=b"\"a\n", text="line 1")
    complaint(1, "detokenize", "--jsonl", model, stdin=b"{}\n", text="line 1")


def answers(model):
    base = ["--prompt", "the thing in the inn", "--max-tokens", "20", "--temperature", "0.8",
            "--seed", "11", "--ignore-end"]
    want = generate(model, "--raw", *base)
    check("fields", sorted(want) == ["finish", "ids", "isa", "logits_sha256", "prompt_ids", "text",
                                     "usage"], want)
    check("20 tokens", len(want["ids"]) == 20 and want["finish"] == "length", want)
    check("usage", want["usage"]["prompt_tokens"] == len(want["prompt_ids"]) and
          want["usage"]["completion_tokens"] == 20, want["usage"])
    ids = " ".join(map(str, want["prompt_ids"]))
    got = generate(model, "--prompt-ids", ids, *base[2:])
    check("--prompt-ids", got["logits_sha256"] == want["logits_sha256"])
    got = generate(model, "--raw", *base, "--resume-ids", " ".join(map(str, want["ids"][:7])))
    check("--resume-ids", got["logits_sha256"] == want["logits_sha256"] and
          got["ids"] == want["ids"][7:])
    for option, value in (("--kv", "q8_0"), ("--seed", "12"), ("--temperature", "0")):
        others = [w for i in range(0, len(base) - 1, 2) if base[i] != option for w in base[i:i + 2]]
        got = generate(model, "--raw", *others, "--ignore-end", option, value)
        check("not the same with %s %s" % (option, value),
              got["logits_sha256"] != want["logits_sha256"])
    for options, words in ((["--logit-bias", "7:101"], "logit_bias of token 7 is 101"),
                           (["--logit-bias", "7"], "not ID:BIAS"),
                           (["--logit-bias", "7:1", "--logit-bias", "7:2"], "token 7 twice"),
                           (["--stop-token", "-1"], "--stop-token -1"),
                           (["--typical-p", "0"], "typical_p is 0; it must be above 0"),
                           (["--logprobs", "21", "--json"], "0 to 20"),
                           (["--logprobs", "3"], "--json")):
        complaint(2, "generate", model, "--raw", *base, *options, text=words)
    got = generate(model, "--raw", *base, "--logprobs", "2")
    content = got["logprobs"]["content"]
    check("logprobs of each token", [c["id"] for c in content] == want["ids"] == got["ids"], got)
    check("logprobs", all(len(c["top_logprobs"]) == 2 and
                          c["logprob"] <= c["top_logprobs"][0]["logprob"] <= 0 for c in content))
    check("their bytes", b"".join(bytes(c["bytes"]) for c in content) ==
          good("detokenize", model, stdin=" ".join(map(str, want["ids"])).encode()), content)
    got = generate(model, "--raw", *base, "--stop-token", str(want["ids"][5]))
    first = want["ids"].index(want["ids"][5])
    check("--stop-token", got["finish"] == "stop" and got["ids"] == want["ids"][:first + 1], got)
    got = generate(model, "--raw", *base, "--logit-bias", "120:100")
    check("--logit-bias", got["text"] == 20 * "x", got)
    plain = good("generate", model, "--raw", *base)
    shown = plain.decode("utf-8", "replace")
    check("plain text", shown.replace("\ufffd", "") == want["text"].replace("\ufffd", ""), plain)
    pairs = [want["text"][i:i + 2] for i in range(1, len(want["text"]) - 1)]
    stop = next(t for t in pairs if t.isascii() and t.isprintable())
    got = generate(model, "--raw", *base, "--stop", "nowhere to be seen", "--stop", stop)
    check("--stop", got["finish"] == "stop" and
          got["text"] == want["text"][:want["text"].index(stop)], got)


def prompts(model, folder):
    chat = generate(model, "--prompt", "hi", "--max-tokens", "3")
    check("chat is chosen", chat["prompt_ids"][0] == 260, chat)
    check("and said", b"chatml" in run("generate", model, "--prompt", "hi", "--max-tokens",
                                       "1").stderr)
    with_system = generate(model, "--prompt", "hi", "--system", "be", "--max-tokens", "1")
    check("--system", len(with_system["prompt_ids"]) > len(chat["prompt_ids"]))
    special = generate(model, "--prompt", "<|im_start|>hi", "--special", "--max-tokens", "1")
    check("--special", special["prompt_ids"] == [260, 104, 105], special)
    path = os.path.join(folder, "prompt")
    with open(path, "wb") as f:
        f.write(b"h\x00\xff")
    got = generate(model, "--raw", "--prompt-file", path, "--max-tokens", "1")
    check("--prompt-file", got["prompt_ids"] == [104, 0, 255], got)
    complaint(1, "generate", model, "--raw", "--prompt", "", text="empty")
    complaint(1, "generate", model, "--raw", "--prompt", "x" * 300, text="300 tokens")
    complaint(1, "generate", model, "--prompt-ids", "264", text="264")
    complaint(1, "generate", model, "--raw", "--prompt-file", folder)


def shards(model, shape, whole):
    """estimate of a model that is cut"""
    one = json.loads(good("estimate", model, "--json", "--shards", "1", *shape))
    check("estimate: one shard is the whole",
          {k: one["ranks"][0][k] for k in whole if k.endswith("s_bytes") or k == "scratch_bytes"} ==
          {k: whole[k] for k in whole if k.endswith("s_bytes") or k == "scratch_bytes"}, one)
    check("estimate: one shard's total", one["ranks"][0]["total_bytes"] == whole["total_bytes"])
    two = json.loads(good("estimate", model, "--json", "--shards", "2", *shape))
    ranks = two["ranks"]
    check("estimate: two shards have the rows between them",
          ranks[0]["head_rows"][0] == 0 and ranks[0]["head_rows"][1] == ranks[1]["head_rows"][0], two)
    check("estimate: two shards have the weights between them",
          all(0.3 < r["weights_bytes"] / whole["weights_bytes"] < 0.7 for r in ranks) and
          all(r["exchange_bytes"] > 0 for r in ranks), two)
    check("estimate: the layers of a shard", all(len(r["of_layer"]) == len(one["ranks"][0]["of_layer"])
                                                 for r in ranks), two)
    same = json.loads(good("estimate", model, "--json", "--split", "2GiB,2GiB", *shape))
    check("estimate: a split says how many", same == two, same)
    stages = json.loads(good("estimate", model, "--json", "--stages", "2", *shape))
    check("estimate: stages", [r["stage"] for r in stages["ranks"]] == [0, 1] and
          stages["ranks"][0]["layers"][1] == stages["ranks"][1]["layers"][0], stages)
    uneven = json.loads(good("estimate", model, "--json", "--split", "3,1", *shape))
    check("estimate: an uneven split is another plan", uneven["digest"] != two["digest"] and
          uneven["ranks"][0]["weights_bytes"] > uneven["ranks"][1]["weights_bytes"], uneven)
    text = good("estimate", model, "--shards", "2", *shape).decode()
    check("estimate: for people", two["digest"][:16] in text and len(text.splitlines()) == 5, text)
    for flags, code, words in ((("--shards", "0"), 2, "shards"), (("--shards", "17"), 2, "shards"),
                               (("--split", "3;1"), 2, "3;1"), (("--split", ""), 2, "split"),
                               (("--split", "1,2,3", "--stages", "2"), 2, "3 parts for 2 stages"),
                               (("--split", "0,0"), 1, "all weights are 0"),
                               (("--shards", "3", "--split", "1,1"), 1, "2 weights for 3 shards"),
                               (("--stages", "16"), 1, "layers")):
        complaint(code, "estimate", model, *flags, text=words)


def measures(model, folder):
    """estimate, perplexity, bench"""
    shape = ["--context", "96", "--slots", "2", "--sequences", "4"]
    e = json.loads(good("estimate", model, "--json", *shape))
    check("estimate: whole", e["total_bytes"] == e["weights_bytes"] + e["kv_bytes"] +
          e["scratch_bytes"] and e["kv_bytes"] == e["kv_pages"] * e["kv_page_bytes"], e)
    check("estimate: pages", e["kv_pages"] == 6 and e["context_tokens"] == 96, e)
    half = json.loads(good("estimate", model, "--json", "--kv", "q8_0", *shape))
    check("estimate: q8_0 is smaller", half["kv_bytes"] < e["kv_bytes"], half)

    shards(model, shape, e)

    path = os.path.join(folder, "text")
    with open(path, "w") as f:
        f.write("".join(random.Random(1).choice("etaoin shrdlu") for _ in range(700)))
    want = good("perplexity", model, path, "--context", "64", "--json")
    # Bytes are its tokens, and untrained it guesses: 10 pieces, of each positions 33 to 63.
    got = json.loads(want)
    check("perplexity", got["scored_tokens"] % 31 == 0 and 1 < got["perplexity"] < 1e4, got)
    for other in (["--threads", "2"], ["--isa", "scalar"], ["--isa", "scalar", "--threads", "3"]):
        check("perplexity " + " ".join(other),
              good("perplexity", model, path, "--context", "64", "--json", *other) == want)
    complaint(1, "perplexity", model, path, "--context", "4096", text="context")
    complaint(1, "perplexity", model, "/nowhere", text="/nowhere")
    complaint(2, "perplexity", model, text="TEXT")

    bench = json.loads(good("bench", model, "--prompt", "40", "--generate", "5", "--depth", "33",
                            "--streams", "2,3", "--runs", "2", "--json"))
    check("bench", [(m["what"], m["streams"], m["prompt"], m["generate"])
                    for m in bench["measurements"]] ==
          [("prompt", 1, 40, 1), ("generate", 1, 1, 5), ("generate", 1, 33, 5),
           ("streams", 2, 32, 5), ("streams", 3, 32, 5)], bench)
    check("bench: rates", all(0 < m["lowest"] <= m["tokens_per_s"] <= m["highest"]
                              for m in bench["measurements"]), bench)
    # Without flags: what the help says, but for a depth that this model has no room for.
    roomy = os.path.join(folder, "roomy.gguf")
    subprocess.run([os.path.join(BIN, "write_tiny_model"), roomy, "8192"], check=True)
    for file, depths in ((model, []), (roomy, [("generate", 1, 4096, 1)])):
        bench = json.loads(good("bench", file, "--prompt", "64", "--generate", "1", "--runs", "1",
                                "--json", "--context", "128") if file == model else
                           good("bench", file, "--generate", "1", "--runs", "1", "--json"))
        check("bench: all of " + os.path.basename(file),
              [(m["what"], m["streams"], m["prompt"], m["generate"])
               for m in bench["measurements"]] ==
              [("prompt", 1, 64 if file == model else 512, 1), ("generate", 1, 1, 1)] + depths +
              [("streams", n, 32, 1) for n in (8, 32, 64)], bench)
    complaint(2, "bench", model, "--streams", "1,x", text="streams")
    complaint(1, "bench", model, "--depth", "9999", text="context")


with tempfile.TemporaryDirectory() as tmp:
    tiny = os.path.join(tmp, "tiny.gguf")
    subprocess.run([os.path.join(BIN, "write_tiny_model"), tiny], check=True)
    wrong_command_lines(tiny)
    closed_output(tiny)
    bad_files(tiny, tmp)
    info_and_digest(tiny)
    tokens_there_and_back(tiny)
    answers(tiny)
    prompts(tiny, tmp)
    measures(tiny, tmp)
sys.exit(1 if failures else 0)
