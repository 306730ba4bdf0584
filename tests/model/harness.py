"""Golden files and stand-in weights: read them, fill modules with them, compare against them."""

import json
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from weights import stand_in


class Golden:
    """One golden file: inputs and outputs (`.safetensors`) beside what made them (`.json`)."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.info = json.loads((folder / f"{name}.json").read_text())
        self.config = self.info.get("config", {})
        self._file = folder / f"{name}.safetensors"

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return load_file(self._file)

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def tolerance(self, key: str = "default") -> dict[str, float]:
        """Return rtol and atol for tensor `key`: its own entry, or the file's general one."""
        table = self.info["tolerance"]
        table = {"default": table} if isinstance(table, str) else table
        entry = table.get(key) or table.get("default") or table.get("float32") or table
        if isinstance(entry, str):  # such as "exact, including row order"
            return {"rtol": 0.0, "atol": 0.0}
        return {"rtol": float(entry.get("rtol", 0.0)), "atol": float(entry.get("atol", 0.0))}

    def check(self, actual: Tensor, key: str, *, tolerance: str | None = None) -> None:
        """Compare `actual` with tensor `key` within the file's tolerance, NaN equal to NaN."""
        expected = self[key]
        assert tuple(actual.shape) == tuple(expected.shape), f"{self.name}: {key}"
        torch.testing.assert_close(
            actual.detach().cpu().to(expected.dtype),
            expected,
            equal_nan=True,
            msg=lambda text: f"{self.name}: {key}\n{text}",
            **self.tolerance(tolerance or key),
        )


def fill(module: nn.Module, prefix: str = "") -> nn.Module:
    """Give every floating parameter of `module` its stand-in; buffers keep their values."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.is_floating_point():
                values = stand_in(prefix + name, tuple(parameter.shape))
                parameter.copy_(torch.as_tensor(values))
    return module.eval().requires_grad_(False)


def manifest(name: str) -> dict[str, tuple[int, ...]]:
    """Return the published parameter names and shapes of checkpoint `name`."""
    table = json.loads((Path(__file__).parent / "manifest" / f"{name}.json").read_text())
    return {key: tuple(shape) for key, shape in table.items() if not key.startswith("_")}


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the state-dict names and shapes of `module`, which may live on the meta device."""
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}
