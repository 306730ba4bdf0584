"""The models by name, the best first, and how each one is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sam3d_nb.devices import check_device_name, choose_device
from sam3d_nb.errors import InputError
from sam3d_nb.pipeline import Model

MEMORY_PLANS = ("auto", "resident", "staged")


def _silhouette(device: str, memory: str) -> Model:
    from sam3d_nb.silhouette import Silhouette

    return Silhouette()


def _sam3d(device: str, memory: str) -> Model:
    from sam3d_nb.engine.load import load_sam3d

    return load_sam3d(device, memory)


def _forget_sam3d(model: Model) -> None:
    from sam3d_nb.engine.load import forget

    forget(model)


def _kept_sam3d() -> list[Model]:
    from sam3d_nb.engine.load import kept

    return [*kept()]


def _tiny(device: str, memory: str) -> Model:
    from sam3d_nb.tiny.load import load_tiny

    return load_tiny(device, memory)


def _tiny_missing() -> str:
    from sam3d_nb.tiny.shipped import missing

    return missing()


def _forget_tiny(model: Model) -> None:
    from sam3d_nb.tiny.load import forget

    forget(model)


def _kept_tiny() -> list[Model]:
    from sam3d_nb.tiny.load import kept

    return [*kept()]


def _forget_nothing(model: Model) -> None:
    pass


def _nothing_kept() -> list[Model]:
    return []


def _always_ready() -> str:
    return ""


def _sam3d_missing() -> str:
    from sam3d_nb.weights.status import model_status

    return model_status("sam-3d-objects").advice


@dataclass(frozen=True)
class ModelSpec:
    """One entry of the zoo.

    build: makes the model on a device under a memory plan. missing: what to do before it can be
    made, as a sentence; empty where it is ready. kept: models that `build` keeps for later. forget:
    lets `build` make a given one anew.
    """

    description: str
    build: Callable[[str, str], Model]
    missing: Callable[[], str] = _always_ready
    kept: Callable[[], list[Model]] = _nothing_kept
    forget: Callable[[Model], None] = _forget_nothing


MODELS: dict[str, ModelSpec] = {
    "sam-3d-objects": ModelSpec(
        "mesh, gaussians and pose by the official network and its gated weights",
        _sam3d,
        _sam3d_missing,
        _kept_sam3d,
        _forget_sam3d,
    ),
    "tiny": ModelSpec(
        "mesh, gaussians and pose by small networks that come with the package",
        _tiny,
        _tiny_missing,
        _kept_tiny,
        _forget_tiny,
    ),
    "silhouette": ModelSpec("the baseline: the outline inflated, no network", _silhouette),
}
"""All models, the best first."""


def load_model(name: str | None = None, device: str = "auto", memory: str = "auto") -> Model:
    """Return the model called `name`, or the best one that is ready.

    device: auto, cuda, mps or cpu. memory: how a model with large networks uses the device's
    memory: resident keeps all networks there, staged brings each one in for its stage only, auto
    takes resident where 16 GB are free for it. Loading a model again is free.

    Raises InputError for an unknown name or plan and for a device that this machine has not,
    WeightsError where the model called `name` has no weights.
    """
    check_device_name(device)
    if device not in ("auto", "cpu"):
        choose_device(device)  # one that is asked for and missing is told, whatever the model
    if memory not in MEMORY_PLANS:
        raise InputError(
            f"there is no memory plan {memory!r}; choose from {', '.join(MEMORY_PLANS)}"
        )
    if name is None:
        name = next(model for model, spec in MODELS.items() if not spec.missing())
    if name not in MODELS:
        raise InputError(f"there is no model {name!r}; choose from {', '.join(sorted(MODELS))}")
    return MODELS[name].build(device, memory)


def unload_model(model: Model) -> None:
    """Free what `model` holds on its device, and forget it, so that loading it is not free.

    Loading the same model again reads its files again. Other models stay as they are.
    """
    release = getattr(model, "release", None)
    if release is not None:
        release()
    for spec in MODELS.values():
        spec.forget(model)
