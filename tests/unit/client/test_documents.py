"""The documents say what the programs do: man pages, completion scripts, example, JSON fields."""

import os
import re
import shutil
import subprocess
import sys

BIN, ROOT = sys.argv[1], sys.argv[2]
failures = []


def check(what, condition, detail=""):
    if not condition:
        failures.append(what + (": " + detail if detail else ""))


def run(*command, **more):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)


def program(*words):
    done = run(os.path.join(BIN, "cloister"), *words)
    check("cloister " + " ".join(words), done.returncode == 0, done.stderr.decode())
    return done.stdout.decode()


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as f:
        return f.read()


def man_pages_are_up_to_date():
    done = run(sys.executable, os.path.join(ROOT, "docs/man/update.py"), BIN, "--check")
    check("man pages", done.returncode == 0, done.stderr.decode().strip())
    if shutil.which("mandoc"):
        for name in ("cloister.1", "cloister-engine.1", "cloister-coordinator.8", "cloister-worker.8",
                     "cloister.cfg.5"):
            done = run("mandoc", "-T", "lint", "-W", "warning", os.path.join(ROOT, "docs/man", name))
            check("mandoc " + name, done.returncode == 0, done.stdout.decode())


def every_command_and_flag_is_in_the_manual():
    """By a route of its own, so that a mistake of the generator shows."""
    page = read("docs/man/cloister.1").replace("\\-", "-")
    commands = re.findall(r"^  (\w+(?: \w+)?) {2,}\w", program("--help").split("Flags of every")[0],
                          re.M)
    check("commands", len(commands) >= 15, str(commands))
    sections = dict(re.findall(r'^\.SS "cloister ([^"]*)"\n(.*?)(?=^\.S[SH])', page, re.M | re.S))
    for command in commands:
        section = [text for name, text in sections.items()
                   if max((c for c in commands if (name + " ").startswith(c + " ")), key=len,
                          default="") == command]
        check("a section for " + command, len(section) == 1)
        flags = set(re.findall(r"^  (?:-\w, |    )--([a-z-]+)", program("help", *command.split()),
                               re.M))
        heads = set(re.findall(r"^\\fB.*?--([a-z-]+)\\fR", "".join(section), re.M))
        check("flags of " + command, heads == flags,
              "manual %s, help %s" % (sorted(heads), sorted(flags)))


def completion_scripts_are_the_programs_output():
    for shell, name in (("bash", "cloister.bash"), ("zsh", "_cloister"), ("fish", "cloister.fish")):
        check("client/completion/" + name,
              read("client/completion", name) == program("completion", shell),
              "run: cloister completion %s > client/completion/%s" % (shell, name))
        if shutil.which(shell):
            done = run(shell, "-n", os.path.join(ROOT, "client/completion", name))
            check(shell + " -n", done.returncode == 0, done.stderr.decode())


def bash_completes():
    table = [
        (["cloister", ""], {"submit", "batch", "ledger", "status"}, set()),
        (["cloister", "sub"], {"submit"}, {"batch"}),
        (["cloister", "submit", "--cl"], {"--class"}, {"--url"}),
        (["cloister", "submit", "--"], {"--class", "--url", "--stop"}, {"--reason"}),
        (["cloister", "--json", "submit", "--class", ""], {"interactive", "batch"}, {"submit"}),
        (["cloister", "ledger", ""], {"export", "verify"}, {"submit"}),
        (["cloister", "ledger", "export", "--"], {"--output", "--json"}, {"--key"}),
        (["cloister", "--url", "submit", "jobs", "--st"], {"--state"}, {"--stop"}),
        (["cloister", "models", ""], {"plan"}, {"submit"}),
        (["cloister", "models", "--"], {"--json"}, {"--split"}),
        (["cloister", "--json", "models", "plan", "--s"], {"--shards", "--split"}, {"--seed"}),
        (["cloister", "completion", "b"], {"bash"}, {"zsh"}),
    ]
    for words, wanted, unwanted in table:
        script = ('source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
                  '_cloister; printf "%s\\n" "${COMPREPLY[@]}"')
        done = run("bash", "-c", script, "bash", os.path.join(ROOT, "client/completion/cloister.bash"),
                   *words, env={"PATH": BIN + ":/usr/bin:/bin", "HOME": "/nonexistent"})
        got = set(done.stdout.decode().split())
        check("bash completes " + " ".join(words), wanted <= got and not unwanted & got, str(got))


def the_example_is_the_programs_output():
    check("deploy/examples/client.cfg", read("deploy/examples/client.cfg") == program("--print-config"),
          "run: cloister --print-config > deploy/examples/client.cfg")


def every_json_field_is_documented():
    page = read("docs/cli.md")
    documented = set(re.findall(r"`([a-z_0-9]+)`", page)) | set(re.findall(r'"([a-z_]+)"', page))
    folder = os.path.join(ROOT, "client/cli")
    for name in sorted(os.listdir(folder)):
        if not re.match(r"(command_|output|show).*\.c$", name):
            continue
        source = read("client/cli", name)
        fields = set()
        for call in re.findall(r"json_pack\((.*?)\);", source, re.S):
            fields |= set(re.findall(r'"([a-z][a-z_0-9]+)"\s*,', call))
        fields |= set(re.findall(r'\{"([a-z_]+)", s->', source))
        for field in sorted(fields - documented):
            check("docs/cli.md", False, "%s prints the field %s" % (name, field))


man_pages_are_up_to_date()
every_command_and_flag_is_in_the_manual()
completion_scripts_are_the_programs_output()
bash_completes()
the_example_is_the_programs_output()
every_json_field_is_documented()
for failure in failures:
    print(failure, file=sys.stderr)
print("%d failures" % len(failures) if failures else "ok")
sys.exit(bool(failures))
