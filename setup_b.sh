#!/usr/bin/env bash
# Gets the official weights with what setup_a.sh installed. Run `bash setup_b.sh --help`.
# Kept to bash 3.2, which is what macOS has.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

usage() {
    cat <<'END'
bash setup_b.sh                     download facebook/sam-3d-objects and the point-map network
bash setup_b.sh --sam3              the same, and facebook/sam3 for masks by text
bash setup_b.sh --segmenter sam2    nothing but a segmenter: sam3, or sam2 (also -tiny, -base, -large)
bash setup_b.sh --dtype bfloat16    keep bfloat16 instead of float16
bash setup_b.sh --folder DIR        keep the weights in DIR instead of the user's cache

Needs about 20 GB of free disk: 12 GB are downloaded, converted to about 6 GB, and deleted.
Needs a Hugging Face account that has accepted the terms at
https://huggingface.co/facebook/sam-3d-objects, and its token: in the variable HUGGINGFACE_TOKEN,
or stored by an earlier `hf auth login`. Stopped at any time, it goes on when run again.
END
}

fail() {
    printf '\nsetup_b.sh: %s\n' "$*" >&2
    exit 1
}

case "${1:-}" in
    -h | --help | help) usage; exit 0 ;;
esac
command=$here/.venv/bin/sam3d-nb
[ -x "$command" ] || fail "sam3d_nb is not installed in .venv; run first: bash setup_a.sh"

exec "$command" weights download "$@"
