#!/usr/bin/env python3
"""Make dequantize.jsonl: blocks of each quantized type and the floats that llama.cpp makes of them.

    python3 make_dequantize.py LIBGGML_BASE_SO > dequantize.jsonl

LIBGGML_BASE_SO is libggml-base.so of a build of llama.cpp (README.md says of which). A line holds
the type's GGUF id and name, the bytes of some blocks in hex, and the bits of their values in hex,
eight digits each. The blocks are random bytes, then fills of one byte, which bring every field to
its extremes; their 16-bit scales are numbers, the largest and a subnormal one among them.
"""

import ctypes
import json
import struct
import sys

# id, name, elements and bytes of a block, places of its binary16 numbers
TYPES = (
    (2, "q4_0", 32, 18, (0,)),
    (3, "q4_1", 32, 20, (0, 2)),
    (6, "q5_0", 32, 22, (0,)),
    (7, "q5_1", 32, 24, (0, 2)),
    (8, "q8_0", 32, 34, (0,)),
    (10, "q2_K", 256, 84, (80, 82)),
    (11, "q3_K", 256, 110, (108,)),
    (12, "q4_K", 256, 144, (0, 2)),
    (13, "q5_K", 256, 176, (0, 2)),
    (14, "q6_K", 256, 210, (208,)),
    (20, "iq4_nl", 32, 18, (0,)),
    (23, "iq4_xs", 256, 136, (0,)),
    (39, "mxfp4", 32, 17, ()),
)
HALVES = (0x211F, 0xA3B2, 0x7BFF, 0x8001, 0x0000, 0x1234, 0x9C00, 0x03FF)
EXPONENTS = (0, 1, 2, 120, 127, 128, 254, 255)
FILLS = (0x00, 0xFF, 0x80, 0x7F, 0x0F, 0xF0)


def random_bytes(state, count):
    out = bytearray()
    for _ in range(count):
        state[0] = (state[0] * 6364136223846793005 + 1442695040888963407) & (1 << 64) - 1
        out.append(state[0] >> 56)
    return out


def main():
    library = ctypes.CDLL(sys.argv[1])
    state = [20]
    for number, name, items, size, halves in TYPES:
        blocks = bytearray()
        randoms = 6 if items == 32 else 2
        for i in range(randoms + len(FILLS)):
            if i < randoms:
                block = random_bytes(state, size)
            else:
                block = bytearray([FILLS[i - randoms]]) * size
            for k, at in enumerate(halves):
                struct.pack_into("<H", block, at, HALVES[(i + 3 * k) % len(HALVES)])
            if name == "mxfp4":
                block[0] = EXPONENTS[i % len(EXPONENTS)]
            blocks += block
        count = len(blocks) // size * items
        values = (ctypes.c_float * count)()
        source = (ctypes.c_char * len(blocks)).from_buffer(blocks)
        getattr(library, "dequantize_row_" + name)(source, values, ctypes.c_int64(count))
        bits = struct.unpack("<%dI" % count, bytes(values))
        line = {"type": number, "name": name.upper(), "blocks": bytes(blocks).hex()}
        line["values"] = "".join("%08x" % word for word in bits)
        print(json.dumps(line))


if __name__ == "__main__":
    main()
