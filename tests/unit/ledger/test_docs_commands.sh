#!/bin/sh
# Runs the commands of docs/ledger.md as they stand there, on a ledger that is whole and on ones
# that are not. Usage: test_docs_commands.sh MAKE_EXPORT SOURCE_DIR. Exit status 77: a tool is
# missing, named on the last line.
set -eu

make_export=$1
source_dir=$2
for tool in python3 openssl protoc basenc; do
    command -v "$tool" > /dev/null || { echo "skipped: no $tool"; exit 77; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The fenced block behind <!-- command: NAME -->.
block() {
    awk -v mark="<!-- command: $1 -->" '
        $0 == mark { found = 1; next }
        found && /^```/ { if (inside) exit; inside = 1; next }
        inside { print }' "$source_dir/docs/ledger.md"
}
block signature > "$work/signature.sh"
block root > "$work/root.py"
block record > "$work/record.sh"
for file in signature.sh root.py record.sh; do
    [ -s "$work/$file" ] || { echo "docs/ledger.md: no commands for $file"; exit 1; }
done
lines=$(grep -c . "$work/root.py")
[ "$lines" -le 25 ] || { echo "docs/ledger.md: root.py has $lines lines"; exit 1; }
cp "$source_dir/proto/record.proto" "$work/"

failed=0
# expect WHAT GOOD|BAD COMMAND...: runs it in the work folder.
expect() {
    what=$1 wanted=$2
    shift 2
    if (cd "$work" && "$@") > "$work/output" 2>&1; then got=GOOD; else got=BAD; fi
    if [ "$got" = "$wanted" ]; then
        echo "ok: $what"
    else
        echo "FAILED: $what: $got"
        cat "$work/output"
        failed=1
    fi
}
says() {
    grep -q "$1" "$work/output" || { echo "FAILED: it does not say \"$1\""; failed=1; }
}

for jobs in "1 0" "7 0" "50 3" "128 20"; do
    # shellcheck disable=SC2086
    "$make_export" "$work/ledger.jsonl" $jobs
    expect "signature of $jobs" GOOD sh -e signature.sh
    says "Signature Verified Successfully"
    expect "root of $jobs" GOOD python3 root.py ledger.jsonl
    says "records give the root that was signed"
done
expect "record" GOOD sh -e record.sh
says "kind: LEDGER_KIND_RESERVE"
says "seq: 1"

cp "$work/ledger.jsonl" "$work/whole.jsonl"
sed '5s/"raw":"CAEQ/"raw":"CAIQ/' "$work/whole.jsonl" > "$work/ledger.jsonl"
cmp -s "$work/whole.jsonl" "$work/ledger.jsonl" && { echo "the record was not changed"; exit 1; }
expect "root with a changed record" BAD python3 root.py ledger.jsonl
sed 5d "$work/whole.jsonl" > "$work/ledger.jsonl"
expect "root without a record" BAD python3 root.py ledger.jsonl
sed '$s/\\n256\\n/\\n255\\n/' "$work/whole.jsonl" > "$work/ledger.jsonl"
cmp -s "$work/whole.jsonl" "$work/ledger.jsonl" && { echo "the note was not changed"; exit 1; }
expect "signature of a changed note" BAD sh -e signature.sh
expect "root of a changed note" BAD python3 root.py ledger.jsonl
sed '1s/"public_key":"../"public_key":"00/' "$work/whole.jsonl" > "$work/ledger.jsonl"
expect "signature under another key" BAD sh -e signature.sh
exit $failed
