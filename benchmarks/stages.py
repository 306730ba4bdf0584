"""The stages of the network at published sizes, with stand-in weights, ready to be timed.

Weights follow the rule of `tests/model/weights.py` in distribution, but are drawn on the device
(seconds, not minutes), so numbers differ from those of the golden files. They give no meaningful
occupancy or surface: stage 2 runs on the coordinate set of `voxels.py`, and extraction runs both
on the meaningless field, which crosses nearly every cell, and on a field of that set's own shape.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from standins import fill, shape_distance, with_distance
from torch import Tensor
from torch.nn import functional as F
from voxels import timing_voxels

from sam3d_nb.model import config
from sam3d_nb.model.accelerate import accelerate
from sam3d_nb.model.cache import SceneCache
from sam3d_nb.model.conditioning import (
    build_condition_embedder,
    condition_tokens,
    share_backbones,
)
from sam3d_nb.model.flexicubes import Surface
from sam3d_nb.model.grid import Grid
from sam3d_nb.model.latent_flow import (
    LATENT,
    LatentFlow,
    LatentVelocity,
    build_latent_flow,
    denormalize,
)
from sam3d_nb.model.mesh_decoder import MeshDecoder, build_mesh_decoder
from sam3d_nb.model.moge import build_moge
from sam3d_nb.model.pointmap import tokens_at_level
from sam3d_nb.model.sampler import Latents, Step, Velocity, sample, schedule
from sam3d_nb.model.splat_decoder import build_splat_decoder
from sam3d_nb.model.structure_decoder import build_structure_decoder
from sam3d_nb.model.structure_flow import (
    StructureFlow,
    StructureVelocity,
    build_structure_flow,
    draw_noise,
)
from sam3d_nb.model.surface import mesh_from_features
from sam3d_nb.model.vision import VisionTransformer

Run = Callable[[], object]
Parts = list[tuple[int, Run]]  # a run as parts, and how often each of them runs
STAGE1_TOKENS, STAGE2_TOKENS = 7528, 5496
PHOTO = (768, 1024)  # px, height and width of the photo for the point map


@dataclass(frozen=True)
class Setting:
    """Where and how a stage runs."""

    device: torch.device
    dtype: torch.dtype
    mode: str = "eager"  # or "accelerated", for the flows
    small: bool = False  # tiny configurations, for tests
    steps: int = 25

    def randn(self, *shape: int, seed: int = 0) -> Tensor:
        """Draw float32 numbers that depend on shape, seed and device only."""
        generator = torch.Generator(self.device).manual_seed(seed)
        return torch.randn(*shape, generator=generator, device=self.device)

    def tokens(self, count: int, width: int) -> Tensor:
        """Return condition tokens (1, count, width)."""
        return self.randn(1, 64 if self.small else count, width, seed=1)


@dataclass(frozen=True)
class Stage:
    """One row of the table."""

    name: str
    build: Callable[[Setting], Run]
    accelerates: bool = False  # has the mode "accelerated" as well
    parts: Callable[[Setting], Parts] | None = None  # of a long run
    goal: float | None = None  # seconds on an H100
    official: float | None = None  # seconds of the official code on an H100: float16, eager
    memory_goal: float | None = None  # GiB
    comparable: bool = True  # the result has the same shape in every precision


# --- Conditioning and point map -------------------------------------------------------------


def eight_passes(s: Setting) -> Run:
    vision = config.SMALL_VISION if s.small else config.VisionConfig()
    network = fill(VisionTransformer(vision).to(s.device, s.dtype))
    image = s.randn(1, 3, vision.image_size, vision.image_size)
    return lambda: [network(image) for _ in range(8)][-1]


def both_stages_tokens(s: Setting) -> Run:
    """All condition tokens of an object; equal backbones and equal images meet once."""
    stages = (config.STAGE1_CONDITION, config.STAGE2_CONDITION)
    if s.small:
        stages = (config.SMALL_STAGE1_CONDITION, config.SMALL_STAGE2_CONDITION)
    first, second = (
        fill(build_condition_embedder(stage).to(s.device, s.dtype)) for stage in stages
    )
    second.load_state_dict(first.state_dict(), strict=False)  # the same backbones in both
    if share_backbones(first, second) != 2:
        raise RuntimeError("the two stages' backbones were not shared")
    side = (config.SMALL_VISION if s.small else config.VisionConfig()).image_size
    inputs = {name: s.randn(1, 3, side, side).sigmoid() for name in ("image", "rgb_image")}
    inputs |= {n: (s.randn(1, 1, side, side) > 0).float() for n in ("mask", "rgb_image_mask")}
    inputs |= {name: s.randn(1, 3, side, side) for name in ("pointmap", "rgb_pointmap")}
    inputs["rgb_image"], inputs["rgb_image_mask"] = (
        inputs["image"].flip(-1),
        inputs["mask"].flip(-1),
    )

    def run() -> list[Tensor]:
        cache = SceneCache()
        tokens = condition_tokens([first, second], inputs, cache)
        if cache.computed != 4:
            raise RuntimeError(f"{cache.computed} DINOv2 passes instead of 4")
        return tokens

    return run


def point_map(s: Setting) -> Run:
    published = config.SMALL_MOGE if s.small else config.MogeConfig()
    network = fill(build_moge(published).to(s.device, s.dtype))
    height, width = (48, 64) if s.small else PHOTO
    image = s.randn(3, height, width).sigmoid()
    tokens = tokens_at_level(published.token_range, 9)
    return lambda: network(image, tokens)


# --- Stage 1 --------------------------------------------------------------------------------


def structure_flow(s: Setting) -> Run:
    plain, tokens, noise = _structure_flow(s)
    flow = accelerate(plain) if s.mode == "accelerated" else plain
    sampler = replace(config.STAGE1_SAMPLER, steps=s.steps)

    def run() -> Latents:
        velocity = StructureVelocity(flow, tokens, schedule(sampler))
        *_, (_, latents) = sample(velocity, noise, sampler)
        return latents

    return run


def structure_parts(s: Setting) -> Parts:
    flow, tokens, noise = _structure_flow(s)
    steps = schedule(replace(config.STAGE1_SAMPLER, steps=s.steps))
    return _parts(lambda: StructureVelocity(flow, tokens, steps), noise, steps)


def structure_velocity(s: Setting) -> Run:
    """One plain evaluation, half-way."""
    flow, tokens, noise = _structure_flow(s)
    step = _half_way(config.STAGE1_SAMPLER)
    return lambda: StructureVelocity(flow, tokens, (step,))(noise, step)[0]


def _structure_flow(s: Setting) -> tuple[StructureFlow, Tensor, Latents]:
    published = config.SMALL_STRUCTURE_FLOW if s.small else config.StructureFlowConfig()
    flow = build_structure_flow(published, dtype=s.dtype, device=s.device)
    fill(flow)
    tokens = s.tokens(STAGE1_TOKENS, published.condition_width)
    noise = draw_noise(published, torch.Generator(s.device).manual_seed(2), device=s.device)
    return flow, tokens, noise


def _parts(prepare: Callable[[], Velocity], noise: Latents, steps: tuple[Step, ...]) -> Parts:
    """Split a sampling run into its preparation, its guided steps and its plain ones."""
    velocity = prepare()
    parts: Parts = [(1, prepare)]
    for guided in (True, False):
        kind = [step for step in steps if step.guided == guided]
        if kind:
            parts.append((len(kind), partial(velocity, noise, kind[0])))
    return parts


def _half_way(sampler: config.SamplerConfig) -> Step:
    """Return an unguided step at t = 1/2 that is the only row of its modulation table."""
    middle = schedule(replace(sampler, guidance=0.0, rescale=1.0, steps=2))[1]
    return replace(middle, index=0)


def structure_decoder(s: Setting) -> Run:
    published = config.SMALL_STRUCTURE_DECODER if s.small else config.StructureDecoderConfig()
    decoder = fill(build_structure_decoder(published, dtype=s.dtype, device=s.device))
    side = 4 if s.small else 16
    latent = s.randn(1, published.channels, side, side, side)
    return lambda: decoder(latent)


# --- Stage 2 --------------------------------------------------------------------------------


def voxels(s: Setting, resolution: int) -> Tensor:
    """Return the coordinates (N, 4) for timings, coarser where `resolution` is not 64."""
    xyz = torch.as_tensor(timing_voxels()) * resolution // 64
    return F.pad(torch.unique(xyz, dim=0), (1, 0)).int().to(s.device)


def latent_flow(s: Setting) -> Run:
    plain, tokens, noise, coords = _latent_flow(s)
    flow = accelerate(plain) if s.mode == "accelerated" else plain
    sampler = replace(config.STAGE2_SAMPLER, steps=s.steps)

    def run() -> Tensor:
        grid = Grid(coords, flow.config.resolution)  # its tables are part of a request
        velocity = LatentVelocity(flow, tokens, grid, schedule(sampler))
        *_, (_, latents) = sample(velocity, noise, sampler)
        return latents[LATENT]

    return run


def latent_parts(s: Setting) -> Parts:
    flow, tokens, noise, coords = _latent_flow(s)
    steps = schedule(replace(config.STAGE2_SAMPLER, steps=s.steps))
    grid = Grid(coords, flow.config.resolution)
    return _parts(lambda: LatentVelocity(flow, tokens, grid, steps), noise, steps)


def latent_velocity(s: Setting) -> Run:
    """One plain evaluation, half-way."""
    flow, tokens, noise, coords = _latent_flow(s)
    step, grid = _half_way(config.STAGE2_SAMPLER), Grid(coords, flow.config.resolution)
    return lambda: LatentVelocity(flow, tokens, grid, (step,))(noise, step)[0]


def _latent_flow(s: Setting) -> tuple[LatentFlow, Tensor, Latents, Tensor]:
    published = config.SMALL_LATENT_FLOW if s.small else config.LatentFlowConfig()
    flow = build_latent_flow(published, dtype=s.dtype, device=s.device)
    fill(flow)
    tokens = s.tokens(STAGE2_TOKENS, published.condition_width)
    coords = voxels(s, published.resolution)
    noise = s.randn(1, len(coords), published.channels, seed=2)
    return flow, tokens, {LATENT: noise}, coords


def _decoder_input(s: Setting, trunk: config.TrunkConfig) -> tuple[Tensor, Tensor]:
    coords = voxels(s, trunk.resolution)
    return denormalize(s.randn(len(coords), trunk.channels, seed=2)), coords


def splat_decoder(published: config.SplatDecoderConfig) -> Callable[[Setting], Run]:
    def build(s: Setting) -> Run:
        used = config.SMALL_SPLAT_DECODER if s.small else published
        decoder = fill(build_splat_decoder(used, dtype=s.dtype, device=s.device))
        latent, coords = _decoder_input(s, used.trunk)
        return lambda: decoder(latent, Grid(coords, used.trunk.resolution))

    return build


def _mesh_decoder(s: Setting) -> tuple[MeshDecoder, Tensor, Callable[[], Grid]]:
    published = config.SMALL_MESH_DECODER if s.small else config.MeshDecoderConfig()
    decoder = build_mesh_decoder(published, dtype=s.dtype, device=s.device)
    fill(decoder)
    latent, coords = _decoder_input(s, published.trunk)
    return decoder, latent, lambda: Grid(coords, published.trunk.resolution)


def mesh_features(s: Setting) -> Run:
    decoder, latent, grid = _mesh_decoder(s)
    return lambda: decoder.hidden(latent, grid())[0]


def mesh_of_noise(s: Setting) -> Run:
    """The released path on the field of the stand-in weights: nearly every cell is crossed."""
    decoder, latent, grid = _mesh_decoder(s)
    return lambda: decoder.decode(latent, grid())


def mesh_of_shape(s: Setting) -> Run:
    """The same work, but with the signed distance of the voxels' own shape put in."""
    decoder, latent, grid = _mesh_decoder(s)
    distance = shape_distance(grid().subdivided.subdivided)  # (64 N, 8)

    def run() -> Surface:
        hidden, fine = decoder.hidden(latent, grid())
        head = with_distance(decoder.head(hidden), distance)
        return mesh_from_features(fine.xyz, head, fine.resolution)

    return run


STAGES = (
    Stage("point map (MoGe)", point_map),
    Stage("eight DINOv2 passes", eight_passes, official=0.067),
    Stage("condition tokens of both stages", both_stages_tokens),
    Stage("stage-1 flow", structure_flow, True, structure_parts, goal=0.70, official=2.59),
    Stage("sparse-structure decoder", structure_decoder, official=0.007),
    Stage("stage-2 flow", latent_flow, True, latent_parts, goal=0.55, official=1.87),
    Stage(
        "gaussian decoder, 32", splat_decoder(config.SPLAT_DECODER_32), goal=0.05, official=0.147
    ),
    Stage("gaussian decoder, 4", splat_decoder(config.SPLAT_DECODER_4)),
    Stage("mesh decoder, features only", mesh_features),
    Stage(
        "mesh decoder, shape's field",
        mesh_of_shape,
        goal=0.15,
        memory_goal=3,
        official=0.223,
        comparable=False,
    ),
    Stage(
        "mesh decoder, random field",
        mesh_of_noise,
        goal=0.15,
        memory_goal=3,
        official=0.223,
        comparable=False,
    ),
)

PROBES = (
    *(stage for stage in STAGES if stage.comparable and "flow" not in stage.name),
    Stage("stage-1 flow, one velocity", structure_velocity),
    Stage("stage-1 flow, sampled", structure_flow),
    Stage("stage-2 flow, one velocity", latent_velocity),
    Stage("stage-2 flow, sampled", latent_flow),
)
"""What half precision is compared with float32 on."""
