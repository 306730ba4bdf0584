"""What a measurement was made on, and with."""

from __future__ import annotations

import platform
import subprocess
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
