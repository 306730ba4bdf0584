"""What a known depth network says of a pool, and the layouts in its cameras."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sam3d_nb.model.focal import recover_focal, uv_map
from training import estimates
from training.data.objects import Objects
from training.data.pool import Pool, build_pool
from training.data.render import pixel_rays
from training.data.shapes import procedural
from training.depth import focal_of, looked, moge, relief_error
from training.networks import begin_backbone, build, load, save
from training.samples import Samples
from training.targets import layouts, opencv_center, view_cubes

COUNT, SIZE = 6, 56


@pytest.fixture(scope="module")
def objects() -> Objects:
    return procedural(range(8), grid=48, color=24, points=512)


@pytest.fixture(scope="module")
def pool(objects: Objects) -> Pool:
    return build_pool(objects, COUNT, seed=5, size=SIZE, batch=8)


def seen_as(pool: Pool, monkeypatch: pytest.MonkeyPatch, ratio: float, gain: float) -> None:
    """Let the network see true depth times `ratio`, through focal lengths `gain` times as long."""
    z = pool.full_points[:, 2].float() + pool.center[:, 2, None, None]
    known = z.isfinite()
    intrinsics = pool.full_intrinsics.clone()
    intrinsics[:, :2, :2] *= gain
    slopes = pixel_rays(intrinsics, SIZE)[..., :2].mT.unflatten(2, (SIZE, SIZE))

    def fake(network, image):
        return slopes, (z.where(known, 1.0) * ratio).log(), known.float()

    monkeypatch.setattr(estimates, "looked", fake)


def test_a_true_network_gives_the_true_layouts(pool, objects, monkeypatch):
    seen_as(pool, monkeypatch, 1.0, 1.0)
    views = view_cubes(pool, objects)
    found = estimates.estimate(SimpleNamespace(), pool, views)
    true = layouts(pool, views)
    assert bool(found.usable.all())
    np.testing.assert_allclose(found.intrinsics, pool.intrinsics, rtol=1e-4)
    np.testing.assert_allclose(found.layout.unit, true.unit, rtol=0.15)
    for name in ("translation", "scale"):  # depth is sampled at other pixels than in the crop
        np.testing.assert_allclose(found.layout.latents[name], true.latents[name], atol=0.5)


@pytest.mark.parametrize(("ratio", "gain"), [(1.7, 1.0), (1.0, 0.8), (0.6, 1.4)])
def test_an_object_covers_the_same_pixels_in_the_estimated_camera(
    pool, objects, monkeypatch, ratio, gain
):
    seen_as(pool, monkeypatch, 1.0, 1.0)
    views = view_cubes(pool, objects)
    true = estimates.estimate(SimpleNamespace(), pool, views)
    seen_as(pool, monkeypatch, ratio, gain)
    found = estimates.estimate(SimpleNamespace(), pool, views)
    np.testing.assert_allclose(
        found.intrinsics[:, 0, 0], gain * pool.intrinsics[:, 0, 0], rtol=1e-3
    )
    rows = torch.arange(COUNT)
    known = true.points(rows).isfinite() & found.points(rows).isfinite()
    depth = (found.points(rows) / true.points(rows))[:, 2][known[:, 2]]
    np.testing.assert_allclose(depth, ratio, rtol=0.02)  # stored in half precision
    center, side = placed(found)
    true_center, true_side = placed(true)
    np.testing.assert_allclose(side / true_side, ratio / gain, rtol=0.02)
    true_z = pool.points[:, 2].float() + pool.center[:, 2, None, None]
    true_z = true_z.masked_fill(~pool.mask, torch.nan).flatten(1).nanmedian(1).values
    behind = ratio * true_z + ratio / gain * (true_center[:, 2] - true_z)
    np.testing.assert_allclose(center[:, 2], behind, rtol=0.02)
    across = center[:, :2] / center[:, 2:] * gain
    np.testing.assert_allclose(across, true_center[:, :2] / true_center[:, 2:], atol=0.01)


def placed(found: estimates.Estimates) -> tuple[torch.Tensor, torch.Tensor]:
    """Return centers (N, 3), OpenCV, and sides (N,) out of the layout latents."""
    layout = found.layout
    center = layout.latents["translation"][:, 0] * layout.unit[:, None] + layout.shift
    side = layout.latents["scale"][:, 0, 0].exp() * layout.unit
    return center * torch.tensor([-1.0, -1.0, 1.0]), side


def test_samples_mix_true_and_estimated_point_maps(pool, objects, monkeypatch):
    seen_as(pool, monkeypatch, 2.0, 1.0)
    views = view_cubes(pool, objects)
    samples = Samples(pool, objects, views, layouts(pool, views))
    rows = torch.arange(COUNT)
    assert not bool(samples.pick(rows).any())
    samples.use(estimates.estimate(SimpleNamespace(), pool, views), 1.0)
    assert bool(samples.pick(rows).all())
    chosen = rows % 2 == 0
    mixed = samples.inputs(rows, chosen, noisy=False)["pointmap"]
    true = samples.inputs(rows, noisy=False)["pointmap"]
    theirs = samples.inputs(rows, chosen | True, noisy=False)["pointmap"]
    assert torch.equal(mixed[~chosen].nan_to_num(), true[~chosen].nan_to_num())
    assert torch.equal(mixed[chosen].nan_to_num(), theirs[chosen].nan_to_num())
    scale = samples.layouts(rows, chosen)["scale"]
    assert torch.equal(scale[~chosen], samples.layout.latents["scale"][~chosen])
    assert torch.equal(scale[chosen], samples.estimates.layout.latents["scale"][chosen])


def test_the_focal_length_is_that_of_the_package():
    generator = torch.Generator().manual_seed(0)
    z = 1 + torch.rand(64, 64, generator=generator)
    rays = uv_map(64, 64, 1.0, like=z) / 1.3 + 0.02 * torch.randn(64, 64, 2, generator=generator)
    points = torch.cat([rays * z[..., None], z[..., None]], -1)
    valid = torch.rand(64, 64, generator=generator) > 0.3
    wanted = recover_focal(points, valid) * 64 / 2 * 2**0.5  # of half the diagonal, in pixels
    found = focal_of(rays.permute(2, 0, 1)[None], valid[None])
    assert float(found) == pytest.approx(wanted, rel=1e-4)


def test_relief_counts_up_to_a_factor_and_in_sides():
    depth = torch.full((1, 8, 8), 3.0)
    on_object = torch.zeros(1, 8, 8, dtype=torch.bool)
    on_object[:, 2:6, 2:6] = True
    error = torch.full((1, 8, 8), 0.7)
    assert float(relief_error(error, on_object, torch.ones(1), depth)) == pytest.approx(0, abs=1e-6)
    error[:, :, :4] += 0.2
    found = relief_error(error, on_object, torch.tensor([2.0]), depth)
    assert float(found) == pytest.approx(0.1 * 3 / 2)


def test_depth_is_float32_also_where_training_is_in_half_precision():
    network = build("moge", "cpu")
    image = torch.randint(0, 255, (1, 3, SIZE, SIZE)).byte()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        _, log_z, _ = looked(network, image)
    assert not torch.equal(log_z, log_z.bfloat16().float())


def test_the_depth_network_learns_from_its_losses(pool, objects):
    torch.manual_seed(0)
    network = build("moge", "cpu")
    begin_backbone(network, build("condition_stage1", "cpu"))
    views = view_cubes(pool, objects)
    losses = moge(network, Samples(pool, objects, views, layouts(pool, views)), 4)
    slopes, log_z, mask = looked(network, pool.full_image[:2])
    assert slopes.shape == (2, 2, SIZE, SIZE)
    assert log_z.shape == mask.shape == (2, SIZE, SIZE)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    totals = []
    for step in range(6):
        total = torch.stack(list(losses(step).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert np.isfinite(totals).all()
    assert min(totals[3:]) < totals[0]


def test_what_fits_is_taken_from_a_network_of_another_size(tmp_path):
    network, wider = torch.nn.Linear(3, 4), torch.nn.Linear(5, 4)
    save(tmp_path / "one.safetensors", {"part": network})
    before = wider.weight.detach().clone()
    load(tmp_path / "one.safetensors", {"part": wider}, partial=True)
    assert torch.equal(wider.weight, before)
    np.testing.assert_allclose(wider.bias.detach(), network.bias.detach(), atol=1e-3)
    with pytest.raises(RuntimeError, match="size mismatch"):
        load(tmp_path / "one.safetensors", {"part": wider})


def test_centers_go_to_opencv_axes(pool, objects):
    views = view_cubes(pool, objects)
    x, y, z = opencv_center(views).T
    np.testing.assert_allclose(torch.stack([x, z, -y], 1), views.center, atol=1e-6)
