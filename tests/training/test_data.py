"""Training data: fields against analytic distances, samples against their own geometry."""

import math
import random

import numpy as np
import pytest
import torch

from sam3d_nb.model.preprocess import crop_box
from training.data.build import Builder, Paint, along, tilt
from training.data.fields import outside, triangle_distance, voxelize
from training.data.objects import HALF, Objects, bounds, from_fields, merge, nodes
from training.data.pool import ZOOM, Pool, build_pool, mask_boxes
from training.data.shapes import (
    HELD_OUT_SEEDS,
    KINDS,
    TRAINING_SEEDS,
    evaluate_distance,
    procedural,
    table,
)

RED = Paint((1.0, 0.0, 0.0))


def made(build, grid: int = 48) -> torch.Tensor:
    builder = Builder(random.Random(0))
    build(builder)
    return evaluate_distance([builder.table()], grid, "cpu")


def grid_points(grid: int) -> torch.Tensor:
    x = nodes(grid, "cpu")
    z, y, x = torch.meshgrid(x, x, x, indexing="ij")
    return torch.stack([x, y, z], -1)


@pytest.fixture(scope="module")
def objects() -> Objects:
    return procedural(range(12), grid=48, color=24, points=512)


@pytest.fixture(scope="module")
def pool(objects: Objects) -> Pool:
    return build_pool(objects, 10, seed=3, size=56, batch=8)


def test_a_sphere_is_a_sphere() -> None:
    sdf = made(lambda b: b.ball((3, 1, 2), 0.7, RED))[0, 0].float()
    expected = grid_points(48).norm(dim=-1) - 0.5
    assert (sdf - expected).abs().max() < 1e-3


def test_a_rounded_box_is_one_at_any_place_and_turn() -> None:
    sdf = made(lambda b: b.box((5, 0, 1), (2, 1, 0.5), RED, 0.2))[0, 0].float()
    q = grid_points(48).abs() - torch.tensor([0.45, 0.2, 0.075])
    expected = q.clamp_min(0).norm(dim=-1) + q.amax(-1).clamp_max(0) - 0.05
    assert (sdf - expected).abs().max() < 1e-3
    turned = made(lambda b: b.box((5, 0, 1), (1, 0.5, 2), RED, 0.2, turn=tilt(y=math.pi / 2)))
    assert (
        turned[0, 0].float() - made(lambda b: b.box((0, 0, 0), (2, 0.5, 1), RED, 0.2))
    ).abs().max() < 2e-3


def test_tubes_and_rings_have_their_sizes() -> None:
    tube = made(lambda b: b.tube((0, 0, 0), (0, 0, 2), 0.3, 0.3, RED))[0, 0].float()
    p = grid_points(48)
    across = p[..., :2].norm(dim=-1) - 0.15
    ends = p[..., 2].abs() - 0.5
    q = torch.stack([across, ends], -1)
    expected = q.clamp_min(0).norm(dim=-1) + q.amax(-1).clamp_max(0)
    assert (tube - expected).abs().max() < 1e-3
    ring = made(lambda b: b.ring((0, 0, 0), 0.8, 0.2, RED, turn=along((1, 0, 0))))[0, 0].float()
    expected = torch.stack([p[..., 1:].norm(dim=-1) - 0.4, p[..., 0]], -1).norm(dim=-1) - 0.1
    assert (ring - expected).abs().max() < 1e-3


def test_later_cuts_take_away_and_trimmed_objects_fill_the_box() -> None:
    def half_ball(b: Builder) -> None:
        b.ball((0, 0, 0), 1.0, RED)
        b.box((0, 1, 0), (2, 1, 2), RED, cut=True)

    sdf = made(half_ball)[0, 0]
    below = grid_points(48)[..., 1] < -0.02
    assert (sdf[~below & (grid_points(48)[..., 1] > 0.02)] > 0).all()
    assert (sdf[below & (grid_points(48).norm(dim=-1) < 0.45)] < 0).all()
    bowls = [s for s in range(400) if table(s)[2]][:3]
    assert len(bowls) == 3
    made_bowls = procedural(bowls, grid=64, color=16, points=64)
    assert (made_bowls.extent.amax(1) - 0.5).abs().max() < 0.01
    low, high = bounds(made_bowls.sdf)
    assert (low + high).abs().max() < 0.01


def test_every_kind_fills_the_box_and_has_an_inside() -> None:
    seeds, found = [], set()
    for seed in range(5000):
        name = table(seed)[0]
        if name not in found:
            found.add(name)
            seeds.append(seed)
        if len(found) == len(KINDS):
            break
    assert found == set(KINDS)
    low, high = bounds(procedural(seeds, grid=80, color=8, points=16).sdf)
    assert ((high - low).amax(1) - 1).abs().max() < 0.05
    assert (low + high).abs().max() < 0.06


def test_queries_agree_with_the_nodes_and_points_lie_on_the_surface(objects: Objects) -> None:
    ids = torch.tensor([4, 0])
    index = torch.randint(48, (2, 50, 3), generator=torch.Generator().manual_seed(1))
    points = nodes(48, "cpu")[index]
    distance, color = objects.query(ids, points)
    x, y, z = index.unbind(-1)
    assert torch.allclose(distance, objects.sdf[ids[:, None], 0, z, y, x].float(), atol=1e-4)
    assert color.shape == (2, 50, 3)
    assert float(color.min()) >= 0
    assert float(color.max()) <= 1
    every = torch.arange(len(objects))
    on_surface = objects.distance(every, objects.points.float()).abs()
    assert on_surface.mean() < 0.002
    assert objects.points.abs().amax() <= HALF


def test_points_outside_the_cube_are_farther(objects: Objects) -> None:
    near, far = torch.tensor([[[0.0, 0.55, 0.0]]]), torch.tensor([[[0.0, 1.55, 0.0]]])
    ids = torch.tensor([0])
    gain = objects.distance(ids, far) - objects.distance(ids, near)
    assert float(gain) == pytest.approx(1.0, abs=1e-5)


def test_colors_are_those_of_the_nearest_part() -> None:
    builder = Builder(random.Random(0))
    builder.box((-1, 0, 0), (1, 1, 1), RED)
    builder.box((1, 0, 0), (1, 1, 1), Paint((0.0, 1.0, 0.0)))
    from training.data.shapes import evaluate_color

    color = evaluate_color([builder.table()], 24, "cpu")[0]
    assert (color[:, 12, 12, 3] == torch.tensor([255, 0, 0])).all()
    assert (color[:, 12, 12, 20] == torch.tensor([0, 255, 0])).all()


def test_held_out_seeds_are_kept_apart() -> None:
    assert not set(TRAINING_SEEDS) & set(HELD_OUT_SEEDS)
    with pytest.raises(ValueError, match=str(HELD_OUT_SEEDS[3])):
        procedural([1, HELD_OUT_SEEDS[3]], grid=8)
    with pytest.raises(ValueError, match="seed 5 "):
        procedural([5], grid=8, held_out=True)
    assert len(procedural(HELD_OUT_SEEDS[:1], grid=16, color=8, points=8, held_out=True)) == 1


def test_the_same_seed_gives_the_same_object_and_pool(objects: Objects, pool: Pool) -> None:
    again = procedural(range(3, 5), grid=48, color=24, points=512)
    assert torch.equal(again.sdf, objects.sdf[3:5])
    assert torch.equal(again.color, objects.color[3:5])
    repeated = build_pool(objects, 10, seed=3, size=56, batch=8)
    assert torch.equal(repeated.image, pool.image)
    assert not torch.equal(build_pool(objects, 10, seed=4, size=56, batch=8).image, pool.image)


def test_point_maps_project_to_their_pixels(pool: Pool) -> None:
    at = torch.arange(56) + 0.5
    v, u = torch.meshgrid(at, at, indexing="ij")
    for points, k in ((pool.points, pool.intrinsics), (pool.full_points, pool.full_intrinsics)):
        camera = points.float() + pool.center[:, :, None, None]
        known = camera.isfinite().all(1)
        assert known.any()
        pixel = torch.einsum("nij,njhw->nihw", k, camera)
        pixel = pixel[:, :2] / pixel[:, 2:]
        error = (pixel - torch.stack([u, v])).abs().amax(1)[known]
        assert error.quantile(0.99) < 0.1  # float16 point maps, far planes aside


def test_masked_points_lie_on_the_object(objects: Objects, pool: Pool) -> None:
    inverse = torch.linalg.inv(pool.linear)
    for i in range(len(pool)):
        assert bool(pool.points[i][:, pool.mask[i]].isfinite().all())
        local = inverse[i] @ (
            pool.points[i][:, pool.mask[i]].float() + (pool.center - pool.offset)[i][:, None]
        )
        distance = objects.distance(pool.object[i : i + 1], local.T[None]).abs()
        assert distance.quantile(0.95) < 0.01


def test_surface_points_project_into_the_mask_of_free_objects(objects: Objects) -> None:
    pool = build_pool(objects, 16, seed=8, size=56, batch=16)
    free = (pool.visible > 0.999).nonzero()[:, 0]
    assert len(free) >= 4
    for i in free.tolist():
        points = objects.points[pool.object[i]].float() @ pool.linear[i].T + pool.offset[i]
        pixel = points @ pool.intrinsics[i].T
        pixel = (pixel[:, :2] / pixel[:, 2:]).floor().long()
        inside = ((pixel >= 0) & (pixel < 56)).all(1)
        pixel = pixel[inside]
        wide = torch.nn.functional.max_pool2d(pool.mask[i][None].float(), 5, 1, 2)[0]
        photo = pool.photo[i]
        counted = photo[pixel[:, 1], pixel[:, 0]]
        assert (wide[pixel[:, 1], pixel[:, 0]] > 0)[counted].float().mean() > 0.97


def test_crops_are_those_of_the_package(pool: Pool) -> None:
    box = mask_boxes(pool.full_mask)
    for i in range(len(pool)):
        large = pool.full_mask[i].repeat_interleave(ZOOM, 0).repeat_interleave(ZOOM, 1)
        x0, y0, x1, y1 = crop_box(large[None].float(), 1.2)
        side = max(x1 - x0, y1 - y0)
        left, top = x0 - (side - (x1 - x0)) // 2, y0 - (side - (y1 - y0)) // 2
        assert torch.equal(box[i] * ZOOM, torch.tensor([left, top, side]).float())
        corner = torch.tensor([left / ZOOM, top / ZOOM, 1.0])
        ray = torch.linalg.inv(pool.full_intrinsics[i]) @ corner
        assert torch.allclose(pool.intrinsics[i] @ ray, torch.tensor([0.0, 0, 1]), atol=1e-3)


def test_samples_are_what_the_filters_promise(pool: Pool) -> None:
    share = pool.full_mask.sum((1, 2)) / pool.full_photo.sum((1, 2))
    assert (share >= 0.015).all()
    assert (pool.visible >= 0.3).all()
    assert (pool.image.float().std((1, 2, 3)) > 4).all()
    assert (pool.image.permute(0, 2, 3, 1)[~pool.photo] == 0).all()
    assert torch.allclose(pool.up.norm(dim=1), torch.ones(len(pool)), atol=1e-4)


def test_empty_objects_are_told_and_rare_good_scenes_are_found(objects: Objects) -> None:
    empty = Objects(
        torch.full_like(objects.sdf, 0.2),
        objects.color,
        objects.points,
        objects.extent,
        objects.kind,
    )
    with pytest.raises(ValueError, match="12 objects empty"):
        build_pool(empty, 2, seed=0, size=16, batch=150)
    assert len(build_pool(objects, 3, seed=0, size=24, batch=1)) == 3


def test_recoloring_keeps_range_and_acts_per_sample(pool: Pool) -> None:
    color = torch.rand(3, 7, 3, generator=torch.Generator().manual_seed(0))
    points = torch.zeros(3, 7, 3)
    out = pool.recolor(torch.tensor([2, 0, 5]), points, color)
    assert out.shape == color.shape
    tint = pool.tint[0, int(torch.sin(pool.wave[0, 3]) > 0.2)]
    assert torch.allclose(out[1], (color[1] @ tint[:, :3].T + tint[:, 3]).clamp(0, 1), atol=1e-5)


def test_distance_to_triangles_is_that_of_a_plain_search() -> None:
    rng = np.random.default_rng(0)
    corners = torch.from_numpy(rng.normal(size=(5, 3, 3))).float()
    points = torch.from_numpy(rng.normal(size=(5, 20, 3))).float()
    u, v = np.meshgrid(np.linspace(0, 1, 301), np.linspace(0, 1, 301))
    weights = torch.from_numpy(np.stack([1 - u, u * (1 - v), u * v], -1).reshape(-1, 3)).float()
    for i in range(5):
        dense = weights @ corners[i]
        expected = torch.cdist(points[i], dense).amin(1)
        assert torch.allclose(triangle_distance(points, corners)[i], expected, atol=0.02)


def test_open_sheets_are_thin_and_closed_meshes_are_full() -> None:
    box = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [(a, b, c) for q in quads for a, b, c in ((q[0], q[1], q[2]), (q[0], q[2], q[3]))]
    closed = box[np.array(faces)]
    colors = np.full((12, 3), 200, np.uint8)
    sdf, color = voxelize([closed, closed[:10]], [colors, colors[:10]], 32, 16, "cpu")
    thick = 0.72 * 1.1 / 31
    q = grid_points(32).abs() - 0.5 + thick
    expected = q.clamp_min(0).norm(dim=-1) + q.amax(-1).clamp_max(0) - thick
    inside = expected < -0.08
    assert (sdf[0, 0][inside] < -0.05).all()
    assert (sdf[1, 0][inside] > 0).all()
    outer = (expected > 0) & (expected < 0.05)
    assert (sdf[0, 0][outer] - expected[outer]).abs().max() < 0.002
    assert (color == 200).all()


def test_distances_far_from_each_mesh_are_its_own() -> None:
    rng = np.random.default_rng(3)
    meshes = [rng.normal(size=(n, 3, 3)) * (1, k, 1) for n, k in ((6, 1.0), (9, 0.1), (3, 3.0))]
    colors = [np.full((len(m), 3), 50 * i, np.uint8) for i, m in enumerate(meshes)]
    sdf, color = voxelize(meshes, colors, 32, 8, "cpu")
    thick = 0.72 * 1.1 / 31
    for i, mesh in enumerate(meshes):
        low, high = mesh.min((0, 1)), mesh.max((0, 1))
        placed = (mesh - (low + high) / 2) * ((1 - 2 * thick) / (high - low).max())
        points = grid_points(32).view(1, -1, 3).expand(len(mesh), -1, -1)
        exact = triangle_distance(points, torch.from_numpy(placed).float()).amin(0).view(32, 32, 32)
        field = sdf[i, 0].float()
        error = (field - (exact - thick))[field > 0]
        assert error.abs().max() < 1.1 / 31
        assert (color[i].int() - 50 * i).abs().max() <= 1


def test_small_gaps_do_not_let_the_outside_in() -> None:
    distance = torch.full((1, 16, 16, 16), 1.0)
    distance[:, 4:12, 4:12, 4:12] = 0.0
    distance[:, 6:10, 6:10, 6:10] = 1.0
    assert not outside(distance, 0.1)[0, 8, 8, 8]
    distance[:, 7:9, 7:9, :6] = 1.0
    reached = outside(distance, 0.1)
    assert reached[0, 8, 8, 8]
    assert not reached[0, 5, 5, 5]


def test_sets_are_merged_and_selected(objects: Objects) -> None:
    both = merge([objects.select([1, 2]), objects.select([7])])
    assert both.kind == [objects.kind[i] for i in (1, 2, 7)]
    assert torch.equal(both.sdf[2], objects.sdf[7])
    generator = torch.Generator().manual_seed(0)
    rebuilt = from_fields(both.sdf, both.color, both.kind, 128, generator)
    assert torch.allclose(rebuilt.extent, both.extent)
