"""The nine networks of the model: where each stands in the published files, and how it is built."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sam3d_nb.errors import WeightsError
from sam3d_nb.model import latent_flow, structure_flow
from sam3d_nb.model.conditioning import build_condition_embedder
from sam3d_nb.model.config import VisionConfig
from sam3d_nb.model.latent_flow import build_latent_flow
from sam3d_nb.model.mesh_decoder import build_mesh_decoder
from sam3d_nb.model.moge import build_moge
from sam3d_nb.model.splat_decoder import build_splat_decoder
from sam3d_nb.model.structure_decoder import build_structure_decoder
from sam3d_nb.model.structure_flow import build_structure_flow
from sam3d_nb.weights.config import ModelConfig

GENERATOR = "_base_models.generator."
EMBEDDER = "_base_models.condition_embedder."


@dataclass(frozen=True)
class Part:
    """One network. Its configuration is the field of `ModelConfig` that has its name.

    A published tensor is called `prefix` + `inner` + our name; every name that begins with
    `prefix` must be one of ours.
    """

    build: Callable[..., nn.Module]
    checkpoint: str  # name of the published file, without suffix
    container: str | None = None  # key of the state dict in the pickled file; None: it is the file
    prefix: str = ""
    inner: str = ""


PARTS: Mapping[str, Part] = {
    "moge": Part(build_moge, "model", "model"),
    "condition_stage1": Part(
        build_condition_embedder, "ss_generator", "state_dict", prefix=EMBEDDER
    ),
    "structure_flow": Part(
        build_structure_flow,
        "ss_generator",
        "state_dict",
        prefix=GENERATOR,
        inner=structure_flow.CHECKPOINT_PREFIX,
    ),
    "structure_decoder": Part(build_structure_decoder, "ss_decoder"),
    "condition_stage2": Part(
        build_condition_embedder, "slat_generator", "state_dict", prefix=EMBEDDER
    ),
    "latent_flow": Part(
        build_latent_flow,
        "slat_generator",
        "state_dict",
        prefix=GENERATOR,
        inner=latent_flow.CHECKPOINT_PREFIX,
    ),
    "splat_decoder": Part(build_splat_decoder, "slat_decoder_gs"),
    "splat_decoder_4": Part(build_splat_decoder, "slat_decoder_gs_4"),
    "mesh_decoder": Part(build_mesh_decoder, "slat_decoder_mesh"),
}


def part(name: str) -> Part:
    """Return the part called `name`; raises WeightsError where there is none."""
    if name not in PARTS:
        raise WeightsError(f"there is no network {name!r}; there are {', '.join(PARTS)}")
    return PARTS[name]


class Unfilled(TorchFunctionMode):
    """Leaves tensors on the meta device as they are where a network would draw its first numbers.

    They hold none, yet for some of the drawing PyTorch takes its decompositions in Python, and
    for these version 2.11 imports its compiler: seconds for nothing.
    """

    FILLS = ("uniform_", "normal_", "fill_", "zero_", "erfinv_", "mul_", "add_", "clamp_")

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the tensor itself in place of what would fill it; call everything else."""
        options = kwargs or {}
        initial = getattr(func, "__module__", "") == nn.init.__name__
        if initial or getattr(func, "__name__", "") in self.FILLS:
            tensor = args[0] if args else options.get("tensor")
            if isinstance(tensor, Tensor) and tensor.is_meta:
                return tensor
        return func(*args, **options)


def build_empty(name: str, config: ModelConfig, dtype: torch.dtype) -> nn.Module:
    """Return the network on the meta device; its matrix products are to run in `dtype`.

    Raises WeightsError where its configuration makes no network.
    """
    build = part(name).build
    settings: Any = getattr(config, name)
    try:
        with Unfilled():
            return build(settings, dtype=dtype, device="meta").requires_grad_(False)
    except (ValueError, RuntimeError, TypeError, ZeroDivisionError) as error:
        raise WeightsError(f"{name} cannot be built from {settings}: {error}") from error


def vision_places(name: str, config: ModelConfig) -> tuple[str, ...]:
    """Return where in a condition embedder the DINOv2 networks stand, which may be shared."""
    if not name.startswith("condition_"):
        return ()
    networks = enumerate(getattr(config, name).networks)
    return tuple(f"module_list.{i}.backbone" for i, n in networks if isinstance(n, VisionConfig))
