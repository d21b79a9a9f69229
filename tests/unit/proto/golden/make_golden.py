#!/usr/bin/env python3
"""Packs messages.txt with protoc into one .hex file a message, and into a seed for fuzz_wire."""
import pathlib
import re
import subprocess
import textwrap

here = pathlib.Path(__file__).resolve().parent
root = here.parents[3]
sections = re.split(r"^== (\S+) (\S+)\n", (here / "messages.txt").read_text(), flags=re.M)[1:]
for name, kind, text in zip(sections[0::3], sections[1::3], sections[2::3]):
    proto = "proto/record.proto" if kind.startswith("cloister.record.") else "proto/cloister.proto"
    packed = subprocess.run(
        ["protoc", "-I", str(root), "--encode=" + kind, proto],
        input=text.encode(), stdout=subprocess.PIPE, check=True, cwd=root,
    ).stdout
    (root / "tests/fuzz/corpus/fuzz_wire").mkdir(parents=True, exist_ok=True)
    (root / "tests/fuzz/corpus/fuzz_wire" / name).write_bytes(packed)
    (here / (name + ".hex")).write_text("\n".join(textwrap.wrap(packed.hex(), 96)) + "\n")
