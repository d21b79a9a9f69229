#!/usr/bin/env python3
"""Writes the parts of the man pages that the programs know better: flags and configuration keys.

    docs/man/update.py BIN_DIR           rewrites docs/man
    docs/man/update.py BIN_DIR --check   says which page is behind, and fails

A part stands between `.\\" begin WHAT` and `.\\" end`, where WHAT is
    flags cloister [COMMAND...]     of `cloister help COMMAND`, or those of every command
    flags PROGRAM [COMMAND]         of `PROGRAM --help`, or `PROGRAM COMMAND --help`
    keys PROGRAM                    of `PROGRAM --print-config`, with their defaults
Everything else in a page is written by hand. Standard library only.
"""

import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
FLAG = re.compile(r"^ {2,6}((?:-\w, )?--[\w-]+(?:, (?:-\w, )?--[\w-]+)*)(?: ([^\s]\S*))?(?:\s{2,}(.*))?$")


def say(binaries, *command):
    done = subprocess.run([os.path.join(binaries, command[0]), *command[1:]],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit("%s: exit %d: %s" % (" ".join(command), done.returncode, done.stderr.decode()))
    return done.stdout.decode()


def roff(text):
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in ".'" else text


def flags(text):
    """[[names, argument, help]] from a program's help."""
    found = []
    for line in text.splitlines():
        match = FLAG.match(line)
        if match:
            names, argument, help_text = match.groups()
            found.append([names.split(", "), argument or "", help_text or ""])
        elif found and re.match(r"^ {20,}\S", line):
            found[-1][2] = (found[-1][2] + " " + line.strip()).strip()
    return found


def flags_part(binaries, words):
    if words[0] == "cloister":
        text = say(binaries, "cloister", *(["help", *words[1:]] if words[1:] else ["--help"]))
        text = text[text.index("Flags"):] if "Flags" in text else ""
    else:
        text = say(binaries, *words, "--help")
    out = []
    for names, argument, help_text in flags(text):
        head = ", ".join("\\fB%s\\fR" % roff(name) for name in names)
        if argument:
            head += " \\fI%s\\fR" % roff(argument)
        out += [".TP", head, roff(help_text) if help_text else "Does what it says, and ends."]
    return out


def keys_part(binaries, words):
    out, comment, path = [], [], []
    for line in say(binaries, words[0], "--print-config").splitlines():
        line = line.strip()
        if line.startswith("# "):
            comment.append(line[2:])
            continue
        key = re.match(r"^(#?)(\w+) = (.*)$", line)
        if key:
            shown_only, name, value = key.groups()
            full = ".".join(path + [name])
            opens = value in ("{", "(")
            # A key that is only shown has no default: its value is an example.
            default = "" if opens or shown_only else " = " + roff(value.rstrip(";"))
            out += [".TP", "\\fB%s\\fR%s" % (roff(full), default), roff(" ".join(comment))]
            if opens:
                path.append(name + ("[]" if value == "(" else ""))
        elif line.lstrip("#") in ("};", ");"):
            path.pop()
        comment = []
    return out


def update(binaries, page):
    out, inside = [], False
    for line in page.splitlines():
        begin = re.match(r'^\.\\" begin (flags|keys) (.*)$', line)
        inside = inside and line != '.\\" end'
        if not inside:
            out.append(line)
        if begin:
            part = flags_part if begin.group(1) == "flags" else keys_part
            out += part(binaries, begin.group(2).split())
            inside = True
    return "\n".join(out) + "\n"


def main():
    binaries, check = sys.argv[1], "--check" in sys.argv
    behind = []
    for name in sorted(os.listdir(HERE)):
        if not re.search(r"\.[158]$", name):
            continue
        path = os.path.join(HERE, name)
        with open(path, encoding="utf-8") as f:
            old = f.read()
        new = update(binaries, old)
        if new == old:
            continue
        behind.append(name)
        if not check:
            with open(path, "w", encoding="utf-8") as f:
                f.write(new)
    if check and behind:
        sys.exit("behind the programs: %s; run docs/man/update.py %s" % (", ".join(behind), binaries))
    print("rewritten: " + (", ".join(behind) or "nothing") if not check else "ok")


main()
