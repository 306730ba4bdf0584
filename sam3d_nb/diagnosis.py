"""What is installed, which hardware, models and segmenters are ready, and what to do otherwise."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from sam3d_nb import __version__

if TYPE_CHECKING:
    import pandas as pd

    from sam3d_nb.masks.segmenter import SegmenterSpec
    from sam3d_nb.zoo import ModelSpec

GIB = 2**30
ROOM_NEEDED = 2 * GIB
"""Free disk below which results and notebooks may not fit."""


@dataclass(frozen=True)
class Finding:
    """One row of the table. advice: the one thing to do, empty where all is well."""

    topic: str
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """A table of findings: text on a terminal, HTML in a notebook."""

    findings: tuple[Finding, ...]

    def table(self) -> pd.DataFrame:
        """Return the columns topic, found, advice."""
        import pandas as pd

        rows = [(f.topic, f.found, f.advice) for f in self.findings]
        return pd.DataFrame(rows, columns=["topic", "found", "advice"])

    def __str__(self) -> str:
        """Return one finding a line, advice indented below."""
        width = max(len(f.topic) for f in self.findings)
        lines = []
        for f in self.findings:
            lines.append(f"{f.topic:<{width}}  {f.found}")
            if f.advice:
                lines.append(f"{'':<{width}}  -> {f.advice}")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        import pandas as pd

        with pd.option_context("display.max_colwidth", None):
            return self.table().to_html(index=False, justify="left")


def doctor() -> Diagnosis:
    """Look at this machine and installation; takes seconds, changes nothing and never fails."""
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "Python": _python,
        "torch": _torch,
        "device": _devices,
        "disk": _disk,
        "packages": _packages,
        "JupyterLab": _jupyter,
        "examples": _examples,
        "model": _models,
        "segmenter": _segmenters,
    }
    return Diagnosis(tuple(f for topic, check in checks.items() for f in _guarded(topic, check)))


def _guarded(topic: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # a broken installation is what this table is for
        yield Finding(
            topic, f"could not be checked: {type(error).__name__}: {error}", "run the set-up again"
        )


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    isolated = sys.prefix != sys.base_prefix or (Path(sys.prefix) / "conda-meta").is_dir()
    advice = "" if isolated else "use a virtual environment: bash setup_a.sh makes one"
    yield Finding("Python", f"{version} in {sys.prefix}", advice)
    yield Finding("sam3d_nb", f"{__version__} in {Path(__file__).parent}")


def _torch() -> Iterator[Finding]:
    import torch

    backend = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA in this build"
    advice = ""
    if shutil.which("nvidia-smi") and not torch.cuda.is_available():
        advice = "an NVIDIA driver is here but torch cannot use it: " + (
            "update the driver" if torch.version.cuda else "install torch's CUDA build"
        )
    yield Finding("torch", f"{torch.__version__}, {backend}", advice)


def _devices() -> Iterator[Finding]:
    from sam3d_nb.devices import list_devices

    for device in list_devices():
        free = "" if device.free is None else f", {device.free / GIB:.1f} GiB free"
        memory = f"{device.memory / GIB:.1f} GiB{free}"
        yield Finding(f"device {device.name}", f"{device.description}, {memory}")


def _disk() -> Iterator[Finding]:
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    advice = "" if free > ROOM_NEEDED else "make room, or write results to another disk"
    yield Finding("disk", f"{free / GIB:.1f} GiB free in {here}", advice)


def _packages() -> Iterator[Finding]:
    locked, required = _locked(), _required()
    differing = []
    for name in required:
        installed = _installed(name)
        # A build such as 2.13.0+cpu is the version 2.13.0.
        if installed is None or installed.split("+")[0] != locked.get(_plain(name), installed):
            wanted = locked.get(_plain(name), "any version")
            differing.append(f"{name} {installed or 'missing'} instead of {wanted}")
    if not locked:
        yield Finding("packages", "no requirements/lock.txt to compare with")
    elif differing:
        advice = "in the repository: pip install -c requirements/lock.txt ."
        yield Finding("packages", "; ".join(differing), advice)
    else:
        yield Finding("packages", f"{len(required)} direct dependencies, all as locked")


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _required() -> list[str]:
    """Return the names of the direct dependencies without extras, as installed."""
    requirements = [r for r in metadata.requires("sam3d_nb") or [] if "extra ==" not in r]
    return [re.split(r"[\s;<>=!~\[(]", r, maxsplit=1)[0] for r in requirements]


def _locked() -> dict[str, str]:
    """Return the locked version of every package, by plain name."""
    package = Path(__file__).parent
    places = (package, package.parent)  # installed, and in the repository
    paths = (place / "requirements" / "lock.txt" for place in places)
    path = next((p for p in paths if p.is_file()), None)
    lines = path.read_text().splitlines() if path else []
    pins = (line.split(";")[0].strip().split("==") for line in lines if "==" in line)
    return {_plain(name): version for name, version in pins}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _jupyter() -> Iterator[Finding]:
    jupyter = _installed("jupyterlab")
    advice = "" if jupyter else "run the set-up again, or use the command line"
    yield Finding("JupyterLab", jupyter or "missing", advice)
    yield Finding(
        "3D view",
        f"pythreejs {_installed('pythreejs') or 'missing'}; needs WebGL in the browser",
        "" if _installed("pythreejs") else "run the set-up again",
    )


def _examples() -> Iterator[Finding]:
    from sam3d_nb.examples import data_folder, list_examples

    if not data_folder().is_dir():
        yield Finding("examples", f"none in {data_folder()}", "install again from the repository")
        return
    yield Finding("examples", ", ".join(list_examples()))


def _models() -> Iterator[Finding]:
    from sam3d_nb.zoo import MODELS

    yield from _readiness("model", MODELS)


def _segmenters() -> Iterator[Finding]:
    from sam3d_nb.masks.segmenter import SEGMENTERS

    yield from _readiness("segmenter", SEGMENTERS)


def _readiness(kind: str, specs: Mapping[str, ModelSpec | SegmenterSpec]) -> Iterator[Finding]:
    """Say of each by its name whether it is ready, or what to do before it is."""
    for name, spec in specs.items():
        topic = f"{kind} {name}"
        yield from _guarded(topic, partial(_ready, topic, spec))


def _ready(topic: str, spec: ModelSpec | SegmenterSpec) -> Iterator[Finding]:
    missing = spec.missing()
    state = "not ready" if missing else "ready"
    yield Finding(topic, f"{state}: {spec.description}", missing)
