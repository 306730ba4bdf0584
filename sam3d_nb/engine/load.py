"""The official model by its converted weights, made once a process."""

from __future__ import annotations

import torch

from sam3d_nb.devices import choose_device
from sam3d_nb.engine.memory import choose_plan
from sam3d_nb.engine.model import Sam3dObjects
from sam3d_nb.weights import load
from sam3d_nb.weights.load import load_weights

_latest: list[Sam3dObjects] = []


def load_sam3d(device: str = "auto", memory: str = "auto") -> Sam3dObjects:
    """Return SAM 3D Objects on a device under a memory plan, see `load_model`.

    The model that was loaded last is kept, and asking for it again costs nothing; its `release`
    frees the memory of the device. Raises InputError for a device that is not there, WeightsError
    that says how to get the weights.
    """
    device = choose_device(device)
    plan = choose_plan(torch.device(device)) if memory == "auto" else memory
    store = load_weights(
        device=device,
        dtype=torch.float32 if device == "cpu" else None,  # half precision is slower there
        pin=plan == "staged" and device == "cuda",
    )
    for model in _latest:
        if model.store is store and model.memory.plan == plan:
            return model
    _latest.clear()
    model = Sam3dObjects(store, device, plan)
    _latest.append(model)
    return model


def kept() -> list[Sam3dObjects]:
    """Return the model that was loaded last, if it is kept."""
    return list(_latest)


def forget(model: object) -> None:
    """Keep neither this model, where it is the one that was loaded last, nor its weights."""
    _latest[:] = [other for other in _latest if other is not model]
    load.forget(getattr(model, "store", None))
