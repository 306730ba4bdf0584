"""All hyper-parameters of one model, and their form in a JSON file."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from sam3d_nb.errors import WeightsError
from sam3d_nb.model.config import (
    SMALL_LATENT_FLOW,
    SMALL_MESH_DECODER,
    SMALL_MOGE,
    SMALL_PREPROCESS,
    SMALL_SPLAT_DECODER,
    SMALL_STAGE1_CONDITION,
    SMALL_STAGE2_CONDITION,
    SMALL_STRUCTURE_DECODER,
    SMALL_STRUCTURE_FLOW,
    SPLAT_DECODER_4,
    SPLAT_DECODER_32,
    STAGE1_CONDITION,
    STAGE1_SAMPLER,
    STAGE2_CONDITION,
    STAGE2_SAMPLER,
    ConditionConfig,
    CoordsConfig,
    GaussianConfig,
    LatentFlowConfig,
    LatentStatistics,
    LayoutConfig,
    MeshDecoderConfig,
    MogeConfig,
    PreprocessConfig,
    SamplerConfig,
    SplatDecoderConfig,
    StructureDecoderConfig,
    StructureFlowConfig,
)

T = TypeVar("T")


@dataclass(frozen=True)
class ModelConfig:
    """Every network and every setting between them; the defaults are the released model.

    Networks that depend on each other must agree in width: the condition embedders with the flows,
    the structure flow's latent with the structure decoder, the latent with the decoders.
    """

    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    moge: MogeConfig = field(default_factory=MogeConfig)
    condition_stage1: ConditionConfig = STAGE1_CONDITION
    structure_flow: StructureFlowConfig = field(default_factory=StructureFlowConfig)
    stage1_sampler: SamplerConfig = STAGE1_SAMPLER
    structure_decoder: StructureDecoderConfig = field(default_factory=StructureDecoderConfig)
    coords: CoordsConfig = field(default_factory=CoordsConfig)
    layout: LayoutConfig = field(default_factory=LayoutConfig)
    condition_stage2: ConditionConfig = STAGE2_CONDITION
    latent_flow: LatentFlowConfig = field(default_factory=LatentFlowConfig)
    stage2_sampler: SamplerConfig = STAGE2_SAMPLER
    latent: LatentStatistics = field(default_factory=LatentStatistics)
    splat_decoder: SplatDecoderConfig = SPLAT_DECODER_32
    splat_decoder_4: SplatDecoderConfig = SPLAT_DECODER_4
    mesh_decoder: MeshDecoderConfig = field(default_factory=MeshDecoderConfig)


RELEASED = ModelConfig()
SMALL = ModelConfig(
    preprocess=SMALL_PREPROCESS,
    moge=SMALL_MOGE,
    condition_stage1=SMALL_STAGE1_CONDITION,
    structure_flow=SMALL_STRUCTURE_FLOW,
    structure_decoder=SMALL_STRUCTURE_DECODER,
    condition_stage2=SMALL_STAGE2_CONDITION,
    latent_flow=SMALL_LATENT_FLOW,
    splat_decoder=SMALL_SPLAT_DECODER,
    splat_decoder_4=dataclasses.replace(SMALL_SPLAT_DECODER, gaussians=GaussianConfig(per_voxel=4)),
    mesh_decoder=SMALL_MESH_DECODER,
)
"""A model of a few megabytes for tests: all grids have 16 voxels a side, decoded from 4."""


def check_consistent(config: ModelConfig) -> None:
    """Check that the networks fit each other; raises WeightsError that names those that do not."""
    flow, latent = config.structure_flow, config.latent_flow
    trunks = (
        config.splat_decoder.trunk,
        config.splat_decoder_4.trunk,
        config.mesh_decoder.trunk,
    )
    decoded = flow.resolution * 2 ** (len(config.structure_decoder.widths) - 1)
    tokens1, tokens2 = config.condition_stage1, config.condition_stage2
    pairs = {
        "width of condition tokens, stage 1": (tokens1.width, flow.condition_width),
        "width of condition tokens, stage 2": (tokens2.width, latent.condition_width),
        "channels of the shape latent": (flow.channels, config.structure_decoder.channels),
        "voxels a side": (decoded, latent.resolution, *(t.resolution for t in trunks)),
        "channels of the structured latent": (latent.channels, *(t.channels for t in trunks)),
    }
    wrong = [f"{name}: {values}" for name, values in pairs.items() if len(set(values)) > 1]
    if wrong:
        raise WeightsError(f"the networks do not fit each other in {'; '.join(wrong)}")
    networks = (flow, latent, *trunks, config.moge.vision, *tokens1.networks, *tokens2.networks)
    for network in networks:
        if network.width % network.heads:
            raise WeightsError(
                f"a width of {network.width} is not a multiple of its {network.heads} heads: "
                f"{network}"
            )


def to_json(config: ModelConfig) -> dict[str, Any]:
    """Return plain dictionaries, lists, numbers and strings."""
    return dataclasses.asdict(config)


def from_json(data: object) -> ModelConfig:
    """Return the configuration of what `to_json` gave.

    A missing field has its default. Raises WeightsError that names a field which is unknown or of
    another type.
    """
    return _read(ModelConfig, data, "config")


def _read(kind: Any, value: object, name: str) -> Any:
    """Return `value` as the type `kind`, checked field by field."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _read_dataclass(kind, value, name)
    if origin in (typing.Union, types.UnionType):
        return _read_union(arguments, value, name)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            return tuple(
                _read(k, v, f"{name}[{i}]")
                for i, (k, v) in enumerate(zip(kinds, value, strict=True))
            )
    if kind is float and type(value) in (int, float):
        return float(typing.cast(float, value))
    if kind in (int, str, bool, types.NoneType) and type(value) is kind:
        return value
    raise WeightsError(f"{name} is {value!r}, which is no {getattr(kind, '__name__', kind)}")


def _read_dataclass(kind: type[T], value: object, name: str) -> T:
    kinds = typing.get_type_hints(kind)
    if not isinstance(value, Mapping):
        raise WeightsError(f"{name} is {value!r}, which has no fields")
    unknown = sorted(map(str, set(value) - set(kinds)))
    if unknown:
        raise WeightsError(f"{name} has fields that this version does not know: {unknown}")
    try:
        return kind(**{key: _read(kinds[key], value[key], f"{name}.{key}") for key in value})
    except TypeError as error:  # a field without a default is missing
        raise WeightsError(f"{name}: {error}") from error


def _read_union(kinds: tuple[Any, ...], value: object, name: str) -> Any:
    errors = []
    for kind in kinds:
        try:
            return _read(kind, value, name)
        except WeightsError as error:
            errors.append(str(error))
    raise WeightsError(errors[0])
