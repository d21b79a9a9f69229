#!/usr/bin/env python3
"""Token ids of cloister-engine against those of llama.cpp on megabytes of mixed text.

    pip install llama-cpp-python==0.3.36
    compare_tokenizers.py --engine build/bin/cloister-engine FILE...
    compare_tokenizers.py --engine build/bin/cloister-engine --pre tekken --pre gpt-4o FILE
    compare_tokenizers.py --engine build/bin/cloister-engine --every-pre FILE

FILE is a model or a vocabulary (llama.cpp's source has some, models/ggml-vocab-*.gguf). With --pre
the same vocabulary is read as if the file named that pre-tokenizer; --every-pre takes one name of
each split and all other names on less text. The text is the same from run to run; it is made of what
vector_texts.py makes, in documents of 1 to 60 kB: sentences of many scripts, code, numbers, emoji,
odd white space, combining marks, lookalikes of special tokens, long runs, random code points of
Unicode 14 and older.

Left out of the text are the code points that llama.cpp drops or takes otherwise on purpose: those
with a byte that the vocabulary has no token for (llama.cpp leaves the byte out, cloister refuses),
and "</s>" where a file says that it is a user-defined token (llama.cpp does not believe it). Runs are
2,000 characters at most: most of llama.cpp's splits need a stack as deep as a run is long.

Prints a line a vocabulary, exits with 1 where any id differs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import unicodedata

from gguf_header import GGUF_TYPE_STRING, gguf_patch_vocab, gguf_string
from llama_engine import Engine, Model
from vector_texts import BLOCKS, LOSSY, SPACES, Rng, all_texts, text_mixed

# The first of each line is the name that all of the text is compared under.
PRE_TOKENIZERS = [
    ["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "lfm2", "midm-2.0", "pixtral", "glm4", "glm5"],
    ["dbrx", "chatglm-bpe", "smaug-bpe"],
    ["smollm", "codeshell", "command-r", "exaone", "mellum2", "minerva-7b", "refact", "starcoder"],
    ["qwen2", "bailingmoe", "bailingmoe2", "deepseek-r1-qwen", "f2llmv2", "grok-2", "hunyuan", "kormo", "llada-moe",
     "megrez", "solar-open", "stablelm2"],
    ["gpt-2", "a.x-4.0", "exaone4", "gigachat", "granite-docling", "jais", "mellum", "modern-bert", "mpt", "olmo",
     "phi-2", "trillion"],
    ["default"],
    ["tekken"],
    ["gpt-4o", "kanana2", "llama4", "minimax-m2", "talkie"],
    ["deepseek-llm"],
    ["deepseek-coder"],
    ["deepseek-v3", "hunyuan-dense", "hy_v4", "joyai-llm"],
    ["falcon"],
    ["qwen35"],
    ["seed-coder"],
    ["ufakzeka"],
    ["minicpm5"],
    ["bloom", "gpt3-finnish", "poro-chat"],
    ["viking"],
]


def random_code_point(rng):
    """Any that Unicode had assigned when this Python was made, as long as that is before Unicode 15."""
    while True:
        c = chr(rng.between(0x20, 0x32FFF)) if rng.below(16) else chr(rng.between(0xE0000, 0x10FFFF))
        if unicodedata.category(c) not in ("Cn", "Cs") and not new_since_15(ord(c)):
            return c


def new_since_15(code):
    return (0x31350 <= code <= 0x323AF or 0x2EBF0 <= code <= 0x2EE5D or 0x2FFC <= code <= 0x2FFF or code == 0x31EF
            or 0x10D40 <= code <= 0x10D8F or 0x11F00 <= code <= 0x11F59 or 0x1E4D0 <= code <= 0x1E4F9
            or (0x10000 <= code < 0x20000 and unicodedata.unidata_version > "14.0.0"
                and code not in unicode_14_supplement()))


def unicode_14_supplement():
    """Code points beyond U+FFFF that are certain to be old: the blocks of vector_texts."""
    if not hasattr(unicode_14_supplement, "known"):
        unicode_14_supplement.known = {c for low, high in BLOCKS if low >= 0x10000 for c in range(low, high + 1)}
    return unicode_14_supplement.known


def text_run(rng):
    unit = rng.pick(["a", "A", "é", "É", "字", "あ", "한", "ก", "🙂", "\u0301", " ", "\n", "\t", "\r\n", "\u3000", "7", "٣",
                     "=", "-", "'", "_", "aA", "Aa", "AAb", "éA", "字A", "a ", " a", "\n ", " \n", "'s", "Ab1", "ä\u0308",
                     "न\u093f", "\u00a0", "▁", "()", "//", "\u200d", "🇧🇷", "0x", "...", "\u2028", "\u0085", ">\n"])
    return unit * rng.between(2, 2000 // len(unit) if rng.below(8) == 0 else 60)


def text_cased(rng):
    """Words of mixed case and script, as the splits that look at capitals see them."""
    letters = "abzABZéÉßŒœǅʰªاב字あж" + "Ж\u0301\u0327ﬁᾳᾼ𝐀𝐚Ⅷⓐ"
    return "".join(rng.pick(letters) for _ in range(rng.between(1, 24))) + rng.pick(["", "'s", "'LL", "’s", " ", "/", ".\n"])


def document(rng, texts, kinds):
    parts = []
    size = 0
    want = 1000 + rng.below(6000) * (10 if rng.below(5) == 0 else 1)
    while size < want:
        kind = rng.below(24)
        if kind < 14:
            part = rng.pick(texts[rng.pick(kinds)])
        elif kind < 17:
            part = text_mixed(rng, 1)[0]
        elif kind < 19:
            part = text_run(rng)
        elif kind < 21:
            part = text_cased(rng)
        else:
            part = "".join(rng.pick(["", "", "", " ", "\n", "a", "7"]) + random_code_point(rng)
                           for _ in range(rng.between(1, 40)))
        parts.append(part)
        parts.append(rng.pick(["", " ", "\n", "  ", "\n\n", rng.pick(SPACES)]))
        size += len(part.encode()) + 1
    return "".join(parts)


def documents(total):
    """Until there are `total` bytes."""
    rng = Rng(2024)
    texts = all_texts()
    kinds = sorted(texts)
    out = []
    size = 0
    while size < total:
        out.append(document(rng, texts, kinds))
        size += len(out[-1].encode())
    return out


def spellable(model, docs, file_is_user_s):
    """The documents without what the two engines treat otherwise on purpose."""
    missing = set()
    for code in list(range(0x80)) + [0x40000, 0x50000, 0x90000, 0xA0000, 0xC0000, 0xE0000, 0xF0000, 0x100000]:
        text = chr(code)
        ids = model.tokenize("x" + text)
        back = b"".join(model.piece(i) for i in ids)
        if not back.endswith(text.encode()):
            missing.add(text.encode()[0])
    lossy = [c for c in LOSSY if missing]
    out = []
    for d in docs:
        for c in lossy:
            d = d.replace(c, "")
        if missing:
            d = "".join(c for c in d if c.encode()[0] not in missing)
        out.append(d.replace("</s>", "") if file_is_user_s else d)
    return out


class Vocabulary(Model):
    def piece(self, token):
        import ctypes

        text = ctypes.create_string_buffer(4096)
        n = self.lib.llama_token_to_piece(self.vocab, token, text, len(text), 0, True)
        return text.raw[:max(n, 0)]


def compare(engine, program, path, name, docs):
    model = Vocabulary(engine, path)
    docs = spellable(model, docs, True)
    lines = "".join(json.dumps(d) + "\n" for d in docs)
    done = subprocess.run([program, "tokenize", "--jsonl", path], input=lines.encode(), stdout=subprocess.PIPE,
                          check=False)
    answers = done.stdout.decode().splitlines()
    wrong = 0
    n_ids = 0
    for i, d in enumerate(docs):
        want = model.tokenize(d)
        got = json.loads(answers[i]) if i < len(answers) else None
        n_ids += len(want)
        if got == want:
            continue
        wrong += 1
        if wrong <= 3:
            show_difference(model, d, got, want)
    model.close()
    size = sum(len(d.encode()) for d in docs)
    print("%-44s %8d bytes %5d documents %8d ids: %s"
          % (name, size, len(docs), n_ids, "equal" if wrong == 0 else "%d DIFFER" % wrong), flush=True)
    return wrong == 0 and done.returncode == 0


def show_difference(model, text, got, want):
    if not isinstance(got, list):
        print("  %s for %s" % (json.dumps(got), json.dumps(text[:100])))
        return
    at = 0
    while at < len(got) and at < len(want) and got[at] == want[at]:
        at += 1
    before = b"".join(model.piece(i) for i in want[max(0, at - 4):at])
    print("  behind %r: %s for %s" % (before, [model.piece(i) for i in got[at:at + 6]],
                                      [model.piece(i) for i in want[at:at + 6]]))


def main():
    parser = argparse.ArgumentParser(description="Compare tokenizers with llama.cpp.")
    parser.add_argument("--engine", required=True, help="cloister-engine")
    parser.add_argument("--bytes", type=int, default=5_000_000, help="of text, 5000000 if not given")
    parser.add_argument("--pre", action="append", help="this pre-tokenizer instead of the file's; may be repeated")
    parser.add_argument("--every-pre", action="store_true", help="all pre-tokenizers instead of the file's")
    parser.add_argument("files", nargs="+", metavar="FILE")
    args = parser.parse_args()

    engine = Engine()
    docs = documents(args.bytes)
    few = documents(args.bytes // 50)
    equal = True
    with tempfile.TemporaryDirectory() as folder:
        for path in args.files:
            name = os.path.basename(path)
            pres = [(p, docs) for p in args.pre or []]
            if args.every_pre:
                pres = [(p, docs if i == 0 else few) for names in PRE_TOKENIZERS for i, p in enumerate(names)]
            if not pres:
                equal &= compare(engine, args.engine, path, name, docs)
            for pre, texts in pres:
                patched = os.path.join(folder, "patched.gguf")
                gguf_patch_vocab(path, patched, "tokenizer.ggml.pre", GGUF_TYPE_STRING, gguf_string(pre))
                equal &= compare(engine, args.engine, patched, "%s as %s" % (name, pre), texts)
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
