"""Published settings become our configuration; what is unknown or changed is refused by name."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from harness import manifest
from layout import CONFIG, MOGE_SETTINGS, settings

from sam3d_nb.errors import WeightsError
from sam3d_nb.model.config import MeshDecoderConfig, TrunkConfig, VisionConfig
from sam3d_nb.weights.config import RELEASED, SMALL, check_consistent, from_json, to_json
from sam3d_nb.weights.fields import Node, Problems, find_node, read_yaml
from sam3d_nb.weights.networks import embedder, latent_flow, splat_decoder
from sam3d_nb.weights.parts import PARTS, build_empty
from sam3d_nb.weights.published import read_published

HALF = torch.float16
GOLDEN = Path(__file__).parent.parent / "model" / "golden"


def write(folder: Path, tables: dict) -> Path:
    for name, data in tables.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(data))
    return folder


def backbone(tables: dict, stage: str) -> dict:
    return tables[stage]["module"]["generator"]["backbone"]["reverse_fn"]["backbone"]


def test_settings_of_the_small_model(tmp_path):
    published = read_published(write(tmp_path, settings()), MOGE_SETTINGS)
    assert published.config == CONFIG
    assert published.accepted == ()


def test_published_names_and_shapes_at_full_size():
    """Every manifest, by the prefixes and inner prefixes that conversion uses."""
    manifests = {
        "moge": "moge",
        "condition_stage1": "ss_condition_embedder",
        "structure_flow": "ss_generator",
        "structure_decoder": "ss_decoder",
        "condition_stage2": "slat_condition_embedder",
        "latent_flow": "slat_generator",
        "splat_decoder": "slat_decoder_gs",
        "splat_decoder_4": "slat_decoder_gs_4",
        "mesh_decoder": "slat_decoder_mesh",
    }
    assert manifests.keys() == PARTS.keys()
    folder = Path(__file__).parent.parent / "model" / "manifest"
    for name, file in manifests.items():
        part = PARTS[name]
        state = build_empty(name, RELEASED, torch.float16).state_dict()
        assert {part.inner + key: tuple(t.shape) for key, t in state.items()} == manifest(file)
        table = json.loads((folder / f"{file}.json").read_text())
        assert part.prefix == table["_prefix"]
        assert part.container == table["_container"]
        assert part.checkpoint == table["_file"].rpartition(".")[0]


def test_released_settings_as_the_golden_files_have_them():
    config = json.loads((GOLDEN / "stage2/full_slat_flow_forward.json").read_text())["config"]
    problems = Problems()
    assert latent_flow(Node(config, "flow", problems)) == RELEASED.latent_flow
    for name, count, released in (
        ("slat_decoder_gs", 32, RELEASED.splat_decoder),
        ("slat_decoder_gs_4", 4, RELEASED.splat_decoder_4),
    ):
        config = json.loads((GOLDEN / f"stage2/full_{name}.json").read_text())["config"]
        assert splat_decoder({name: config}, name, count, problems) == released
    problems.check()


def test_embedders_of_the_golden_files(monkeypatch):
    small = VisionConfig(width=64, depth=2, heads=4, image_size=98)
    monkeypatch.setattr("sam3d_nb.weights.networks.VISION", {"dinov2_vitl14_reg": small})
    config = json.loads((GOLDEN / "stage1/embedder_fuser.json").read_text())["config"]["yaml"]
    problems = Problems()
    first = embedder(config["ss"], "ss", RELEASED.condition_stage1, problems)
    second = embedder(config["slat"], "slat", RELEASED.condition_stage2, problems)
    problems.check()
    assert (first, second) == (SMALL.condition_stage1, SMALL.condition_stage2)


# --- Refusals -----------------------------------------------------------------------------------


def change_unknown(t):
    backbone(t, "slat_generator")["rope"] = True


def change_fixed(t):
    backbone(t, "slat_generator")["patch_size"] = 4


def change_structure(t):
    backbone(t, "ss_generator")["windowed"] = 8


def change_guidance(t):
    t["ss_generator"]["module"]["generator"]["backbone"]["reverse_fn"]["unconditional_handling"] = (
        "drop_tensors"
    )


def change_time(t):
    t["slat_generator"]["module"]["generator"]["backbone"]["time_scale"] = 1.0


def change_gaussians(t):
    t["slat_decoder_gs"]["representation_config"]["scaling_activation"] = "exp"


def change_gaussian_field(t):
    t["slat_decoder_gs_4"]["representation_config"]["lr"]["_normal"] = 1.0


def change_mesh(t):
    t["slat_decoder_mesh"]["attn_mode"] = "full"


def change_pose(t):
    t["pipeline"]["pose_decoder_name"] = "Metric"


def change_pipeline(t):
    t["pipeline"]["slat_scheduler"] = {"order": 2}


def change_crop(t):
    t["pipeline"]["ss_preprocessor"]["img_mask_joint_transform"][0]["box_size_factor"] = 1.5


def change_size(t):
    t["pipeline"]["slat_preprocessor"]["img_transform"]["transforms"][0]["size"] = 224


def change_transform(t):
    t["pipeline"]["ss_preprocessor"]["img_transform"]["transforms"].append({"blur": 3})


def change_depth(t):
    t["pipeline"]["depth_model"]["model"]["pretrained_model_name_or_path"] = "Other/model"


def change_dino(t):
    t["ss_generator"]["module"]["condition_embedder"]["backbone"]["embedder_list"][0][0][
        "dino_model"
    ] = "dinov3_vit7b"


def change_group(t):
    t["slat_generator"]["module"]["condition_embedder"]["backbone"]["embedder_list"][1][1][0] = [
        "mask",
        "tilted",
    ]


def change_group_kind(t):
    t["slat_generator"]["module"]["condition_embedder"]["backbone"]["embedder_list"][0][1] = [
        ["image", ["cropped"]],
        {"a": 1},
    ]


def change_no_levels(t):
    t["ss_decoder"]["channels"] = []


def change_huge(t):
    backbone(t, "ss_generator")["num_blocks"] = 10**9


def change_text(t):
    backbone(t, "ss_generator")["num_heads"] = "${heads}"


def change_infinite(t):
    t["pipeline"]["slat_mean"][0] = float("inf")


def change_length(t):
    t["pipeline"]["slat_std"] = [1.0, 2.0]


def change_node(t):
    t["ss_decoder"] = {"nothing": 1}


def change_kind(t):
    t["slat_decoder_mesh"]["representation_config"] = [1]


def change_lr(t):
    del t["slat_decoder_gs"]["representation_config"]["lr"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (change_unknown, "slat_generator.module.generator.backbone.reverse_fn.backbone.rope"),
        (change_fixed, "slat_generator.module.generator.backbone.reverse_fn.backbone.patch_size"),
        (change_structure, "ss_generator.module.generator.backbone.reverse_fn.backbone.windowed"),
        (change_guidance, "ss_generator.module.generator.backbone.reverse_fn.unconditional_handl"),
        (change_time, "slat_generator.module.generator.backbone.time_scale is 1.0, not 1000.0"),
        (change_gaussians, "slat_decoder_gs.representation_config.scaling_activation is 'exp'"),
        (change_gaussian_field, "slat_decoder_gs_4.representation_config.lr._normal is unknown"),
        (change_mesh, "slat_decoder_mesh.attn_mode is 'full', not 'swin'"),
        (change_pose, "pipeline.pose_decoder_name is 'Metric', not 'ScaleShiftInvariant'"),
        (change_pipeline, "pipeline.slat_scheduler is unknown"),
        (change_crop, "pipeline.ss_preprocessor.img_mask_joint_transform.0.box_size_factor is 1.5"),
        (change_size, "pipeline.slat_preprocessor.img_transform.transforms.0.size is 224"),
        (change_transform, "pipeline.ss_preprocessor.img_transform.transforms.1.blur is unknown"),
        (change_depth, "pipeline.depth_model.model.pretrained_model_name_or_path is 'Other/model'"),
        (change_dino, "embedder_list.0.dino_model is 'dinov3_vit7b'"),
        (change_group, "embedder_list.1 has the input"),
        (change_group_kind, "embedder_list.0 has the input ['image', ['cropped']], not a name"),
        (change_no_levels, "ss_decoder.channels is [], not a list of widths"),
        (change_huge, "backbone.num_blocks is 1000000000, not a whole number from 1 to 256"),
        (change_text, "backbone.num_heads is '${heads}', not a whole number"),
        (change_infinite, "pipeline.slat_mean is "),
        (change_length, "pipeline.slat_std is "),
        (change_node, "ss_decoder has 0 places with the fields channels, latent_channels, not one"),
        (change_kind, "slat_decoder_mesh.representation_config is [1], which has no fields"),
        (change_lr, "slat_decoder_gs.representation_config.lr is missing"),
    ],
)
def test_what_is_unknown_or_changed_is_refused_with_its_name(tmp_path, change, field):
    tables = copy.deepcopy(settings())
    change(tables)
    with pytest.raises(WeightsError) as caught:
        read_published(write(tmp_path, tables), MOGE_SETTINGS)
    assert field in str(caught.value)


def test_all_refusals_are_told_at_once_and_can_be_accepted(tmp_path):
    tables = copy.deepcopy(settings())
    change_unknown(tables)
    change_mesh(tables)
    write(tmp_path, tables)
    with pytest.raises(WeightsError) as caught:
        read_published(tmp_path, MOGE_SETTINGS)
    text = str(caught.value)
    assert "backbone.rope is unknown (it is True); slat_decoder_mesh.attn_mode is 'full'" in text
    names = tuple(text.partition("--accept ")[2].split(","))
    published = read_published(tmp_path, MOGE_SETTINGS, accept=names)
    assert published.config == CONFIG
    assert published.accepted == tuple(sorted(names))


def test_networks_that_do_not_fit_each_other(tmp_path):
    tables = copy.deepcopy(settings())
    backbone(tables, "slat_generator")["resolution"] = 32
    with pytest.raises(WeightsError, match=r"voxels a side: \(16, 32, 16, 16, 16\)"):
        read_published(write(tmp_path, tables), MOGE_SETTINGS)
    for config in (RELEASED, SMALL, CONFIG):
        check_consistent(config)


def test_pipeline_defaults_apply_where_the_file_is_silent(tmp_path):
    tables = copy.deepcopy(settings())
    for name in ("slat_rescale_t", "slat_cfg_strength", "slat_mean", "slat_std"):
        del tables["pipeline"][name]
    tables["pipeline"]["ss_inference_steps"] = 12
    tables["pipeline"]["slat_cfg_interval"] = [0, 800]
    config = read_published(write(tmp_path, tables), MOGE_SETTINGS).config
    assert config.stage2_sampler.rescale == 3
    assert config.stage2_sampler.guidance == 5
    assert config.stage2_sampler.interval == (0.0, 800.0)
    assert config.stage1_sampler.steps == 12
    assert config.latent == RELEASED.latent


@pytest.mark.parametrize(
    "moge",
    [
        {**MOGE_SETTINGS, "encoder": "other"},
        {**MOGE_SETTINGS, "encoder": ["x"]},
        {**MOGE_SETTINGS, "remap_output": "tan"},
        {**MOGE_SETTINGS, "dim_upsample": "wide"},
        {**MOGE_SETTINGS, "dim_proj": 3.5},
        {**MOGE_SETTINGS, "trained_area_range": ["a", "b"]},
    ],
)
def test_hostile_point_map_settings(tmp_path, moge):
    with pytest.raises(WeightsError):
        read_published(write(tmp_path, settings()), moge)


# --- YAML ---------------------------------------------------------------------------------------


def yaml_file(tmp_path: Path, text: str) -> Path:
    (tmp_path / "x.yaml").write_text(text)
    return tmp_path / "x.yaml"


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['touch mark']",
        "a: !!python/name:os.system",
        "a: !custom 3",
        "a: [1, 2",
        "a: b: c",
        "\x00",
        "[" * 5_000 + "]" * 5_000,
        '"\\e[2J": 1',
        f"{'k' * 200}: 1",
    ],
)
def test_hostile_yaml(tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=r"x\.yaml is refused"):
        read_yaml(yaml_file(tmp_path, text))
    assert not (tmp_path / "mark").exists()


def test_yaml_bombs(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for i in range(1, 9):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]")
    for text in ("\n".join(lines), "a: &a [*a]"):
        with pytest.raises(WeightsError, match=r"expands to too much|no plain YAML"):
            read_yaml(yaml_file(tmp_path, text))
    with pytest.raises(WeightsError, match="smaller than"):
        read_yaml(yaml_file(tmp_path, "#" * (2**20 + 1)))
    with pytest.raises(WeightsError, match="cannot read"):
        read_yaml(tmp_path / "missing.yaml")


def test_numbers_of_yaml(tmp_path):
    data = read_yaml(yaml_file(tmp_path, "a: 1e-6\nb: 1.5\nc: '12'\nd: 7\ne: -2E3\nf: v1.2"))
    assert data == {"a": 1e-6, "b": 1.5, "c": "12", "d": 7, "e": -2000.0, "f": "v1.2"}


def test_find_node_needs_exactly_one():
    data = {"a": [{"x": 1, "y": 2}], "b": {"c": {"x": 3}}}
    problems = Problems()
    assert find_node(data, "f", ("x", "y"), problems).where == "f.a.0"
    problems.check()
    find_node(data, "f", ("x",), problems)
    with pytest.raises(WeightsError, match="f has 2 places with the fields x, not one"):
        problems.check()


# --- config.json --------------------------------------------------------------------------------


def test_configuration_survives_json():
    for config in (RELEASED, SMALL, CONFIG):
        assert from_json(json.loads(json.dumps(to_json(config)))) == config


def test_fields_that_a_newer_version_added_have_their_default():
    data = to_json(RELEASED)
    del data["moge"]["mask_threshold"]
    del data["layout"]
    assert from_json(data) == RELEASED


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("structure_flow", "width"), "wide", r"config\.structure_flow\.width is 'wide'"),
        (("structure_flow", "width"), True, "is True, which is no int"),
        (("structure_flow", "extra"), 1, r"does not know: \['extra'\]"),
        (("moge", "remap"), "tan", "'tan'"),
        (("moge",), None, "has no fields"),
        (("latent", "mean"), 3, "is 3"),
        (("condition_stage1", "networks"), [{"widht": 3}], r"networks\[0\] has fields"),
        (("stage1_sampler", "interval"), [1.0], "interval"),
    ],
)
def test_damaged_configuration(path, value, text):
    data = json.loads(json.dumps(to_json(RELEASED)))
    table = data
    for key in path[:-1]:
        table = table[key]
    table[path[-1]] = value
    with pytest.raises(WeightsError, match=text):
        from_json(data)


def test_missing_field_without_default():
    data = json.loads(json.dumps(to_json(RELEASED)))
    del data["condition_stage1"]["rows"]
    with pytest.raises(WeightsError, match="rows"):
        from_json(data)


def test_impossible_networks():
    with pytest.raises(WeightsError, match="mesh_decoder cannot be built"):
        build_empty("mesh_decoder", replace(SMALL, mesh_decoder=MeshDecoderConfig(groups=7)), HALF)
    for name, network in (
        ("latent_flow", replace(SMALL.latent_flow, heads=7)),
        ("mesh_decoder", replace(SMALL.mesh_decoder, trunk=TrunkConfig(heads=7, resolution=16))),
    ):
        with pytest.raises(WeightsError, match="not a multiple of its 7 heads"):
            check_consistent(replace(SMALL, **{name: network}))
