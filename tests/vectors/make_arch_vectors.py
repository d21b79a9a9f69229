#!/usr/bin/env python3
"""Make arch_logits.jsonl: what the shapes of tests/unit/engine/tiny_model.c answer.

Each shape's file is written by write_tiny_model, in F32, and computed twice: by llama.cpp, and by the
plain forward pass below, in double precision with keys and values rounded to float16 as both engines
keep them. Where both can, they must agree. llama.cpp cannot compute every shape: it takes all layers
of these architectures to have the same sizes, and reads neither attention.scale nor a softcap of
attention in gemma3 files.

    pip install llama-cpp-python==0.3.36 numpy
    python3 make_arch_vectors.py BUILD/bin/write_tiny_model > arch_logits.jsonl

Logits are rounded to five digits; the file of a shape is known by its SHA-256.
"""

import hashlib
import json
import math
import os
import struct
import subprocess
import sys
import tempfile

import numpy

from llama_engine import Engine, Model

LLAMA_CPP_CANNOT = {"llama-layers", "gemma3-softcap"}
TOKENS = 100
POSITIONS = (0, 30, 99)
BOUND = 4e-3  # of the range of a row of logits, between the two


def read_gguf(path):
    """Keys and F32 tensors of a small file."""
    with open(path, "rb") as f:
        data = f.read()
    at = 4

    def take(fmt):
        nonlocal at
        value, = struct.unpack_from("<" + fmt, data, at)
        at += struct.calcsize(fmt)
        return value

    def text():
        nonlocal at
        n = take("Q")
        at += n
        return data[at - n:at].decode("utf-8", "replace")

    def value(kind):
        if kind == 8:
            return text()
        if kind == 9:
            element, n = take("I"), take("Q")
            return [value(element) for _ in range(n)]
        return take({0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q"}[kind])

    take("I")
    n_tensors, n_keys = take("Q"), take("Q")
    keys = {}
    for _ in range(n_keys):
        name = text()
        keys[name] = value(take("I"))
    table = []
    for _ in range(n_tensors):
        name, n_dims = text(), take("I")
        dims = [take("Q") for _ in range(n_dims)]
        assert take("I") == 0, "F32 only"
        table.append((name, dims, take("Q")))
    base = (at + 31) // 32 * 32
    tensors = {}
    for name, dims, offset in table:
        flat = numpy.frombuffer(data, numpy.float32, int(numpy.prod(dims)), base + offset)
        tensors[name] = flat.reshape(dims[::-1]).astype(numpy.float64)
    return keys, tensors


class Plain:
    """One forward pass, written from the papers and the model cards."""

    def __init__(self, keys, tensors):
        self.keys, self.tensors = keys, tensors
        self.arch = keys["general.architecture"]
        self.n_layers = self.key("block_count")
        self.dim = self.key("attention.key_length")

    def key(self, name, default=None):
        return self.keys.get(self.arch + "." + name, default)

    def of_layer(self, name, layer):
        value = self.key(name)
        return value[layer] if isinstance(value, list) else value

    def tensor(self, name, layer=None):
        return self.tensors.get(name if layer is None else "blk.%d.%s" % (layer, name))

    def norm(self, x, gain):
        eps = self.key("attention.layer_norm_rms_epsilon")
        return x / numpy.sqrt((x * x).mean(-1, keepdims=True) + eps) * gain

    def product(self, x, name, layer):
        y = x @ self.tensor(name + ".weight", layer).T
        bias = self.tensor(name + ".bias", layer)
        return y if bias is None else y + bias

    def is_local(self, layer):
        if self.arch != "gemma3" or not self.key("attention.sliding_window"):
            return False
        pattern = self.key("attention.sliding_window_pattern", 6)
        return pattern[layer] if isinstance(pattern, list) else layer % pattern != pattern - 1

    def turn(self, x, local):
        """x: [positions][heads][dim]"""
        half = self.dim // 2
        base, factor, kind = self.key("rope.freq_base", 1e4), self.key("rope.scaling.factor", 1.0), \
            self.key("rope.scaling.type", "linear")
        magnitude = self.key("rope.scaling.attn_factor", 1.0)
        if local:
            base, factor, kind = self.key("rope.freq_base_swa", 1e4), 1.0, "linear"
        frequency = base ** (-numpy.arange(half) / half)
        freqs = self.tensor("rope_freqs.weight")
        if kind == "yarn":
            original = self.key("rope.scaling.original_context_length")

            def pair(turns):
                return self.dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

            low, high = max(math.floor(pair(32)), 0), min(math.ceil(pair(1)), self.dim - 1)
            along = numpy.clip((numpy.arange(half) - low) / max(high - low, 0.001), 0, 1)
            frequency = frequency * (1 - along) + frequency / factor * along
            magnitude *= 1 + 0.1 * math.log(factor)
        else:
            frequency = frequency / factor
        if freqs is not None and not local:
            frequency = frequency / freqs
        angle = numpy.arange(len(x))[:, None, None] * frequency
        cosine, sine = numpy.cos(angle) * magnitude, numpy.sin(angle) * magnitude
        pairs = self.arch == "llama"
        a, b = (x[..., 0::2], x[..., 1::2]) if pairs else (x[..., :half], x[..., half:])
        y = numpy.empty_like(x)
        first, second = a * cosine - b * sine, b * cosine + a * sine
        if pairs:
            y[..., 0::2], y[..., 1::2] = first, second
        else:
            y[..., :half], y[..., half:] = first, second
        return y

    def attention(self, x, layer):
        heads, kv_heads = (self.of_layer("attention.head_count" + s, layer) for s in ("", "_kv"))
        n, local = len(x), self.is_local(layer)
        q, k, v = (self.product(x, "attn_" + name, layer).reshape(n, -1, self.dim) for name in "qkv")
        if self.tensor("attn_q_norm.weight", layer) is not None:
            q = self.norm(q, self.tensor("attn_q_norm.weight", layer))
            k = self.norm(k, self.tensor("attn_k_norm.weight", layer))
        q, k = self.turn(q, local), self.turn(k, local)
        k, v = (t.astype(numpy.float16).astype(numpy.float64) for t in (k, v))
        wide = self.arch == "gemma3" and self.n_layers == 62
        size = self.key("embedding_length") // heads if wide else self.dim
        scale = self.key("attention.scale", 1 / math.sqrt(size))
        cap = self.key("attn_logit_softcapping", 0.0)
        back = numpy.arange(n)[:, None] - numpy.arange(n)[None, :]
        hidden = back < 0
        if local:
            hidden = hidden | (back >= self.key("attention.sliding_window"))
        out = numpy.empty_like(q)
        for h in range(heads):
            kv = h // (heads // kv_heads)
            score = q[:, h] @ k[:, kv].T * scale
            if cap:
                score = cap * numpy.tanh(score / cap)
            score[hidden] = -numpy.inf
            e = numpy.exp(score - score.max(1, keepdims=True))
            out[:, h] = e / e.sum(1, keepdims=True) @ v[:, kv]
        return self.product(out.reshape(n, -1), "attn_output", layer)

    def feed_forward(self, x, layer):
        gate, up = self.product(x, "ffn_gate", layer), self.product(x, "ffn_up", layer)
        if self.arch == "gemma3":
            act = gate / 2 * (1 + numpy.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate ** 3)))
        else:
            act = gate / (1 + numpy.exp(-gate))
        return self.product(act * up, "ffn_down", layer)

    def logits(self, ids):
        x = self.tensor("token_embd.weight")[ids]
        if self.arch == "gemma3":
            x = x * math.sqrt(self.key("embedding_length"))
        for layer in range(self.n_layers):
            for before, branch, behind in (("attn_norm", self.attention, "post_attention_norm"),
                                           ("ffn_norm", self.feed_forward, "post_ffw_norm")):
                y = branch(self.norm(x, self.tensor(before + ".weight", layer)), layer)
                gain = self.tensor(behind + ".weight", layer)
                x = x + (y if gain is None else self.norm(y, gain))
        x = self.norm(x, self.tensor("output_norm.weight"))
        head = self.tensor("output.weight")
        y = x @ (self.tensor("token_embd.weight") if head is None else head).T
        cap = self.key("final_logit_softcapping", 0.0)
        return cap * numpy.tanh(y / cap) if cap else y


def of_llama_cpp(engine, path, ids):
    model = Model(engine, path, vocab_only=False, context=256)
    rows = [model.decode([i]) for i in ids]
    model.close()
    return numpy.array(rows)


def main(writer):
    engine = Engine()
    names = subprocess.run([writer, "none", "none"], capture_output=True, text=True).stderr
    names = names.split("there are ")[1].split()
    ids = [(7 * i * i + 13 * i + 5) % 256 for i in range(TOKENS)]
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, name + ".gguf")
            subprocess.run([writer, path, name], check=True)
            with open(path, "rb") as f:
                digest = hashlib.sha256(f.read()).hexdigest()
            plain = Plain(*read_gguf(path)).logits(ids)
            other = None if name in LLAMA_CPP_CANNOT else of_llama_cpp(engine, path, ids)
        apart = 0.0
        if other is not None:
            apart = (abs(plain - other).max(1) / numpy.ptp(plain, axis=1)).max()
        print("%-18s range %6.2f to %6.2f, llama.cpp apart by %.2e of it" %
              (name, plain.min(), plain.max(), apart), file=sys.stderr)
        assert apart < BOUND, (name, apart)
        kept = {"plain": plain} if other is None else {"plain": plain, "llama.cpp": other}
        line = {"shape": name, "sha256": digest, "ids": ids, "positions": list(POSITIONS)}
        for source, logits in kept.items():
            line[source] = [[float("%.5g" % v) for v in logits[p]] for p in POSITIONS]
        print(json.dumps(line, separators=(",", ":")))


if __name__ == "__main__":
    main(sys.argv[1])
