"""What check_ptxas.py and check_sass.py share: their tables, and names of kernels."""

import fnmatch
import shlex
import subprocess


class Problem(Exception):
    """The input cannot be read; the text says where and why."""


def read_table(path, columns):
    """Rows of `path` as (line number, words); `columns` words each. # begins a comment line."""
    rows = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            lexer = shlex.shlex(line, posix=True)
            lexer.whitespace_split = True
            lexer.escape = lexer.commenters = ""
            words = list(lexer)
            if len(words) != columns:
                raise Problem("%s:%d: %d words, not %d" % (path, number, len(words), columns))
            rows.append((number, words))
    return rows


def number_of(path, line, word):
    if not word.isdigit():
        raise Problem("%s:%d: %s is no number" % (path, line, word))
    return int(word)


def demangle(names):
    """Names as a reader writes them, without return type and parameters, by mangled name."""
    names = sorted(set(names))
    run = subprocess.run(["c++filt"], input="\n".join(names), stdout=subprocess.PIPE,
                         universal_newlines=True, check=True)
    return {name: short_name(long) for name, long in zip(names, run.stdout.splitlines())}


def short_name(name):
    """`void gemv<(int)4, 8>(int const*)` is `gemv<4, 8>`."""
    name = name.replace("(anonymous namespace)::", "").replace("(int)", "").replace("(bool)", "")
    depth = 0
    begin = 0
    for i, c in enumerate(name):
        if c == "<":
            depth += 1
        elif c == ">":
            depth -= 1
        elif depth == 0 and c == " ":
            begin = i + 1
        elif depth == 0 and c == "(":
            return name[begin:i]
    return name[begin:]


def fits(pattern, arch_pattern, name, arch):
    # in a name [ stands for nothing but itself
    return (arch_pattern in ("*", arch)
            and fnmatch.fnmatchcase(name, pattern.replace("[", "[[]")))
