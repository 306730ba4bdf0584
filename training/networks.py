"""The networks of `tiny`, made ready for training, and their checkpoints between runs.

Everything but the encoder of the sparse structure is the package's own code under the configuration
`TINY`; the encoder is needed for training alone.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sam3d_nb.model.conditioning import ImageEmbed
from sam3d_nb.model.structure_decoder import ResidualBlock
from sam3d_nb.tiny.config import TINY
from sam3d_nb.weights.parts import PARTS


class StructureEncoder(nn.Module):
    """Truncated distance and occupancy of 32³ voxels to mean and log-variance of the latent."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64), channels: int = 8) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv3d(2, widths[0], 3, padding=1)]
        for width, wider in zip(widths, (*widths[1:], widths[-1]), strict=True):
            layers.append(ResidualBlock(width))
            if wider != width:
                layers.append(nn.Conv3d(width, wider, 2, stride=2))
        layers += [ResidualBlock(widths[-1]), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        self.out_layer = nn.Conv3d(widths[-1], 2 * channels, 3, padding=1)

    def forward(self, fields: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, 2, 32, 32, 32) to mean and log-variance, (B, channels, 8, 8, 8) each."""
        mean, log_variance = self.out_layer(self.layers(fields)).chunk(2, 1)
        return mean, log_variance.clamp(-12, 4)


def build(name: str, device: torch.device | str) -> nn.Module:
    """Return the network `name` (one of `PARTS`, or `structure_encoder`), ready for training.

    Gates of adaptive norms and the last layers of flows begin at zero, as is usual for flow
    transformers; everything else has PyTorch's initial values.
    """
    if name == "structure_encoder":
        return StructureEncoder(channels=TINY.structure_flow.channels).to(device)
    network = PARTS[name].build(getattr(TINY, name)).to(device)
    for path, module in network.named_modules():
        last = path.rpartition(".")[2]
        if last == "adaLN_modulation":
            nn.init.zeros_(module[1].weight)
            nn.init.zeros_(module[1].bias)
        if name.endswith("_flow") and last == "out_layer":
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return network


def share_vision(first: nn.Module, second: nn.Module) -> None:
    """Let the embedder of stage 2 use the vision transformers of stage 1, frozen."""
    for mine, theirs in zip(second.module_list, first.module_list, strict=False):
        if isinstance(mine, ImageEmbed) and isinstance(theirs, ImageEmbed):
            mine.backbone = theirs.backbone


def begin_backbone(moge: nn.Module, embedder: nn.Module) -> None:
    """Let the depth network's vision transformer begin as the one that sees the photo."""
    moge.backbone.load_state_dict(backbones(embedder)[0].state_dict())


def backbones(embedder: nn.Module) -> list[nn.Module]:
    """Return the vision transformers of a condition embedder, that of the photo first."""
    return [part.backbone for part in embedder.module_list if isinstance(part, ImageEmbed)]


class Average:
    """Exponential moving average of parameters, which is what gets exported."""

    def __init__(self, modules: dict[str, nn.Module], decay: float = 0.999) -> None:
        self.modules, self.decay, self.steps = modules, decay, 0
        self.values = {n: [p.detach().clone() for p in m.parameters()] for n, m in modules.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the parameters; quicker in the first steps."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, module in self.modules.items():
            torch._foreach_lerp_(self.values[name], list(module.parameters()), 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the averages and the modules' parameters."""
        for name, module in self.modules.items():
            parameters = list(module.parameters())
            kept = [p.clone() for p in parameters]
            torch._foreach_copy_(parameters, self.values[name])
            torch._foreach_copy_(self.values[name], kept)


def save(path: Path, modules: dict[str, nn.Module], skip: tuple[str, ...] = ()) -> None:
    """Write the modules' tensors in float16 as one file, names behind the module's name."""
    tensors = {
        f"{name}/{key}": value.detach().half().contiguous().cpu()
        for name, module in modules.items()
        for key, value in module.state_dict().items()
        if not any(part in f"{name}/{key}" for part in skip)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


def load(path: Path, modules: dict[str, nn.Module], *, partial: bool = False) -> None:
    """Read what `save` wrote into `modules`; with `partial` what does not fit is left out."""
    stored = load_file(path)
    for name, module in modules.items():
        start = f"{name}/"
        mine = {k.removeprefix(start): v.float() for k, v in stored.items() if k.startswith(start)}
        if partial:
            shapes = {key: value.shape for key, value in module.state_dict().items()}
            mine = {key: value for key, value in mine.items() if shapes.get(key) == value.shape}
        if not mine and partial:
            continue
        module.load_state_dict(mine, strict=not partial)
