# Sourced by the scripts beside it: how they speak, and how they install what is missing.
# Needs bash and a Debian (or Debian-like) machine with apt.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
fail() {
    printf '\033[1;31merror:\033[0m %s\n' "$*" >&2
    exit 1
}
[ -t 1 ] || {
    say() { printf '==> %s\n' "$*"; }
    fail() {
        printf 'error: %s\n' "$*" >&2
        exit 1
    }
}

# as_root COMMAND...: directly as root, else through sudo.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "this needs root for: $* (run as root, or install sudo)"
    fi
}

# apt_need PACKAGE...: installs those that are not there; asks nothing when all are.
apt_need() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    command -v apt-get >/dev/null ||
        fail "missing packages and no apt-get here: ${missing[*]}"
    say "installing ${missing[*]}"
    if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        "${missing[@]}" >/dev/null 2>&1; then
        as_root apt-get update -qq || fail "apt-get update failed"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
            --no-install-recommends "${missing[@]}" >/dev/null ||
            fail "apt-get could not install: ${missing[*]}"
    fi
}

build_packages=(gcc libc6-dev cmake ninja-build git pkg-config
    libnng-dev libprotobuf-c-dev protobuf-c-compiler protobuf-compiler liblmdb-dev libconfig-dev
    libssl-dev libpcre2-dev libjansson-dev libxxhash-dev libucx-dev)
test_packages=(g++ libcmocka-dev python3 openssl clang libclang-rt-14-dev iproute2)
