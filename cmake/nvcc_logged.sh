#!/bin/sh
# nvcc_logged.sh LOG NVCC ARGUMENTS...: compiles, and keeps what ptxas says of registers, shared memory
# and spills in LOG. Everything else nvcc says is shown.
log=$1
shift
if "$@" >"$log.new" 2>&1; then
    grep -v -e '^ptxas info' -e '^ *[0-9]* bytes stack frame' "$log.new" >&2
    mv "$log.new" "$log"
else
    cat "$log.new" >&2
    rm -f "$log.new"
    exit 1
fi
