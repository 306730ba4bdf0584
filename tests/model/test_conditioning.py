"""Condition embedders: golden files, published names, savings that change nothing, bad input."""

import published
import pytest
import torch
from harness import fill, manifest, shapes

from sam3d_nb.errors import InputError
from sam3d_nb.model.cache import SceneCache
from sam3d_nb.model.conditioning import (
    ImageEmbed,
    PointPatchEmbed,
    begin_condition,
    build_condition_embedder,
    condition_tokens,
    share_backbones,
    swiglu_width,
)
from sam3d_nb.model.config import (
    IMAGE_ROWS,
    SMALL_PREPROCESS,
    SMALL_STAGE1_CONDITION,
    SMALL_STAGE2_CONDITION,
    STAGE1_CONDITION,
    STAGE2_CONDITION,
    PointEmbedConfig,
    PreprocessConfig,
)
from sam3d_nb.model.preprocess import image_tensor, mask_tensor, pointmap_tensor, prepare_inputs
from sam3d_nb.model.vision import VisionTransformer

SMALL = {"ss": SMALL_STAGE1_CONDITION, "slat": SMALL_STAGE2_CONDITION}
POINTS = PointEmbedConfig(width=48, input_size=64)


@pytest.mark.parametrize(
    ("stage", "config", "parameters"),
    [("ss", STAGE1_CONDITION, 634_485_760), ("slat", STAGE2_CONDITION, 626_054_144)],
)
def test_published_names_and_shapes(stage, config, parameters):
    embedder = build_condition_embedder(config, device="meta")
    assert shapes(embedder) == manifest(f"{stage}_condition_embedder")
    assert sum(p.numel() for p in embedder.parameters()) == parameters


@pytest.mark.parametrize("stage", ["ss", "slat"])
def test_embedder_golden(golden, stage):
    reference = golden("stage1/embedder_fuser")
    inputs = {k.removeprefix("in."): v for k, v in reference.tensors.items() if k[:3] == "in."}
    config = {
        "ss": published.stage1_condition(reference.config),
        "slat": published.stage2_condition(reference.config["dinov2"]),
    }
    embedder = fill(build_condition_embedder(config[stage]))
    reference.check(embedder(inputs), f"{stage}.tokens")


def test_stage_2_golden(golden):
    reference = golden("stage2/slat_condition_embedder")
    config = published.stage2_condition(reference.config["tiny_vit"])
    embedder = fill(build_condition_embedder(config))
    assert shapes(embedder) == {k: tuple(v) for k, v in reference.info["names"].items()}
    reference.check(embedder(reference.tensors), "tokens")
    tokens = embedder.module_list[0](reference["image"])
    reference.check(tokens, "trace_dino_image")
    reference.check(embedder.projection_nets[0](tokens), "trace_projected_image")


def test_pointmap_embedder_golden(golden):
    reference = golden("stage1/pointmap_embedder")
    points = PointPatchEmbed(published.points(reference.config))
    embedder = fill(points, reference.info["weights"]["prefix"])
    reference.check(embedder(reference["in.pointmap"]), "tokens")


def test_from_photo_to_tokens_golden(golden):
    reference = golden("stage1/stage1_pipeline")
    image = image_tensor(reference["in.rgb"])
    mask = mask_tensor(reference["in.mask"] != 0)
    pointmap = pointmap_tensor(reference["in.pointmap"], image.shape[1:])
    size = PreprocessConfig(reference.config["preprocess_size"])
    inputs = prepare_inputs(image, mask, pointmap, size)
    embedder = fill(build_condition_embedder(published.stage1_condition(reference.config)))
    reference.check(embedder(inputs.tensors), "tokens")


def plain_points(embedder, pointmap):
    """The twin of `PointPatchEmbed`: window by window, every token through the whole block."""
    config, out = embedder.config, []
    size, patch = config.input_size, config.patch
    rows = torch.arange(size) * pointmap.shape[-1] // size
    points = pointmap[0][:, rows][:, :, rows]  # (3, S, S)
    for top in range(0, size, patch):
        for left in range(0, size, patch):
            tokens = [embedder.cls_token[0, 0]]
            for row in range(top, top + patch):
                for column in range(left, left + patch):
                    p = points[:, row, column]
                    known = bool(p.isfinite().all())
                    tokens.append(embedder.point_proj(p) if known else embedder.invalid_xyz_token)
            x = torch.stack(tokens)[None] + embedder.pos_embed_window
            cell = embedder.pos_embed[0, :, top // patch, left // patch]
            out.append(embedder.blocks[0](x)[0, 0] + cell)
    return torch.stack(out)[None]


def test_point_embedder_against_plain_loop():
    embedder = fill(PointPatchEmbed(PointEmbedConfig(width=32, heads=4, input_size=16, patch=4)))
    pointmap = torch.randn(1, 3, 40, 40)
    pointmap[0, 1, torch.rand(40, 40) < 0.3] = float("nan")
    actual, expected = embedder(pointmap), plain_points(embedder, pointmap)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_norm_epsilons():
    embedder = build_condition_embedder(SMALL_STAGE1_CONDITION)
    for name, module in embedder.named_modules():
        if isinstance(module, torch.nn.LayerNorm):
            assert module.eps == (1e-5 if name.startswith("projection_nets") else 1e-6), name


def test_projection_eps_shows_on_small_tokens():
    network = fill(build_condition_embedder(SMALL_STAGE2_CONDITION)).projection_nets[0]
    x = 1e-3 * torch.randn(2, 5, 64, dtype=torch.float64)
    norm, gated = network
    h = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    h = h * norm.weight + norm.bias
    gate = h @ gated.w1.weight.double().T
    h = (gate * gate.sigmoid() * (h @ gated.w3.weight.double().T)) @ gated.w2.weight.double().T
    torch.testing.assert_close(network(x.float()), h.float(), rtol=1e-3, atol=1e-5)


def test_projection_width():
    assert swiglu_width(4096) == 2816
    assert swiglu_width(4 * 64) == 256
    assert swiglu_width(384) == 256
    assert swiglu_width(385.5) == 512


# --- savings ----------------------------------------------------------------------------------


def photo_inputs(seed=0):
    """The preprocessed inputs of one object in a photo that depends on no seed."""
    fixed, random = torch.Generator().manual_seed(99), torch.Generator().manual_seed(seed)
    image = torch.rand(3, 40, 50, generator=fixed)
    pointmap = torch.randn(3, 40, 50, generator=fixed)
    mask = torch.zeros(1, 40, 50)
    mask[:, 5 : 15 + 3 * seed, 8 : 20 + 3 * seed] = 1
    mask[:, 10, 10:15] = torch.rand(5, generator=random)
    return prepare_inputs(image, mask, pointmap, SMALL_PREPROCESS).tensors


def published_like():
    """Both stages with equal backbones a network, as the checkpoints may have them."""
    first = fill(build_condition_embedder(SMALL_STAGE1_CONDITION))
    second = fill(build_condition_embedder(SMALL_STAGE2_CONDITION))
    return first, second


@pytest.fixture
def passes(monkeypatch):
    """Count the images that go through any backbone."""
    count = [0]
    forward = VisionTransformer.forward

    def counted(self, images):
        count[0] += len(images)
        return forward(self, images)

    monkeypatch.setattr(VisionTransformer, "forward", counted)
    return count


def test_one_pass_serves_both_stages(passes):
    inputs = photo_inputs()
    expected = [embedder(inputs) for embedder in published_like()]
    assert passes == [8]
    shared = published_like()
    assert share_backbones(*shared) == 2
    passes[0] = 0
    actual = condition_tokens(shared, inputs)
    assert passes == [4]
    for a, b in zip(actual, expected, strict=True):
        assert torch.equal(a, b)


def test_image_and_mask_share_one_backbone_where_it_is_the_same(passes):
    embedders = published_like()
    for embedder in embedders:
        weights = embedder.module_list[0].state_dict()
        embedder.module_list[1].load_state_dict(weights)
    inputs = photo_inputs()
    expected = [embedder(inputs) for embedder in embedders]
    assert share_backbones(*embedders) == 1
    actual = condition_tokens(embedders, inputs)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    backbones = {id(n.backbone) for e in embedders for n in e.module_list[:2]}
    assert len(backbones) == 1


def test_without_equal_weights_nothing_is_shared(passes):
    first, second = published_like()
    with torch.no_grad():
        second.module_list[0].backbone.blocks[1].mlp.fc2.bias[3] += 1e-6
    inputs = photo_inputs()
    expected = [embedder(inputs) for embedder in (first, second)]
    assert share_backbones(first, second) == 3
    passes[0] = 0
    actual = condition_tokens((first, second), inputs)
    assert passes == [6]
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_sharing_keeps_names_and_values():
    first, second = published_like()
    before = {k: v.clone() for k, v in second.state_dict().items()}
    share_backbones(first, second)
    after = second.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_full_image_is_embedded_once_for_a_scene(passes):
    embedders, cache = published_like(), SceneCache()
    expected = [[e(photo_inputs(seed)) for e in embedders] for seed in range(3)]
    share_backbones(*embedders)
    passes[0] = 0
    for seed in range(3):
        actual = condition_tokens(embedders, photo_inputs(seed), cache)
        assert passes == [4 + 3 * seed]  # image, mask and full mask of each object; one full image
        assert all(torch.equal(a, b) for a, b in zip(actual, expected[seed], strict=True))
    assert cache.computed == 10


def test_backbones_may_run_before_the_point_map_is_there(passes):
    embedders, cache, inputs = published_like(), SceneCache(), photo_inputs()
    expected = [embedder(inputs) for embedder in embedders]
    share_backbones(*embedders)
    passes[0] = 0
    begin_condition(embedders, {n: x for n, x in inputs.items() if "pointmap" not in n}, cache)
    assert passes == [4]
    actual = condition_tokens(embedders, inputs, cache)
    assert passes == [4]
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_cache_forgets_what_was_not_used_longest():
    cache, calls = SceneCache(capacity=2), []

    def double(x):
        calls.append(int(x))
        return 2 * x

    for value in (1, 2, 1, 3, 1, 2):
        assert cache.recall("double", torch.tensor(value), double) == 2 * value
    assert calls == [1, 2, 3, 2]
    assert (cache.computed, cache.recalled) == (4, 2)
    cache.clear()
    cache.recall("double", torch.tensor(2), double)
    assert calls[-1] == 2
    assert len(calls) == 5


def test_cache_knows_a_point_map_with_holes_again():
    points, cache = torch.tensor([1.0, torch.nan, 3.0]), SceneCache()
    for x in (points, points.clone(), points.half(), points.half()):
        cache.recall("owner", x, torch.neg)
    assert (cache.computed, cache.recalled) == (2, 2)


@pytest.mark.parametrize(
    "other",
    [torch.ones(2), torch.ones(3, dtype=torch.float64), torch.tensor([1, 1, 1 + 1e-6])],
    ids=["shape", "dtype", "value"],
)
def test_cache_tells_inputs_and_owners_apart(other):
    cache = SceneCache()
    cache.recall("owner", torch.ones(3), lambda x: "first")
    assert cache.recall("owner", torch.ones(3), lambda x: "second") == "first"
    assert cache.recall("another", torch.ones(3), lambda x: "second") == "second"
    assert cache.recall("owner", other, lambda x: "third") == "third"


def test_batch_is_the_objects_one_by_one():
    embedder = published_like()[0]
    one, two = photo_inputs(0), photo_inputs(1)
    both = embedder({k: torch.cat([one[k], two[k]]) for k in one})
    alone = torch.cat([embedder(one), embedder(two)])
    torch.testing.assert_close(both, alone, rtol=1e-4, atol=1e-5)


# --- precision and bad input ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("stage", ["ss", "slat"])
def test_half_precision_stays_close(stage, dtype):
    embedder, inputs = fill(build_condition_embedder(SMALL[stage])), photo_inputs()
    exact = embedder(inputs)
    mixed = fill(build_condition_embedder(SMALL[stage], dtype=dtype))(inputs)
    half = embedder.to(dtype)(inputs)
    assert half.dtype == dtype
    for tokens in (mixed, half):
        assert tokens.isfinite().all()
        error = (tokens.float() - exact).norm() / exact.norm()
        assert error < {torch.float16: 3e-3, torch.bfloat16: 2e-2}[dtype]


def test_point_map_without_points_gives_finite_tokens():
    embedder = fill(PointPatchEmbed(POINTS))
    assert embedder(torch.full((1, 3, 98, 98), float("nan"))).isfinite().all()


def test_missing_input_is_named():
    embedder = build_condition_embedder(SMALL_STAGE1_CONDITION)
    inputs = photo_inputs()
    del inputs["pointmap"]
    with pytest.raises(InputError, match=r"\['pointmap'\] are missing.*'rgb_image'"):
        embedder(inputs)


@pytest.mark.parametrize(
    ("network", "shape"),
    [(ImageEmbed, (1, 2, 98, 98)), (ImageEmbed, (3, 98, 98)), (PointPatchEmbed, (1, 98, 98, 3))],
)
def test_bad_shapes_are_named(network, shape):
    vision = SMALL_STAGE1_CONDITION.networks[0]
    embedder = network(POINTS) if network is PointPatchEmbed else network(vision, prenorm=True)
    with pytest.raises(InputError, match=str(list(shape))[1:-1]):
        embedder(torch.zeros(shape))


def test_rows_are_those_of_the_specification():
    assert [row.input for row in STAGE1_CONDITION.rows] == [
        *("image", "rgb_image", "mask", "rgb_image_mask", "pointmap", "rgb_pointmap")
    ]
    assert STAGE2_CONDITION.rows == IMAGE_ROWS
    assert [(row.network, row.group) for row in STAGE1_CONDITION.rows] == [
        *((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1))
    ]
