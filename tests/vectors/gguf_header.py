"""GGUF headers. llama.cpp opens a file without tensors when only the vocabulary is wanted, so a patched
copy needs no tensor data at all.
"""

import struct

GGUF_TYPE_UINT32 = 4
GGUF_TYPE_INT32 = 5
GGUF_TYPE_FLOAT32 = 6
GGUF_TYPE_BOOL = 7
GGUF_TYPE_STRING = 8
GGUF_TYPE_ARRAY = 9
GGUF_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def gguf_value_end(data, at, kind):
    if kind == GGUF_TYPE_STRING:
        return at + 8 + struct.unpack_from("<Q", data, at)[0]
    if kind == GGUF_TYPE_ARRAY:
        inner, count = struct.unpack_from("<IQ", data, at)
        at += 12
        if inner in GGUF_SIZES:
            return at + GGUF_SIZES[inner] * count
        for _ in range(count):
            at = gguf_value_end(data, at, inner)
        return at
    return at + GGUF_SIZES[kind]


def gguf_patch_vocab(source, target, key, kind, value):
    """Write to `target` the metadata of `source` without tensors, with `key` replaced."""
    with open(source, "rb") as f:
        data = f.read(64 << 20)
    assert data[:4] == b"GGUF"
    version, _, kv_count = struct.unpack_from("<IQQ", data, 4)
    at = 24
    out = []
    for _ in range(kv_count):
        start = at
        name_end = gguf_value_end(data, at, GGUF_TYPE_STRING)
        name = data[at + 8:name_end].decode()
        found = struct.unpack_from("<I", data, name_end)[0]
        at = gguf_value_end(data, name_end + 4, found)
        if name != key:
            out.append(data[start:at])
    out.append(gguf_pair(key, kind, value))
    gguf_write(target, out, version)


def gguf_string(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf_pair(key, kind, raw):
    return gguf_string(key) + struct.pack("<I", kind) + raw


def gguf_array(kind, items):
    return struct.pack("<IQ", kind, len(items)) + b"".join(items)


def gguf_write(path, pairs, version=3):
    """A GGUF file of metadata only."""
    with open(path, "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", version, 0, len(pairs)) + b"".join(pairs))
