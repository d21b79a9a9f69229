"""Small vocabularies of our own.

They make two things visible that the big ones hide. SmolLM2 has no token of two digits and few that span
words, so that where a text was cut often leaves no trace in its ids; here the merges were learned from
whole lines, and every run of two or three digits is a token. And tests of tokenizers need no download
with them.
"""

import struct

from gguf_header import (GGUF_TYPE_ARRAY, GGUF_TYPE_BOOL, GGUF_TYPE_FLOAT32, GGUF_TYPE_INT32, GGUF_TYPE_STRING,
                         GGUF_TYPE_UINT32, gguf_array, gguf_pair, gguf_string, gguf_write)
from vector_texts import PRETOKENIZE_SHARES, SPLIT_PIECES, all_texts, choose

TOKEN_NORMAL = 1
TOKEN_UNKNOWN = 2
TOKEN_CONTROL = 3
TOKEN_USER_DEFINED = 4
TOKEN_BYTE = 6

MINI_MERGES = 900
MINI_USER_DEFINED = "<|tool|>"
MINI_ORPHAN = "harbour"  # a token that no merge makes: llama-bpe finds it all the same


def byte_letters():
    """GPT-2's printable stand-in for each byte."""
    plain = set(range(0x21, 0x7F)) | set(range(0xA1, 0xAD)) | set(range(0xAE, 0x100))
    spare = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(spare)) for b in range(256)]


def learn_merges(lines, count):
    """Byte-pair merges of lists of symbols: the most frequent pair, the lesser one of equals."""
    lines = [list(line) for line in lines]
    merges = []
    for _ in range(count):
        pairs = {}
        for line in lines:
            for pair in zip(line, line[1:]):
                pairs[pair] = pairs.get(pair, 0) + 1
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        for line in lines:
            i = 0
            while i + 1 < len(line):
                if line[i] == best[0] and line[i + 1] == best[1]:
                    line[i:i + 2] = [best[0] + best[1]]
                i += 1
    return merges


def mini_pairs(model, tokens):
    """The metadata that both small vocabularies share; `tokens` are (text, type, score)."""
    def number(key, value):
        return gguf_pair(key, GGUF_TYPE_UINT32, struct.pack("<I", value))

    def text(key, value):
        return gguf_pair(key, GGUF_TYPE_STRING, gguf_string(value))

    return [
        text("general.architecture", "llama"), text("general.name", "vocabulary for tests"),
        number("llama.block_count", 1), number("llama.context_length", 64), number("llama.embedding_length", 32),
        number("llama.feed_forward_length", 32), number("llama.attention.head_count", 1),
        gguf_pair("llama.attention.layer_norm_rms_epsilon", GGUF_TYPE_FLOAT32, struct.pack("<f", 1e-5)),
        text("tokenizer.ggml.model", model),
        gguf_pair("tokenizer.ggml.tokens", GGUF_TYPE_ARRAY,
                  gguf_array(GGUF_TYPE_STRING, [gguf_string(t[0]) for t in tokens])),
        gguf_pair("tokenizer.ggml.token_type", GGUF_TYPE_ARRAY,
                  gguf_array(GGUF_TYPE_INT32, [struct.pack("<i", t[1]) for t in tokens])),
    ]


def mini_texts():
    """What the small vocabularies learn from; no merge may spell a special token again."""
    texts = choose(all_texts(), PRETOKENIZE_SHARES, 700, 500)
    return [t for t in texts if "<|" not in t and "<s>" not in t and "</s>" not in t]


def make_mini_bpe(path):
    letters = byte_letters()
    lines = [[letters[b] for b in t[:200].encode()] for t in mini_texts()]
    digits = "0123456789"
    merges = [(a, b) for a in digits for b in digits]
    merges += [(a + b, c) for a in digits for b in digits for c in digits]
    known = {a + b for a, b in merges}
    merges += [m for m in learn_merges(lines, MINI_MERGES) if m[0] + m[1] not in known]
    tokens = [("<|endoftext|>", TOKEN_CONTROL, 0), ("<|im_start|>", TOKEN_CONTROL, 0), ("<|im_end|>", TOKEN_CONTROL, 0),
              (MINI_USER_DEFINED, TOKEN_USER_DEFINED, 0)]
    tokens += [(c, TOKEN_NORMAL, 0) for c in letters]
    made = dict.fromkeys(a + b for a, b in merges)
    orphans = [MINI_ORPHAN, letters[0x20] + MINI_ORPHAN]
    assert not any(t in made for t in orphans)
    tokens += [(t, TOKEN_NORMAL, 0) for t in list(made) + orphans]
    pairs = mini_pairs("gpt2", tokens)
    pairs.append(gguf_pair("tokenizer.ggml.pre", GGUF_TYPE_STRING, gguf_string("gpt-2")))
    pairs.append(gguf_pair("tokenizer.ggml.merges", GGUF_TYPE_ARRAY,
                           gguf_array(GGUF_TYPE_STRING, [gguf_string(a + " " + b) for a, b in merges])))
    for key, token in (("bos", 0), ("eos", 2)):
        pairs.append(gguf_pair("tokenizer.ggml.%s_token_id" % key, GGUF_TYPE_UINT32, struct.pack("<I", token)))
    gguf_write(path, pairs)


def make_mini_split(path):
    """Merges only where two pieces of text_splits meet, so that ids show where a text was cut."""
    letters = byte_letters()
    raw = [p.encode() for p in SPLIT_PIECES]
    merges = [(letters[a], letters[b]) for a in sorted({r[-1] for r in raw}) for b in sorted({r[0] for r in raw})]
    tokens = [(c, TOKEN_NORMAL, 0) for c in letters]
    tokens += [(a + b, TOKEN_NORMAL, 0) for a, b in merges]
    tokens += [("<|endoftext|>", TOKEN_CONTROL, 0)]
    pairs = mini_pairs("gpt2", tokens)
    pairs.append(gguf_pair("tokenizer.ggml.pre", GGUF_TYPE_STRING, gguf_string("gpt-2")))
    pairs.append(gguf_pair("tokenizer.ggml.merges", GGUF_TYPE_ARRAY,
                           gguf_array(GGUF_TYPE_STRING, [gguf_string(a + " " + b) for a, b in merges])))
    for key in ("bos", "eos"):
        pairs.append(gguf_pair("tokenizer.ggml.%s_token_id" % key, GGUF_TYPE_UINT32, struct.pack("<I", len(tokens) - 1)))
    gguf_write(path, pairs)


def make_mini_spm(path):
    lines = [[c for c in "\u2581" + t[:200].replace(" ", "\u2581")] for t in mini_texts()]
    count = {}
    for line in lines:
        for c in line:
            count[c] = count.get(c, 0) + 1
    merges = learn_merges(lines, MINI_MERGES)
    # Scores in steps of four pieces: equal ones are common, and the leftmost pair goes first.
    pieces = dict.fromkeys(a + b for a, b in merges)
    tokens = [("<unk>", TOKEN_UNKNOWN, 0), ("<s>", TOKEN_CONTROL, 0), ("</s>", TOKEN_CONTROL, 0),
              (MINI_USER_DEFINED, TOKEN_USER_DEFINED, 0)]
    tokens += [("<0x%02X>" % b, TOKEN_BYTE, 0) for b in range(256)]
    tokens += [(t, TOKEN_NORMAL, -float(i // 4)) for i, t in enumerate(pieces)]
    # Rarer characters go through their bytes.
    tokens += [(c, TOKEN_NORMAL, -1000.0 - i) for i, c in enumerate(sorted(c for c in count if count[c] > 3))]
    pairs = mini_pairs("llama", tokens)
    pairs.append(gguf_pair("tokenizer.ggml.scores", GGUF_TYPE_ARRAY,
                           gguf_array(GGUF_TYPE_FLOAT32, [struct.pack("<f", t[2]) for t in tokens])))
    pairs.append(gguf_pair("tokenizer.ggml.add_space_prefix", GGUF_TYPE_BOOL, b"\x01"))
    pairs.append(gguf_pair("tokenizer.ggml.add_bos_token", GGUF_TYPE_BOOL, b"\x01"))
    for key, token in (("bos", 1), ("eos", 2), ("unknown", 0)):
        pairs.append(gguf_pair("tokenizer.ggml.%s_token_id" % key, GGUF_TYPE_UINT32, struct.pack("<I", token)))
    gguf_write(path, pairs)
