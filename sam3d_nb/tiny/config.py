"""Hyper-parameters of `tiny`: the published network at a size that a laptop runs in seconds.

Voxels are 32 a side, decoded from an 8³ latent; inputs are 112 px. What differs besides the sizes:
shapes are in the axes of the camera (`LayoutConfig.frame`), distances count in units of the object
(`PreprocessConfig.unit`), stage 2 sees the point map as well, guidance is off, and the structured
latent is eight measured numbers a voxel (`training.targets`), so it needs no encoder.
"""

from sam3d_nb.model.config import (
    ConditionConfig,
    ConditionRow,
    CoordsConfig,
    GaussianConfig,
    LatentFlowConfig,
    LatentStatistics,
    LayoutConfig,
    MeshDecoderConfig,
    MogeConfig,
    PointEmbedConfig,
    PreprocessConfig,
    SamplerConfig,
    SplatDecoderConfig,
    StructureDecoderConfig,
    StructureFlowConfig,
    TrunkConfig,
    VisionConfig,
)
from sam3d_nb.weights.config import ModelConfig

SIZE = 112  # px
VOXELS = 32  # a side
WIDTH = 192  # of the condition tokens

IMAGE_VISION = VisionConfig(WIDTH, depth=6, heads=6, patch=8, image_size=SIZE, registers=0)
MASK_VISION = VisionConfig(WIDTH, depth=2, heads=6, patch=8, image_size=SIZE, registers=0)
POINTS = PointEmbedConfig(width=96, heads=4, input_size=SIZE // 2, patch=4)
ROWS = (
    ConditionRow("image", network=0, group=0),
    ConditionRow("rgb_image", network=0, group=1),
    ConditionRow("mask", network=1, group=0),
    ConditionRow("pointmap", network=2, group=0),
)
NETWORKS = (IMAGE_VISION, MASK_VISION, POINTS)

TRUNK = TrunkConfig(width=160, depth=3, heads=5, resolution=VOXELS)
SPLAT_TRUNK = TrunkConfig(width=128, depth=3, heads=4, resolution=VOXELS)
GAUSSIANS = GaussianConfig(per_voxel=8, kernel_size=0.003, scale_bias=0.01)

TINY = ModelConfig(
    preprocess=PreprocessConfig(size=SIZE, unit="object"),
    moge=MogeConfig(
        vision=IMAGE_VISION,
        projection_width=96,
        level_widths=(64, 32, 16),
        hidden_factor=1,
        blocks_per_level=1,
        output_width=16,
        token_range=(196, 196),
    ),
    condition_stage1=ConditionConfig(NETWORKS, ROWS, prenorm=False),
    structure_flow=StructureFlowConfig(
        WIDTH, depth=6, heads=6, mlp_ratio=2, condition_width=WIDTH, resolution=8
    ),
    stage1_sampler=SamplerConfig(steps=4, guidance=0.0),
    structure_decoder=StructureDecoderConfig(widths=(64, 32, 16)),
    coords=CoordsConfig(prune_distance=0, limit=VOXELS**3),
    layout=LayoutConfig(
        rotation_mean=(-1.0, 0.0, 0.0, 0.0, 0.0, 1.0), rotation_std=(0.3,) * 6, frame="view"
    ),
    condition_stage2=ConditionConfig(NETWORKS, ROWS, prenorm=True),
    latent_flow=LatentFlowConfig(
        160,
        depth=4,
        heads=5,
        mlp_ratio=2,
        condition_width=WIDTH,
        io_width=40,
        resolution=VOXELS,
    ),
    stage2_sampler=SamplerConfig(steps=6, rescale=1.0, guidance=0.0, grid="float32"),
    latent=LatentStatistics(mean=(0.0,) * 8, std=(1.0,) * 8),
    splat_decoder=SplatDecoderConfig(SPLAT_TRUNK, GAUSSIANS),
    splat_decoder_4=SplatDecoderConfig(SPLAT_TRUNK, GaussianConfig(4, 1.5, 0.003, 0.014)),
    mesh_decoder=MeshDecoderConfig(TRUNK, groups=4, interior="filled"),
)
