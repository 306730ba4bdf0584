"""Stage 1: the two-stream flow transformer over shape and layout tokens.

One stream of weights serves the shape tokens of the latent grid, another the four layout tokens
(rotation, translation, scale, translation scale). Shape tokens attend to shape tokens, layout
tokens to all; both read the condition tokens. What does not change over the steps is computed
once a request: keys and values of the condition (`prepare`) and the modulation of all blocks at
all times (`modulation`). The unconditional pass of guidance sees tokens that are all zero, so its
cross-attention is one constant a layer, and it shares the first self-attention with the
conditional pass.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from sam3d_nb.errors import InputError
from sam3d_nb.model.config import STAGE1_SAMPLER, SamplerConfig, StructureFlowConfig
from sam3d_nb.model.layers import (
    OUTPUT_EPS,
    Modulation,
    ModuleTable,
    Stack,
    TimestepEmbedder,
    fastest_attention,
    layer_norm,
    linear_dtype,
    modulation_table,
    position_embedding,
    set_linear_dtype,
)
from sam3d_nb.model.sampler import Latents, Step, sample, schedule
from sam3d_nb.model.structure_blocks import LAYOUT, SHAPE, LayerCondition, StructureBlock

CHECKPOINT_PREFIX = "reverse_fn.backbone."  # of every name in the published generator

LAYOUT_CHANNELS = {  # one token each, in the order in which the stream holds them
    "6drotation_normalized": 6,
    "translation": 3,
    "scale": 3,
    "translation_scale": 1,
}


Condition = tuple[dict[str, LayerCondition], ...]  # one entry a block, by stream


def latent_shapes(config: StructureFlowConfig) -> dict[str, tuple[int, int]]:
    """Return tokens and channels of every latent, in the alphabetical order of their names."""
    table = {name: (1, channels) for name, channels in LAYOUT_CHANNELS.items()}
    table[SHAPE] = (config.resolution**3, config.channels)
    return dict(sorted(table.items()))


def draw_noise(
    config: StructureFlowConfig,
    generator: torch.Generator | None = None,
    *,
    device: torch.device | str = "cpu",
    batch: int = 1,
) -> Latents:
    """Draw standard-normal latents (batch, tokens, channels), float32, in the published order.

    The numbers come from `generator` on its own device, or from the global one of `device`.
    """
    source = generator.device if generator is not None else device
    return {
        name: torch.randn(batch, *shape, generator=generator, device=source).to(device)
        for name, shape in latent_shapes(config).items()
    }


class LatentMapping(nn.Module):
    """Latent values to stream tokens with their position term, and back."""

    def __init__(self, channels: int, width: int, positions: Tensor | None = None) -> None:
        super().__init__()
        if positions is None:
            self.pos_emb = nn.Parameter(torch.zeros(1, width))
        else:
            self.register_buffer("pos_emb", positions)  # (tokens, width)
        self.input_layer = nn.Linear(channels, width)
        self.out_layer = nn.Linear(width, channels)

    def encode(self, x: Tensor) -> Tensor:
        """Map (B, tokens, channels) to (B, tokens, C), float32."""
        return self.input_layer(x.to(self.input_layer.weight.dtype)).float() + self.pos_emb

    def decode(self, h: Tensor) -> Tensor:
        """Map (B, tokens, C) to (B, tokens, channels)."""
        return self.out_layer(layer_norm(h, OUTPUT_EPS, dtype=self.out_layer.weight.dtype))


def grid_positions(resolution: int, width: int) -> Tensor:
    """Return the position term of every cell of the grid (tokens, width), last axis fastest."""
    device = torch.get_default_device()
    if device.type == "meta":  # working out what nobody reads would take half a second
        return torch.empty(resolution**3, width, dtype=torch.float32)
    axis = torch.arange(resolution, device="cpu")
    grid = torch.cartesian_prod(axis, axis, axis)  # (tokens, 3)
    return position_embedding(grid, width).to(device)


class StructureFlow(nn.Module):
    """Velocity of the five stage-1 latents; parameters carry the published names."""

    def __init__(self, config: StructureFlowConfig) -> None:
        super().__init__()
        self.config = config
        self.t_embedder = TimestepEmbedder(config.width)
        self.d_embedder = TimestepEmbedder(config.width)
        self.blocks: Stack[StructureBlock] = Stack(
            StructureBlock(config) for _ in range(config.depth)
        )
        self.latent_mapping: ModuleTable[LatentMapping] = ModuleTable(
            {name: LatentMapping(c, config.width) for name, c in LAYOUT_CHANNELS.items()}
        )
        positions = grid_positions(config.resolution, config.width)
        self.latent_mapping[SHAPE] = LatentMapping(config.channels, config.width, positions)

    def prepare(self, tokens: Tensor) -> Condition:
        """Project condition tokens (B, M, condition width) once for all steps.

        Raises `InputError` for another shape.
        """
        tokens = self.ready_tokens(tokens)
        return tuple(block.prepare(tokens) for block in self.blocks)

    def ready_tokens(self, tokens: Tensor) -> Tensor:
        """Return condition tokens in the dtype of the blocks; see `prepare` for errors."""
        width = self.config.condition_width
        if tokens.dim() != 3 or tokens.shape[-1] != width or 0 in tokens.shape:
            raise InputError(f"condition tokens must be (B, M, {width}), got {tuple(tokens.shape)}")
        return tokens.to(linear_dtype(self.blocks))

    def embed_times(self, t: Tensor, d: Tensor | None = None) -> Tensor:
        """Return the embedding (S, C) of times and step sizes (S,), both in thousandths."""
        embedding = self.t_embedder(t)
        return embedding if d is None else embedding + self.d_embedder(d)

    def modulation(self, t: Tensor, d: Tensor | None = None) -> Tensor:
        """Return the modulation of all blocks at all times (S,), (S, blocks, 6, C), float32."""
        layers = (block.adaLN_modulation for block in self.blocks)
        return modulation_table(layers, self.embed_times(t, d))

    def encode(self, latents: Latents) -> dict[str, Tensor]:
        """Return both streams, (B, tokens, C): shape tokens, and the layout tokens in a row."""
        mapping = self.latent_mapping
        layout = [mapping[name].encode(latents[name]) for name in LAYOUT_CHANNELS]
        return {SHAPE: mapping[SHAPE].encode(latents[SHAPE]), LAYOUT: torch.cat(layout, 1)}

    def decode(self, shape: Tensor, layout: Tensor) -> Latents:
        """Return the velocities (B, tokens, channels) from both streams after the last block."""
        velocity = {SHAPE: self.latent_mapping[SHAPE].decode(shape)}
        for name, token in zip(LAYOUT_CHANNELS, layout.split(1, 1), strict=True):
            velocity[name] = self.latent_mapping[name].decode(token)
        return velocity

    def forward(
        self,
        latents: Latents,
        modulation: Tensor,  # (B or 1, blocks, 6, C); one row with `guided`
        condition: Condition,
        *,
        guided: bool = False,
    ) -> Latents:
        """Return the velocity of every latent (B, tokens, channels).

        With `guided` the result is (2 B, tokens, channels): the velocities with the condition,
        then those with tokens that are all zero. Raises `InputError` for wrong names or shapes.
        """
        self.check(latents, modulation, condition, guided=guided)
        streams = self.encode(latents)
        shape, layout = streams[SHAPE], streams[LAYOUT]
        for block, rows, c in zip(self.blocks, modulation.unbind(1), condition, strict=True):
            m = Modulation.of(rows)
            shape, seen = block(SHAPE, shape, m, c[SHAPE], guided=guided)
            layout, _ = block(LAYOUT, layout, m, c[LAYOUT], seen, guided=guided)
        return self.decode(shape, layout)

    def check(
        self, latents: Latents, modulation: Tensor, condition: Condition, *, guided: bool
    ) -> None:
        """Raise `InputError` unless the arguments of `forward` go together."""
        batch = condition[0][SHAPE].tokens.keys.shape[0]
        check_latents(latents, self.config, batch)
        if modulation.shape[0] not in ((1,) if guided else (1, batch)):
            raise InputError(f"modulation for {modulation.shape[0]} times, batch of {batch}")


def check_latents(latents: Latents, config: StructureFlowConfig, batch: int) -> None:
    """Raise `InputError` unless every latent is there with its shape, and no other."""
    wanted = latent_shapes(config)
    unknown = sorted(set(latents) - set(wanted))
    if unknown:
        raise InputError(f"latents {unknown} are unknown; the flow has {list(wanted)}")
    for name, (tokens, channels) in wanted.items():
        if name not in latents:
            raise InputError(f"latent {name!r} is missing; got {sorted(latents)}")
        if tuple(latents[name].shape) != (batch, tokens, channels):
            raise InputError(
                f"latent {name!r} must be {(batch, tokens, channels)}, "
                f"got {tuple(latents[name].shape)}"
            )


class StructureNetwork(Protocol):
    """What the sampler needs of a flow: `StructureFlow`, or one that replays its steps."""

    config: StructureFlowConfig

    def prepare(self, tokens: Tensor) -> Condition:
        """See `StructureFlow.prepare`."""
        ...

    def modulation(self, t: Tensor, d: Tensor | None = None) -> Tensor:
        """See `StructureFlow.modulation`."""
        ...

    def __call__(
        self, latents: Latents, modulation: Tensor, condition: Condition, *, guided: bool = False
    ) -> Latents:
        """See `StructureFlow.forward`."""
        ...


class StructureVelocity:
    """The flow with one request's condition and times, in the form that the sampler calls."""

    def __init__(self, flow: StructureNetwork, tokens: Tensor, steps: tuple[Step, ...]) -> None:
        self.flow = flow
        self.condition = flow.prepare(tokens)
        t = torch.tensor([step.network_time for step in steps], device="cpu")
        d = torch.tensor([step.network_step_size for step in steps], device="cpu")
        self.table = flow.modulation(t, d)  # (S, blocks, 6, C)

    def __call__(self, latents: Latents, step: Step) -> tuple[Latents, Latents | None]:
        """Return the conditional and, for a guided step, the unconditional velocities."""
        rows = self.table[step.index : step.index + 1]
        with fastest_attention():
            velocity = self.flow(latents, rows, self.condition, guided=step.guided)
        if not step.guided:
            return velocity, None
        halves = {name: value.chunk(2) for name, value in velocity.items()}
        return {n: h[0] for n, h in halves.items()}, {n: h[1] for n, h in halves.items()}


@torch.no_grad()
def sample_structure(
    flow: StructureNetwork,
    tokens: Tensor,  # (B, M, condition width)
    noise: Latents,  # see `draw_noise`
    config: SamplerConfig = STAGE1_SAMPLER,
    steps: int | None = None,
) -> Iterator[tuple[Step, Latents]]:
    """Yield every step with the latents after it; the last ones are the result.

    Raises `InputError` for tokens or noise of a wrong shape or with values that are not finite.
    """
    if not bool(tokens.isfinite().all()):
        raise InputError(f"condition tokens {tuple(tokens.shape)} hold values that are not finite")
    velocity = StructureVelocity(flow, tokens, schedule(config, steps))
    yield from sample(velocity, noise, config, steps)


def build_structure_flow(
    config: StructureFlowConfig | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> StructureFlow:
    """Return the flow network without weights, ready for `load_state_dict`.

    The matrix products of the blocks run in `dtype`; embedders, norms, and the input and output
    layers stay in float32.
    """
    with torch.device(device or torch.get_default_device()):
        flow = StructureFlow(config or StructureFlowConfig())
    set_linear_dtype(flow.blocks, dtype)
    return flow.eval()
