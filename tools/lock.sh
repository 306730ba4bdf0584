#!/usr/bin/env bash
# Writes requirements/lock.txt from pyproject.toml: one version of every package for Python 3.11
# and later on Linux, macOS and Windows. Versions that are already there stay unless pyproject.toml
# forbids them; `--upgrade` takes the newest. Run by hand after a change of dependencies.
#
# torch's CUDA packages are left out: where pip's index serves the CUDA build, torch's own
# metadata pins them, and with the CPU build they are not needed.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${SAM3D_PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet uv

lock=requirements/lock.txt
if [ -f "$lock" ]; then cp "$lock" "$work/lock.txt"; fi
"$work/venv/bin/uv" pip compile pyproject.toml --extra test --universal --python-version 3.11 \
    --fork-strategy fewest --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
    --quiet --output-file "$work/lock.txt" "$@" >/dev/null

{
    echo "# Made by tools/lock.sh from pyproject.toml; used as: pip install -c requirements/lock.txt ."
    grep -Ev '^(#|nvidia-|cuda-|triton)' "$work/lock.txt"
} > "$work/result"
mv "$work/result" "$lock"
echo "$lock pins $(grep -c '==' "$lock") packages"
