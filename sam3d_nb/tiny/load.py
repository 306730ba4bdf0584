"""The model `tiny` by the weights that come with the package, made once a process."""

from __future__ import annotations

import torch

from sam3d_nb.devices import choose_device
from sam3d_nb.errors import WeightsError
from sam3d_nb.tiny import shipped
from sam3d_nb.tiny.model import Tiny
from sam3d_nb.weights.converted import read_converted
from sam3d_nb.weights.load import FileStore

_latest: list[Tiny] = []


def load_tiny(device: str = "auto", memory: str = "auto") -> Tiny:
    """Return `tiny` on a device under a memory plan, see `load_model`.

    The model that was loaded last is kept, and asking for it again costs nothing. Raises InputError
    for a device that is not there, WeightsError where the weights are damaged.
    """
    target = torch.device(choose_device(device))
    plan = "resident" if memory == "auto" else memory  # half a GiB: there is no card too small
    for model in _latest:
        if model.device == target and model.memory.plan == plan:
            return model
    try:
        converted, manifest = read_converted(shipped.FOLDER, shipped.NAME)
    except WeightsError as error:
        raise WeightsError(f"{error}; {shipped.ADVICE}") from error
    # half precision is slower on a CPU
    dtype = torch.float32 if target.type == "cpu" else None
    store = FileStore(
        shipped.FOLDER, converted, manifest, dtype=dtype, device=target, advice=shipped.ADVICE
    )
    model = Tiny(store, target.type, plan)
    _latest[:] = [model]
    return model


def kept() -> list[Tiny]:
    """Return the model that was loaded last, if it is kept."""
    return list(_latest)


def forget(model: object) -> None:
    """Keep this model no longer, where it is the one that was loaded last."""
    _latest[:] = [other for other in _latest if other is not model]
