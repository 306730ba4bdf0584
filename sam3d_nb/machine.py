"""What a measurement was made on, and with."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from sam3d_nb import __version__

PACKAGES = ("torch", "numpy", "scipy")


def hardware() -> dict[str, Any]:
    """Return cpu and gpu by name, cores, memory in GiB, and the operating system."""
    import psutil
    import torch

    found: dict[str, Any] = {
        "cpu": cpu_name(),
        "cores": psutil.cpu_count(logical=True),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(terse=True),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def versions() -> dict[str, str]:
    """Return the versions of this package, Python and what does the arithmetic."""
    found = {name: metadata.version(name) for name in PACKAGES}
    return {"sam3d_nb": __version__, "python": platform.python_version(), **found}


def cpu_name() -> str:
    """Return what the processor calls itself, or at least its architecture."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    if platform.system() == "Darwin":
        asked = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.stdout.strip():
            return asked.stdout.strip()
    return platform.processor() or platform.machine()


def driver() -> str | None:
    """Return the version of the NVIDIA driver; None where there is none that answers."""
    return _first_line(told_by("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"))


def clocks() -> dict[str, float]:
    """Return the present clock rates in MHz, as far as this system lets them be read.

    cpu, cpu_max: of the processor; gpu, gpu_memory, gpu_max: of the first NVIDIA GPU.
    """
    import psutil

    found: dict[str, float] = {}
    with suppress(OSError, RuntimeError, NotImplementedError, AttributeError):
        rate = psutil.cpu_freq()
        if rate is not None:
            found |= {"cpu": round(rate.current), "cpu_max": round(rate.max)}
    query = "--query-gpu=clocks.sm,clocks.mem,clocks.max.sm"
    told = _first_line(told_by("nvidia-smi", query, "--format=csv,noheader,nounits"))
    names = ("gpu", "gpu_memory", "gpu_max")
    for name, value in zip(names, (told or "").split(","), strict=False):
        with suppress(ValueError):
            found[name] = float(value)
    return {name: value for name, value in found.items() if value}


def commit() -> str | None:
    """Return the commit of the package's repository, marked where files differ, or None."""
    folder = str(Path(__file__).parent)
    git = ("git", "-C", folder)
    if told_by(*git, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None  # installed; a repository around it is another one
    return told_by(*git, "describe", "--always", "--dirty", "--exclude=*")


def code_sha256() -> str:
    """Return a hash of all Python files of the package, which tells versions apart without git."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def told_by(*command: str) -> str | None:
    """Return what a command prints; None where it is missing, fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _first_line(text: str | None) -> str | None:
    return text.splitlines()[0] if text else None
