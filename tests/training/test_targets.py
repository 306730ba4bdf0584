"""What the networks of `tiny` are trained on, against shapes that are known."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation

from sam3d_nb.engine.results import pose_of
from sam3d_nb.frames import rotation_matrix
from sam3d_nb.model.layout import decode_layout
from sam3d_nb.model.preprocess import Moments
from sam3d_nb.tiny.config import TINY, VOXELS
from sam3d_nb.tiny.model import facing, upright
from training.data.objects import Objects, from_fields, nodes
from training.data.pool import Pool
from training.samples import Samples
from training.stages import by_rows, voxels_of
from training.targets import layouts, structure_fields, structured_latents, view_cubes

COUNT, SIZE, GRID = 6, 16, 48
BOX = torch.tensor([0.5, 0.2, 0.3])


def box_distance(points: torch.Tensor) -> torch.Tensor:
    q = points.abs() - BOX
    return q.clamp_min(0).norm(dim=-1) + q.amax(-1).clamp_max(0)


@pytest.fixture(scope="module")
def objects() -> Objects:
    """A ball and a box, each of one color."""
    x = nodes(GRID, "cpu")
    z, y, x = torch.meshgrid(x, x, x, indexing="ij")
    p = torch.stack([x, y, z], -1)
    sdf = torch.stack([p.norm(dim=-1) - 0.5, box_distance(p)])[:, None].half()
    color = torch.zeros(2, 3, 8, 8, 8, dtype=torch.uint8)
    color[0, 0], color[1, 1] = 255, 128
    return from_fields(sdf, color, ["ball", "box"], 4096, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Photos of noise, seen by cameras that are known."""
    generator = torch.Generator().manual_seed(1)
    random = Rotation.random(COUNT, random_state=0).as_matrix()
    offset = torch.tensor([0.1, -0.2, 3.0]) + 0.3 * torch.randn(COUNT, 3, generator=generator)
    up = torch.tensor([0, -1.0, 0]) + 0.3 * torch.randn(COUNT, 3, generator=generator)
    picture = torch.randint(0, 255, (COUNT, 3, SIZE, SIZE), generator=generator).byte()
    mask = torch.zeros(COUNT, SIZE, SIZE, dtype=torch.bool)
    mask[:, 4:12, 5:12] = True
    points = (0.2 * torch.randn(COUNT, 3, SIZE, SIZE, generator=generator)).half()
    camera = torch.eye(3).expand(COUNT, 3, 3)
    keep = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
    return Pool(
        image=picture,
        full_image=picture,
        mask=mask,
        full_mask=mask,
        points=points,
        full_points=points,
        photo=torch.ones_like(mask),
        full_photo=torch.ones_like(mask),
        center=offset,
        object=torch.arange(COUNT) % 2,
        linear=torch.tensor(random).float() * torch.linspace(0.5, 1.5, COUNT)[:, None, None],
        offset=offset,
        up=up / up.norm(dim=1, keepdim=True),
        intrinsics=camera,
        full_intrinsics=camera,
        visible=torch.ones(COUNT),
        tint=keep.expand(COUNT, 2, 3, 4),
        wave=torch.zeros(COUNT, 4),
    )


def test_a_view_cube_encloses_its_object_and_measures_distances_in_its_sides(pool, objects):
    views = view_cubes(pool, objects)
    sizes = torch.linspace(0.5, 1.5, COUNT)
    np.testing.assert_allclose(views.side[::2], 1.02 * sizes[::2], rtol=0.01)  # balls
    probe = torch.rand(COUNT, 50, 3, generator=torch.Generator().manual_seed(2)) - 0.5
    distance = views.distance(objects, probe)
    for i in range(0, COUNT, 2):
        wanted = probe[i].norm(dim=1) - 0.5 * sizes[i] / views.side[i]
        np.testing.assert_allclose(distance[i], wanted, atol=0.012)


def test_voxels_are_occupied_where_the_surface_is(pool, objects):
    views = view_cubes(pool, objects)
    fields, occupied = structure_fields(objects, views)
    assert fields.shape == (COUNT, 2, VOXELS, VOXELS, VOXELS)
    for i in range(0, COUNT, 2):
        centers = (occupied[i].nonzero() + 0.5) / VOXELS - 0.5
        off = (centers.norm(dim=1) - 0.49).abs() * VOXELS
        assert float(off.max()) < 1.2  # voxels
        assert 3000 < len(centers) < 6500
    assert bool((fields[0, 0, 14:18, 14:18, 14:18] == -1).all())
    assert bool((fields[0, 0, 0, 0, 0] == 1).all())


def test_structured_latents_are_what_they_are_said_to_be(pool, objects):
    views = view_cubes(pool, objects)
    coords = voxels_of(structure_fields(objects, views)[1], disturbed=False)
    latent = structured_latents(pool, objects, views, coords)
    ball = coords[:, 0] == 2
    centers = (coords[ball, 1:] + 0.5) / VOXELS - 0.5
    radius = centers.norm(dim=1)
    np.testing.assert_allclose(latent[ball, 0], (radius - 0.4902) * VOXELS, atol=0.2)
    np.testing.assert_allclose(latent[ball, 1:4], 1.5 * centers / radius[:, None], atol=0.2)
    np.testing.assert_allclose(latent[ball, 4:7], [[1.5, -1.5, -1.5]] * int(ball.sum()), atol=1e-4)


def test_layout_latents_decode_to_the_pose_of_the_view_cube(pool, objects):
    views = view_cubes(pool, objects)
    found = layouts(pool, views)
    for i in range(COUNT):
        latents = {name: value[i : i + 1] for name, value in found.latents.items()}
        moments = Moments(found.unit[i].expand(3), found.shift[i])
        pose = pose_of(decode_layout(latents, moments, config=TINY.layout))
        corner = torch.tensor([[[-0.5, -0.5, -0.5], [0.5, 0.2, -0.1]]])  # view: right, away, up
        x, y, z = corner[0].T
        placed = facing(pose).apply(torch.stack([x, z, -y], 1))  # mesh axes: right, up, nearer
        there = views[torch.tensor([i])].in_object(corner)[0]
        wanted = there @ pool.linear[i].T + pool.offset[i]
        np.testing.assert_allclose(placed, wanted, atol=1e-4)
        up = rotation_matrix(pose.rotation) @ [0, 1, 0]
        np.testing.assert_allclose(up, pool.up[i], atol=1e-5)


def test_what_is_turned_upright_stays_at_its_place(pool, objects):
    from sam3d_nb.mesh import Mesh

    found = layouts(pool, view_cubes(pool, objects))
    latents = {name: value[:1] for name, value in found.latents.items()}
    pose = pose_of(decode_layout(latents, config=TINY.layout))
    vertices = np.random.default_rng(0).normal(size=(9, 3))
    mesh = Mesh(vertices, np.arange(9).reshape(3, 3))
    turned, _ = upright(mesh, None, pose)
    assert not np.allclose(turned.vertices, vertices, atol=0.01)
    np.testing.assert_allclose(
        pose.apply(turned.vertices), facing(pose).apply(mesh.vertices), atol=1e-5
    )


def test_points_of_many_items_are_queried_as_one_by_one(pool, objects):
    samples = Samples(pool, objects, view_cubes(pool, objects), None)
    generator = torch.Generator().manual_seed(3)
    items = torch.randint(0, COUNT, (40,), generator=generator)
    points = torch.rand(40, 3, 3, generator=generator) - 0.5
    together = by_rows(samples.distance(samples.views), items, points)
    for item, point, found in zip(items, points, together, strict=True):
        alone = samples.views[item[None]].distance(objects, point[None])[0]
        np.testing.assert_allclose(found, alone, atol=1e-6)


def test_disturbed_voxels_are_near_the_true_ones(pool, objects):
    occupied = structure_fields(objects, view_cubes(pool, objects))[1]
    torch.manual_seed(0)
    disturbed = voxels_of(occupied, disturbed=True)
    kept = occupied[tuple(disturbed.T)].float().mean()
    assert 0.7 < float(kept) < 1
    found = torch.zeros_like(occupied)
    found[tuple(disturbed.T)] = True
    assert (found & ~occupied).any()  # too many
    deep = occupied & (F.avg_pool3d(found.float()[:, None], 3, 1, 1)[:, 0] > 8 / 27)
    assert (deep & ~found).any()  # missing, not as a part of a hole
    assert len(disturbed) != int(occupied.sum())
