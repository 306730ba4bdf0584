"""Stage 2: the flow transformer over the structured latent of the occupied voxels.

Two residual blocks bring the N voxels to the M parents of a grid of half the resolution, where the
transformer runs; two more bring them back. What does not change over the steps is computed once a
request: keys and values of the condition (`prepare`), all modulations (`modulation`), and every
table of the grid. The unconditional pass of guidance sees tokens that are all zero, so its
cross-attention is one constant a layer; up to the first cross-attention it is the conditional
pass, and computed with it.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from sam3d_nb.errors import InputError
from sam3d_nb.model.config import (
    STAGE2_SAMPLER,
    LatentFlowConfig,
    LatentStatistics,
    SamplerConfig,
)
from sam3d_nb.model.constants import constant
from sam3d_nb.model.grid import Grid
from sam3d_nb.model.latent_blocks import LatentBlock, LayerCondition, ResidualBlock, norm
from sam3d_nb.model.layers import (
    OUTPUT_EPS,
    Stack,
    TimestepEmbedder,
    fastest_attention,
    linear_dtype,
    modulation_table,
)
from sam3d_nb.model.sampler import Latents, Step, sample, schedule
from sam3d_nb.model.sparse_conv import set_torso_dtype

CHECKPOINT_PREFIX = "reverse_fn.backbone."  # of every name in the published generator
LATENT = "slat"  # the sampler's name of the latent


Condition = tuple[LayerCondition, ...]  # one entry a block


class LatentModulation(NamedTuple):
    """What S times do to every block."""

    blocks: Tensor  # (S, depth, 6, C), see `layers.Modulation`
    residual: tuple[Tensor, ...]  # (S, 2, width) for each residual block: gain and shift

    def at(self, index: int) -> "LatentModulation":
        """Return the modulation of one time, with S = 1."""
        rows = slice(index, index + 1)
        return LatentModulation(self.blocks[rows], tuple(r[rows] for r in self.residual))


class LatentFlow(nn.Module):
    """Velocity of the structured latent; parameters carry the published names."""

    def __init__(self, config: LatentFlowConfig) -> None:
        super().__init__()
        self.config = config
        narrow, wide = config.io_width, config.width
        self.t_embedder = TimestepEmbedder(wide)
        self.input_layer = nn.Linear(config.channels, narrow)
        self.input_blocks: Stack[ResidualBlock] = Stack(
            [ResidualBlock(narrow, narrow, wide), ResidualBlock(narrow, wide, wide, "down")]
        )
        self.blocks: Stack[LatentBlock] = Stack(LatentBlock(config) for _ in range(config.depth))
        self.out_blocks: Stack[ResidualBlock] = Stack(
            [ResidualBlock(2 * wide, narrow, wide, "up"), ResidualBlock(2 * narrow, narrow, wide)]
        )
        self.out_layer = nn.Linear(narrow, config.channels)

    def prepare(self, tokens: Tensor) -> Condition:
        """Project condition tokens (B, L, condition width) once for all steps.

        Raises `InputError` for another shape.
        """
        width = self.config.condition_width
        if tokens.dim() != 3 or tokens.shape[-1] != width or 0 in tokens.shape:
            raise InputError(f"condition tokens must be (B, L, {width}), got {tuple(tokens.shape)}")
        return tuple(block.prepare(tokens) for block in self.blocks)

    def modulation(self, t: Tensor) -> LatentModulation:
        """Return what the times (S,), in thousandths, do to all blocks."""
        embedding = self.t_embedder(t)  # (S, C)
        layers = (block.adaLN_modulation for block in self.blocks)
        residual = (block.modulation(embedding) for block in self._residual_blocks)
        dtype = linear_dtype(self.blocks)
        return LatentModulation(
            modulation_table(layers, embedding).to(dtype), tuple(r.to(dtype) for r in residual)
        )

    @property
    def _residual_blocks(self) -> list[ResidualBlock]:
        return [*self.input_blocks, *self.out_blocks]

    def forward(
        self,
        x: Tensor,  # (N, channels)
        modulation: LatentModulation,  # S = 1, or B without `guided`
        condition: Condition,
        grid: Grid,  # of the N voxels; B batch items
        *,
        guided: bool = False,
    ) -> Tensor:
        """Return the velocity (N, channels), float32.

        With `guided` the result is (2 N, channels): the velocity with the condition, then that
        with tokens that are all zero. Raises `InputError` for shapes that do not go together.
        """
        self.check(x, modulation, condition, grid, guided=guided)
        mods = modulation.residual
        x = self.input_layer(x.to(self.input_layer.weight.dtype)).to(linear_dtype(self.blocks))
        first, second = self.input_blocks
        fine = first(x, mods[0], grid)  # (N, io_width)
        coarse = second(fine, mods[1], grid)  # (M, C)
        h = self._transform(coarse, modulation.blocks, condition, grid, guided=guided)
        if guided:
            grid, coarse, fine = grid.doubled, coarse.repeat(2, 1), fine.repeat(2, 1)
        third, last = self.out_blocks
        h = third(torch.cat([h, coarse], 1), mods[2], grid)
        h = last(torch.cat([h, fine], 1), mods[3], grid)  # (N or 2 N, io_width)
        return self.out_layer(norm(h.to(self.out_layer.weight.dtype), OUTPUT_EPS)).float()

    def _transform(
        self, x: Tensor, modulation: Tensor, condition: Condition, grid: Grid, *, guided: bool
    ) -> Tensor:
        """Run the transformer on the parents' features (M, C); with `guided` return (2 M, C)."""
        parents = grid.parents.grid
        x = x + parents.positions(x.shape[1]).to(x.dtype)
        h, mask = parents.pad_items(x)  # (B, longest item, C)
        pending = None
        for block, rows, c in zip(self.blocks, modulation.unbind(1), condition, strict=True):
            h, pending = block(h, rows, c, mask, pending, guided=guided)
        if pending is not None:
            h = pending.add_to(h)
        passes = h.unflatten(0, (-1, len(grid.items)))  # (1 or 2, B, longest item, C)
        return torch.cat([parents.unpad_items(one) for one in passes])

    def check(
        self,
        x: Tensor,
        modulation: LatentModulation,
        condition: Condition,
        grid: Grid,
        *,
        guided: bool,
    ) -> None:
        """Raise `InputError` unless the arguments of `forward` go together."""
        if grid.resolution != self.config.resolution:
            raise InputError(
                f"the grid has resolution {grid.resolution}, the flow {self.config.resolution}"
            )
        grid.check_rows(x, self.config.channels)
        items, tokens = len(grid.items), condition[0].tokens.keys.shape[0]
        if tokens != items:
            raise InputError(f"condition tokens for {tokens} batch items, voxels for {items}")
        if modulation.blocks.shape[0] not in ((1,) if guided else (1, items)):
            raise InputError(f"modulation for {modulation.blocks.shape[0]} times, {items} items")


class LatentNetwork(Protocol):
    """What the sampler needs of a flow: `LatentFlow`, or one that replays its steps."""

    config: LatentFlowConfig

    def prepare(self, tokens: Tensor) -> Condition:
        """See `LatentFlow.prepare`."""
        ...

    def modulation(self, t: Tensor) -> LatentModulation:
        """See `LatentFlow.modulation`."""
        ...

    def __call__(
        self,
        x: Tensor,
        modulation: LatentModulation,
        condition: Condition,
        grid: Grid,
        *,
        guided: bool = False,
    ) -> Tensor:
        """See `LatentFlow.forward`."""
        ...


class LatentVelocity:
    """The flow with one request's condition, times and voxels, as the sampler calls it."""

    def __init__(
        self, flow: LatentNetwork, tokens: Tensor, grid: Grid, steps: tuple[Step, ...]
    ) -> None:
        self.flow = flow
        self.grid = grid
        make_tables(grid, flow.config.width, guided=any(step.guided for step in steps))
        times = torch.tensor([step.network_time for step in steps], device="cpu")
        self.condition = flow.prepare(tokens)
        self.table = flow.modulation(times)

    def __call__(self, latents: Latents, step: Step) -> tuple[Latents, Latents | None]:
        """Return the conditional and, for a guided step, the unconditional velocity."""
        state = latents[LATENT]  # (1, N, channels)
        mods = self.table.at(step.index)
        with fastest_attention():
            v = self.flow(state[0], mods, self.condition, self.grid, guided=step.guided)
        conditional, *unconditional = ({LATENT: half} for half in v.split(state.shape[1]))
        return conditional, unconditional[0] if unconditional else None


def make_tables(grid: Grid, width: int, *, guided: bool) -> None:
    """Make every table that a flow of `width` reads, so that no step has to wait for one."""
    parents = grid.parents.grid
    _ = grid.neighbors, parents.neighbors, grid.parent_taps
    parents.positions(width)
    if len(parents.items) > 1:
        _ = parents.whole_items.whole, parents.whole_items.whole_slot
    if guided:
        _ = grid.doubled.neighbors, grid.doubled.parent_taps


def draw_noise(grid: Grid, channels: int = 8, generator: torch.Generator | None = None) -> Tensor:
    """Draw the standard-normal start (1, N, channels), float32, in the row order of the grid.

    The numbers come from `generator` on its own device, or from the global one of the grid's.
    """
    source = generator.device if generator is not None else grid.device
    noise = torch.randn(1, len(grid), channels, generator=generator, device=source)
    return noise.to(grid.device)


@torch.no_grad()
def sample_latent(
    flow: LatentNetwork,
    tokens: Tensor,  # (1, L, condition width)
    grid: Grid,  # N voxels
    noise: Tensor,  # (1, N, channels), see `draw_noise`
    config: SamplerConfig = STAGE2_SAMPLER,
    steps: int | None = None,
) -> Iterator[tuple[Step, Tensor]]:
    """Yield every step with the normalized latent (N, channels) after it.

    `denormalize` turns the last one into what the decoders take. Raises `InputError` for tokens or
    noise of a wrong shape or with values that are not finite.
    """
    if not bool(tokens.isfinite().all()):
        raise InputError(f"condition tokens {tuple(tokens.shape)} hold values that are not finite")
    wanted = (1, len(grid), flow.config.channels)
    if tuple(noise.shape) != wanted:
        raise InputError(f"noise must be {wanted} for this grid, got {tuple(noise.shape)}")
    velocity = LatentVelocity(flow, tokens, grid, schedule(config, steps))
    for step, latents in sample(velocity, {LATENT: noise}, config, steps):
        yield step, latents[LATENT][0]


def denormalize(latent: Tensor, statistics: LatentStatistics | None = None) -> Tensor:
    """Return the sampled latent (N, channels) times the channels' deviations plus their means."""
    statistics = statistics or LatentStatistics()
    if latent.shape[-1] != len(statistics.mean):
        raise InputError(
            f"latent has shape {tuple(latent.shape)}, statistics {len(statistics.mean)} channels"
        )
    table = (tuple(statistics.mean), tuple(statistics.std))
    mean, std = constant(table, latent.device, torch.float32)
    return latent.float() * std + mean


def build_latent_flow(
    config: LatentFlowConfig | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> LatentFlow:
    """Return the flow network without weights, ready for `load_state_dict`.

    Transformer and residual blocks run in `dtype`; time embedder, norms' parameters, and the input
    and output layers stay in float32.
    """
    with torch.device(device or torch.get_default_device()):
        flow = LatentFlow(config or LatentFlowConfig())
    set_torso_dtype([flow.input_blocks, flow.blocks, flow.out_blocks], dtype)
    return flow.eval()
