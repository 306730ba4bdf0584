"""Hyper-parameters of every network, with the released values as defaults."""

from dataclasses import dataclass
from typing import Literal

# --- Conditioning: image, mask and point map to tokens --------------------------------------


@dataclass(frozen=True)
class PreprocessConfig:
    """How an image, its mask and its point map become network inputs."""

    size: int = 518  # px; side of every network input
    box_factor: float = 1.2  # side of the square crop / longer side of the mask's box
    unit: Literal["scene", "object"] = "scene"  # over what the median distance is that counts as 1


@dataclass(frozen=True)
class VisionConfig:
    """A DINOv2 vision transformer; the defaults are ViT-L/14 with registers."""

    width: int = 1024
    depth: int = 24
    heads: int = 16
    mlp_ratio: int = 4
    patch: int = 14  # px
    image_size: int = 518  # px; the square image that the stored position table belongs to
    registers: int = 4  # 0 in the point-map network


@dataclass(frozen=True)
class PointEmbedConfig:
    """The patch embedder of point maps."""

    width: int = 512
    heads: int = 16
    mlp_ratio: int = 2
    input_size: int = 256  # px; the point map is resized to this square first
    patch: int = 8  # px


@dataclass(frozen=True)
class ConditionRow:
    """One block of condition tokens: which input goes through which network."""

    input: str  # name of the preprocessed tensor
    network: int  # index into `networks`, and of the projection behind it
    group: int  # row of the learned index embedding: 0 cropped view, 1 full view


@dataclass(frozen=True)
class ConditionConfig:
    """A condition embedder: networks, and the token blocks in their order."""

    networks: tuple[VisionConfig | PointEmbedConfig, ...]
    rows: tuple[ConditionRow, ...]
    prenorm: bool  # take DINOv2's tokens before its final norm, registers included
    hidden_factor: float = 4.0  # hidden width of the projections, in token widths, before 2/3

    @property
    def width(self) -> int:
        """Width of the condition tokens: that of the widest network."""
        return max(network.width for network in self.networks)


IMAGE_ROWS = (
    ConditionRow("image", network=0, group=0),
    ConditionRow("rgb_image", network=0, group=1),
    ConditionRow("mask", network=1, group=0),
    ConditionRow("rgb_image_mask", network=1, group=1),
)
POINT_ROWS = (
    ConditionRow("pointmap", network=2, group=0),
    ConditionRow("rgb_pointmap", network=2, group=1),
)

STAGE1_CONDITION = ConditionConfig(
    networks=(VisionConfig(), VisionConfig(), PointEmbedConfig()),
    rows=IMAGE_ROWS + POINT_ROWS,
    prenorm=False,
)
STAGE2_CONDITION = ConditionConfig(
    networks=(VisionConfig(), VisionConfig()), rows=IMAGE_ROWS, prenorm=True
)

SMALL_PREPROCESS = PreprocessConfig(size=98)
SMALL_VISION = VisionConfig(width=64, depth=2, heads=4, image_size=98)
SMALL_STAGE1_CONDITION = ConditionConfig(
    networks=(SMALL_VISION, SMALL_VISION, PointEmbedConfig(width=48, input_size=64)),
    rows=IMAGE_ROWS + POINT_ROWS,
    prenorm=False,
)
SMALL_STAGE2_CONDITION = ConditionConfig(
    networks=(SMALL_VISION, SMALL_VISION), rows=IMAGE_ROWS, prenorm=True
)


# --- Point map: MoGe v1 ---------------------------------------------------------------------

Remap = Literal["linear", "sinh", "exp", "sinh_exp"]


@dataclass(frozen=True)
class MogeConfig:
    """The MoGe v1 point-map network; the defaults are the released ViT-L model."""

    vision: VisionConfig = VisionConfig(registers=0)
    intermediate_layers: int | tuple[int, ...] = 4  # the last n blocks, or block indices
    projection_width: int = 512
    level_widths: tuple[int, ...] = (256, 128, 64)  # each level doubles the resolution
    hidden_factor: int = 2  # hidden width of a residual block, in channels
    blocks_per_level: int = 2
    block_norm: Literal["group_norm", "layer_norm"] = "group_norm"
    output_blocks: int = 0  # residual blocks inside each output block
    output_width: int = 32
    output_kernel: int = 1
    remap: Remap = "exp"
    mask_threshold: float = 0.5  # on the raw mask
    token_range: tuple[int, int] = (1275, 2551)  # image tokens at resolution levels 0 and 9


SMALL_MOGE = MogeConfig(
    vision=VisionConfig(width=48, depth=6, heads=3, registers=0),
    projection_width=40,
    level_widths=(64, 32, 16),
    output_width=16,
    token_range=(40, 91),
)


# --- Sampler, both stages -------------------------------------------------------------------


@dataclass(frozen=True)
class SamplerConfig:
    """Euler steps from noise to data with classifier-free guidance; stage 1 as released."""

    steps: int = 25
    rescale: float = 3.0  # t = u / (1 + (rescale - 1)(1 - u)); 0 or 1 leaves times even
    guidance: float = 7.0  # s in (1 + s) v_conditional - s v_unconditional; 0 is off
    interval: tuple[float, float] | None = (0.0, 500.0)  # where guidance acts; in 1000 t
    shortcut: bool = False  # few steps: step size 1 / steps to the network, no guidance
    grid: Literal["float64", "float32"] = "float64"  # in which the times are computed


STAGE1_SAMPLER = SamplerConfig()
STAGE2_SAMPLER = SamplerConfig(rescale=1.0, guidance=1.0, grid="float32")


# --- Stage 1: voxels and layout -------------------------------------------------------------


@dataclass(frozen=True)
class StructureFlowConfig:
    """The two-stream flow transformer over shape and layout tokens."""

    width: int = 1024
    depth: int = 24
    heads: int = 16
    mlp_ratio: int = 4
    condition_width: int = 1024
    resolution: int = 16  # side of the latent grid: resolution³ shape tokens
    channels: int = 8  # of a shape token


@dataclass(frozen=True)
class StructureDecoderConfig:
    """The dense convolutional decoder from the shape latent to occupancy logits."""

    widths: tuple[int, ...] = (512, 128, 32)  # each level but the first doubles the resolution
    level_blocks: int = 2  # residual blocks a level
    middle_blocks: int = 2
    channels: int = 8  # of the latent
    outputs: int = 1


@dataclass(frozen=True)
class CoordsConfig:
    """How occupied voxels become the coordinate set of stage 2."""

    prune_distance: int = 1  # voxels; interior ones are dropped, 0 keeps all
    limit: int = 42_000  # more voxels than this are halved in resolution


@dataclass(frozen=True)
class LayoutConfig:
    """Statistics that undo the normalization of the six-number rotation, and the voxels' frame.

    frame: voxels stand in the object's own z-up frame, as released, or in that of the view (x
    right, y away from the camera, z up in the photo); the rotation then only tells what is up.
    """

    frame: Literal["object", "view"] = "object"

    rotation_mean: tuple[float, ...] = (
        -0.06366084883674913,
        0.008438224692279752,
        0.00017084786438302483,
        0.0007126610473540038,
        -0.0030916726538816417,
        0.5166093753457688,
    )
    rotation_std: tuple[float, ...] = (
        0.6656971967514863,
        0.6787012271867754,
        0.30345010594844524,
        0.4394504420678794,
        0.39817973931717104,
        0.6176286868761914,
    )


SMALL_STRUCTURE_FLOW = StructureFlowConfig(
    width=64, depth=2, heads=4, condition_width=64, resolution=4
)
SMALL_STRUCTURE_DECODER = StructureDecoderConfig(widths=(32, 16, 8))


# --- Stage 2: structured latent -------------------------------------------------------------


@dataclass(frozen=True)
class LatentFlowConfig:
    """The flow transformer over the structured latent."""

    width: int = 1024
    depth: int = 24
    heads: int = 16
    mlp_ratio: int = 4
    condition_width: int = 1024
    io_width: int = 128  # of the residual blocks at full resolution
    channels: int = 8  # of the latent of a voxel
    resolution: int = 64  # voxels a side; the transformer runs at half of it


@dataclass(frozen=True)
class LatentStatistics:
    """What undoes the normalization of the sampled latent, channel by channel."""

    mean: tuple[float, ...] = (
        *(0.12211431, 0.37204156, -1.26521907, -2.05276058),
        *(-3.10432536, -0.11294304, -0.85146744, 0.45506954),
    )
    std: tuple[float, ...] = (
        *(2.37326008, 2.13174402, 2.2413953, 2.30589401),
        *(2.1191894, 1.8969511, 2.41684989, 2.08374642),
    )


@dataclass(frozen=True)
class TrunkConfig:
    """The windowed transformer that the decoders of the structured latent share."""

    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: int = 4
    window: int = 8  # voxels a side; odd blocks shift it by half
    channels: int = 8  # of the latent of a voxel
    resolution: int = 64  # voxels a side


@dataclass(frozen=True)
class GaussianConfig:
    """How a gaussian decoder's channels become gaussians."""

    per_voxel: int = 32
    voxel_size: float = 1.5  # reach of a gaussian around its voxel, in voxels
    kernel_size: float = 0.0009  # smallest standard deviation, in sides of the unit cube
    scale_bias: float = 0.004  # scale of a raw value of 0
    opacity_bias: float = 0.1  # opacity of a raw value of 0
    rotation_rate: float = 0.1  # multiplier of the raw rotation


@dataclass(frozen=True)
class SplatDecoderConfig:
    """A gaussian decoder; the defaults are the one with 32 gaussians a voxel."""

    trunk: TrunkConfig = TrunkConfig()
    gaussians: GaussianConfig = GaussianConfig()


@dataclass(frozen=True)
class MeshDecoderConfig:
    """The mesh decoder: the trunk, then two subdivisions that each double the resolution."""

    trunk: TrunkConfig = TrunkConfig()
    divisors: tuple[int, ...] = (4, 8)  # width of each subdivision, as a part of the trunk's
    groups: int = 32  # of the group norms
    interior: Literal["open", "filled"] = "open"  # what vertices count as that no voxel touches:
    # outside, as released, or inside where the voxels enclose them


SPLAT_DECODER_32 = SplatDecoderConfig()
SPLAT_DECODER_4 = SplatDecoderConfig(gaussians=GaussianConfig(per_voxel=4))

SMALL_LATENT_FLOW = LatentFlowConfig(
    width=64, depth=2, heads=4, condition_width=64, io_width=32, resolution=16
)
SMALL_TRUNK = TrunkConfig(width=96, depth=2, heads=4, resolution=16)
SMALL_SPLAT_DECODER = SplatDecoderConfig(SMALL_TRUNK, GaussianConfig(per_voxel=8))
SMALL_MESH_DECODER = MeshDecoderConfig(SMALL_TRUNK, groups=4)
