"""The small model: what it does besides the stages that it shares with the official one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from scipy import ndimage
from tiny_plain import carried_on, observed, painted_colors, sculpted_distances

from sam3d_nb.frames import FACING_CAMERA, Pose, project
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.color import to_linear, to_srgb
from sam3d_nb.splats import Gaussians
from sam3d_nb.tiny.config import TINY
from sam3d_nb.tiny.observe import SURE, observe
from sam3d_nb.tiny.paint import paint
from sam3d_nb.tiny.sculpt import Sculptor
from sam3d_nb.tiny.spread import spread
from sam3d_nb.view.camera import Camera
from sam3d_nb.view.raster import rasterize
from sam3d_nb.weights.config import check_consistent, from_json, to_json

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
HEIGHT, WIDTH, FOCAL, DISTANCE, RADIUS, COUNT = 96, 128, 120.0, 3.0, 0.5, 16
CAMERA = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
POSE = Pose(FACING_CAMERA, (0.0, 0.0, DISTANCE), (2 * RADIUS,) * 3)


def seen_ball(finer: int = 1, wall: float = 5.0) -> tuple[np.ndarray, np.ndarray]:
    """Mask and point map of a ball in front of a wall, in a photo of `finer` pixels."""
    v, u = (np.mgrid[: finer * HEIGHT, : finer * WIDTH] + 0.5) / finer
    rays = np.stack([(u - WIDTH / 2) / FOCAL, (v - HEIGHT / 2) / FOCAL, np.ones_like(u)], -1)
    a, b = (rays**2).sum(-1), DISTANCE * rays[..., 2]
    root = b**2 - a * (DISTANCE**2 - RADIUS**2)
    mask = root > 0
    depth = np.where(mask, (b - np.sqrt(np.maximum(root, 0))) / a, wall)
    return mask, rays * depth[..., None]


@pytest.fixture(scope="module")
def ball() -> tuple[np.ndarray, np.ndarray]:
    return seen_ball()


def centers() -> np.ndarray:
    """Centers of the view cube's voxels (R, R, R, 3) in the camera, one by one."""
    found = np.zeros((COUNT, COUNT, COUNT, 3))
    for place in np.ndindex(COUNT, COUNT, COUNT):
        right, away, up = (np.array(place) + 0.5) / COUNT - 0.5
        found[place] = np.array([right, -up, away]) * 2 * RADIUS + [0, 0, DISTANCE]
    return found


def test_the_configuration_fits_and_survives_its_file():
    check_consistent(TINY)
    assert from_json(to_json(TINY)) == TINY


def test_what_the_camera_sees_decides_and_the_rest_is_left_to_the_network(ball):
    mask, points = ball
    logits = torch.full((1, 1, COUNT, COUNT, COUNT), 0.5)
    found = observe(logits, POSE, points, mask, CAMERA)[0, 0].numpy()
    place = centers()
    radius = np.linalg.norm(place - [0, 0, DISTANCE], axis=-1)
    voxel = 2 * RADIUS / COUNT
    front = place[..., 2] < DISTANCE
    clear = radius > RADIUS + 2.5 * voxel
    assert (found[clear & front] == -SURE).mean() > 0.95  # in front of the ball, or beside it
    assert (found[radius < RADIUS - 1.5 * voxel] == 0.5).all()  # inside: not seen
    seen = (found == SURE).sum()
    assert seen > 50
    assert (np.abs(radius - RADIUS)[found == SURE] < voxel).all()
    assert not (found[~front & (radius < RADIUS)] == -SURE).any()


def test_nothing_is_known_without_points(ball):
    mask, points = ball
    logits = torch.randn(1, 1, COUNT, COUNT, COUNT, generator=torch.Generator().manual_seed(0))
    unknown = np.full_like(points, np.nan)
    assert torch.equal(observe(logits, POSE, unknown, np.ones_like(mask), CAMERA), logits)


def test_a_hole_in_the_point_map_leaves_what_is_behind_it_alone(ball):
    mask, points = ball
    holed = points.copy()
    middle = np.s_[HEIGHT // 2 - 12 : HEIGHT // 2 + 12, WIDTH // 2 - 12 : WIDTH // 2 + 12]
    holed[middle] = np.nan
    half, count = COUNT // 2, 2 * COUNT + 1
    logits = torch.full((1, 1, COUNT, COUNT, COUNT), 0.5)
    found = observe(logits, POSE, holed, mask, CAMERA)[0, 0].numpy()
    assert (found[half, :, half] == 0.5).all()
    _, inside = sculpted((mask, holed), np.full((count,) * 3, -0.5))
    assert inside[COUNT, 1:-1, COUNT].all()


def test_nothing_left_by_carving_is_no_carving(ball):
    mask, points = ball
    count = 2 * COUNT + 1
    distance = np.full((count,) * 3, 0.5)
    distance[2, 2, 2] = -0.5  # in front of the ball, beside its outline
    _, inside = sculpted((np.zeros_like(mask), points), distance)
    assert inside.sum() == 1
    one = np.zeros_like(mask)
    one[0, 0] = True
    unknown = np.full_like(points, np.nan)
    _, inside = sculpted((one, unknown), distance)
    assert inside.sum() == 1


def test_a_cube_behind_the_camera_changes_nothing(ball):
    mask, points = ball
    logits = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    behind = Pose(FACING_CAMERA, (0.0, 0.0, -5.0), (1.0,) * 3)
    assert torch.equal(observe(logits, behind, points, mask, CAMERA), logits)


def test_an_estimated_point_map_says_nothing_of_the_object_itself(ball):
    mask, points = ball
    logits = torch.full((1, 1, COUNT, COUNT, COUNT), 0.5)
    found = observe(logits, POSE, points, mask, CAMERA, exact=False)[0, 0].numpy()
    place = centers()
    at = project(place.reshape(-1, 3), CAMERA).reshape(*place.shape[:-1], 2)
    far = np.linalg.norm(at - [WIDTH / 2, HEIGHT / 2], axis=-1) - FOCAL * RADIUS / DISTANCE
    assert (found[far > 6] == -SURE).all()  # px beside the ball
    assert (found[far < -2] == 0.5).all()


def sculpted(ball, distance: np.ndarray, **options) -> tuple[np.ndarray, np.ndarray]:
    """Grid vertices in the camera frame and whether they are inside after sculpting."""
    mask, points = ball
    axis = np.linspace(-0.5, 0.5, 2 * COUNT + 1)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    sculptor = Sculptor(POSE, points, mask, CAMERA, **options)
    found = sculptor(torch.from_numpy(grid).float(), torch.from_numpy(distance).float())
    x, y, z = np.moveaxis(grid, -1, 0)
    return np.stack([x, -z, y], -1) * 2 * RADIUS + [0, 0, DISTANCE], found.numpy() < 0


def test_a_full_cube_is_carved_to_what_is_seen_of_the_ball(ball):
    count = 2 * COUNT + 1
    place, inside = sculpted(ball, np.full((count,) * 3, -0.5))
    radius = np.linalg.norm(place - [0, 0, DISTANCE], axis=-1)
    front, step = place[..., 2] < DISTANCE, 2 * RADIUS / (2 * COUNT)
    assert not inside[front & (radius > RADIUS + 1.5 * step)].any()
    assert inside[radius < RADIUS - 0.5 * step].all()
    behind = (place[..., 2] > DISTANCE) & (np.linalg.norm(place[..., :2], axis=-1) < 0.3)
    assert inside[:, :-1][behind[:, :-1]].all()  # hidden by the ball: not for the photo to say
    assert not inside[:, -1].any()  # and closed at the border of the grid


def test_what_is_seen_is_made_solid_where_nothing_was_decoded(ball):
    count = 2 * COUNT + 1
    for exact in (True, False):
        place, inside = sculpted(ball, np.full((count,) * 3, 0.5), exact=exact)
        radius = np.linalg.norm(place - [0, 0, DISTANCE], axis=-1)
        assert inside.any()
        assert (np.abs(radius - RADIUS)[inside] < 0.12).all()
        assert (place[..., 2][inside] < DISTANCE).all()


@pytest.mark.parametrize("nearer", [0.02, 0.5])
def test_what_may_be_hidden_stays_and_what_is_below_a_floor_goes(nearer):
    """Half of the ball is not of the mask: something stands before it, or a floor begins there."""
    mask, points = seen_ball(wall=DISTANCE)
    half = np.zeros_like(mask)
    half[HEIGHT // 2 :] = True
    depth = np.where(half, points[HEIGHT // 2, WIDTH // 2, 2] - nearer, points[..., 2])
    points = points / points[..., 2:] * depth[..., None]
    place, inside = sculpted((mask & ~half, points), np.full((2 * COUNT + 1,) * 3, -0.5))
    below = (place[..., 1] > 0.15) & (np.abs(place[..., 0]) < 0.2) & (place[..., 2] > DISTANCE)
    below[:, -1] = below[:, :, 0] = False  # closed at the border of the grid
    assert below.any()
    assert inside[below].all() if nearer > 0.1 else not inside[below].any()


def test_on_a_large_photo_what_is_behind_the_outline_is_not_the_object():
    """Pixels are joined to blocks, of which those at the outline show the wall as well."""
    finer, count = 12, 2 * COUNT + 1
    mask, points = seen_ball(finer, wall=DISTANCE + 0.7 * RADIUS)
    camera = CAMERA.copy()
    camera[:2] *= finer
    axis = torch.linspace(-0.5, 0.5, count)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    found = Sculptor(POSE, points, mask, camera)(grid, torch.full((count,) * 3, 0.5))
    solid = grid[found < 0]
    assert len(solid) > 100
    assert float(solid[:, 1].max()) < 0.05  # away from the camera: before the ball's middle


def test_a_shape_that_agrees_stays_whatever_the_depth(ball):
    count = 2 * COUNT + 1
    axis = np.linspace(-0.5, 0.5, count)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    distance = (np.linalg.norm(grid, axis=-1) - 0.3) * 16  # smaller than the ball, same center
    place, inside = sculpted(ball, distance, exact=False)
    before = distance < 0
    assert (inside[before]).all()
    radius = np.linalg.norm(place - [0, 0, DISTANCE], axis=-1)
    grown = inside & ~before
    assert (radius[grown] > 0.3).all()


# The same on every device as point by point


@pytest.fixture(scope="module")
def holed(ball) -> tuple[np.ndarray, np.ndarray]:
    """The ball with a part that is no part of its mask, and points that are unknown."""
    mask, points = (value.copy() for value in ball)
    mask[40:52, 70:100] = False
    points[45:60, 40:50] = np.nan
    points[10:20, :] = np.nan
    return mask, points


@pytest.mark.parametrize("device", DEVICES)
def test_voxels_are_observed_on_a_device_as_one_by_one(holed, device):
    mask, points = holed
    logits = torch.randn(1, 1, COUNT, COUNT, COUNT, generator=torch.Generator().manual_seed(0))
    found = observe(logits.to(device), POSE, points, mask, CAMERA).cpu().numpy()[0, 0]
    wanted = observed(logits.numpy()[0, 0], POSE, points, mask, CAMERA)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("exact", [True, False])
def test_a_surface_is_sculpted_on_a_device_as_point_by_point(holed, device, exact):
    mask, points = holed
    axis = np.linspace(-0.5, 0.5, 2 * COUNT + 1)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    noise = np.random.default_rng(0).normal(size=grid.shape[:3])
    distance = (np.linalg.norm(grid, axis=-1) - 0.4) * 16 + noise
    found = Sculptor(POSE, points, mask, CAMERA, exact)(
        *(torch.from_numpy(value).float().to(device) for value in (grid, distance))
    )
    distance = distance.astype(np.float32)
    wanted = sculpted_distances(grid, distance, POSE, points, mask, CAMERA, exact=exact)
    np.testing.assert_allclose(found.cpu().numpy(), wanted, atol=1e-5)
    assert (np.abs(wanted - distance) > 1e-3).any()


@pytest.mark.parametrize("device", DEVICES)
def test_a_mesh_is_painted_on_a_device_as_vertex_by_vertex(ball, painted, device):
    mask, _ = ball
    mesh, _, splats, _ = painted
    random = np.random.default_rng(1)
    image = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    gray = Mesh(mesh.vertices, mesh.faces, np.random.default_rng(0).random(mesh.vertices.shape))
    after, more = paint(gray, splats, POSE, image, mask, CAMERA, device)
    wanted = painted_colors(gray, POSE, image, mask, CAMERA)
    np.testing.assert_allclose(after.colors, wanted, atol=1e-5)
    assert more is not None


@pytest.fixture(scope="module")
def painted(ball) -> tuple[Mesh, Mesh, Gaussians, np.ndarray]:
    """A grey ball before and after, gaussians after, and the photo, whose columns differ."""
    mask, _ = ball
    n, m = 24, 48
    theta, phi = np.meshgrid(np.linspace(0.05, np.pi - 0.05, n), np.linspace(0, 2 * np.pi, m))
    direction = np.stack(
        [np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)], -1
    ).reshape(-1, 3)
    i, j = (g.ravel() for g in np.meshgrid(np.arange(m - 1), np.arange(n - 1), indexing="ij"))
    a, b, c, d = i * n + j, i * n + j + 1, (i + 1) * n + j, (i + 1) * n + j + 1
    faces = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])
    mesh = Mesh(direction / 2, faces, colors=np.full((n * m, 3), 0.2))
    outward = (mesh.normals * direction).sum(1).mean()
    mesh = Mesh(mesh.vertices, faces[:, ::-1] if outward < 0 else faces, colors=mesh.colors)
    count = len(direction)
    splats = Gaussians(
        direction / 2,
        np.full((count, 3), 0.01),
        np.tile([1.0, 0, 0, 0], (count, 1)),
        np.ones(count),
        np.full((count, 3), 0.5),
    )
    image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    image[..., 0] = np.linspace(0, 255, WIDTH)
    image[..., 1] = 255
    after, splats = paint(mesh, splats, POSE, image, mask, CAMERA)
    return mesh, after, splats, image


def test_seen_surface_has_the_photo_s_colors(painted):
    mesh, after, splats, image = painted
    placed = POSE.apply(mesh.vertices)
    near = placed[:, 2] < DISTANCE - 0.35
    assert near.sum() > 40
    column = project(placed, CAMERA)[:, 0]
    red = np.interp(column - 0.5, np.arange(WIDTH), image[0, :, 0] / 255)
    wanted = np.stack([red, np.ones_like(red), np.zeros_like(red)], 1)
    np.testing.assert_allclose(after.colors[near], to_linear(wanted)[near], atol=0.02)
    np.testing.assert_allclose(splats.colors[near], wanted[near], atol=0.02)


def test_hidden_surface_gets_colors_that_go_with_what_is_seen(painted):
    mesh, after, splats, _ = painted
    depth = POSE.apply(mesh.vertices)[:, 2]
    hidden, near = depth > DISTANCE + 0.4, depth < DISTANCE - 0.35
    assert np.ptp(after.colors[hidden], axis=0).max() < 1e-6  # one grey before, one color after
    red, green, blue = after.colors[hidden][0]
    assert green > 0.9
    assert blue < 0.1
    assert after.colors[near, 0].min() < red < after.colors[near, 0].max()
    assert splats.colors[hidden, 1].min() > 0.9
    assert (after.faces == mesh.faces).all()


@pytest.mark.parametrize(("finer", "blur"), [(1, 0.6), (20, 0.8)])
def test_nothing_beside_an_object_colors_its_outline(painted, finer, blur):
    """A red ball on white, whose photo is blurred across the outline of the mask."""
    mesh, _, splats, _ = painted
    mask, _ = seen_ball(finer)
    red = np.array([0.6, 0.1, 0.1])
    share = ndimage.gaussian_filter(mask.astype(float), blur)[..., None]
    image = (255 * (1 + share * (red - 1))).round().astype(np.uint8)
    assert image[mask][:, 1].max() > 2 * 255 * red[1]
    colored = mesh.with_colors(np.tile(to_linear(red), (len(mesh.vertices), 1)))
    splats = replace(splats, colors=np.full_like(splats.colors, 0.3))
    camera = np.diag([finer, finer, 1]) @ CAMERA
    after, more = paint(colored, splats, POSE, image, mask, camera)
    assert (to_srgb(after.colors) - red).max() < 0.04
    facing = POSE.apply(mesh.vertices)[:, 2] < DISTANCE - 0.2
    np.testing.assert_allclose(more.colors[facing], np.tile(red, (facing.sum(), 1)), atol=0.04)


@pytest.mark.parametrize("block", [np.s_[30:60, 40:70], np.s_[:0]], ids=["beside a block", "alone"])
@pytest.mark.parametrize(
    "wire",
    [np.s_[20:70, 80:82], np.s_[20:70, -2:], np.s_[-2:, 40:70], np.s_[:1, 40:70]],
    ids=["amid the photo", "at its right", "at its bottom", "at its top"],
)
def test_a_wire_without_inner_pixels_keeps_its_color(wire, block):
    """Blue and one or two pixels wide, perhaps beside a red block."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    image = np.full((HEIGHT, WIDTH, 3), 255, dtype=np.uint8)
    mask[block] = mask[wire] = True
    image[block], image[wire] = (200, 20, 20), (20, 20, 200)
    vertices, faces = pixel_squares(np.argwhere(mask))
    mesh = Mesh(POSE.inverse().apply(vertices), faces, np.full((len(vertices), 3), 0.5))
    after, _ = paint(mesh, None, POSE, image, mask, CAMERA)
    middle = after.colors.reshape(-1, 4, 3)[:, ::2].mean(1)  # what the pixels' centers see
    np.testing.assert_allclose(middle, to_linear(image[mask] / 255), atol=0.05)


@pytest.mark.parametrize("width", [2, 4, 6])
def test_a_thin_part_has_no_color_of_another(width):
    """A blue bar, so many pixels wide, five pixels beside a red block."""
    pixel = DISTANCE / FOCAL
    block = trimesh.creation.box([30 * pixel, 30 * pixel, 10 * pixel])
    bar = trimesh.creation.box([width * pixel, 50 * pixel, width * pixel])
    bar.apply_translation([(20 + width / 2) * pixel, 0, 0])
    both = trimesh.util.concatenate([part.subdivide_to_size(pixel) for part in (block, bar)])
    placed = both.vertices + np.array([0, 0, DISTANCE])
    faces = torch.tensor(both.faces)
    mask = rasterize(torch.tensor(placed), faces, Camera(HEIGHT, WIDTH, CAMERA)).covered.numpy()
    edge = WIDTH // 2 + 18
    assert not mask[:, edge].any()
    image = np.full((HEIGHT, WIDTH, 3), 255, dtype=np.uint8)
    red, blue = np.array([[200, 20, 20], [20, 20, 200]]) / 255
    image[:, :edge][mask[:, :edge]] = 255 * red
    image[:, edge:][mask[:, edge:]] = 255 * blue
    mesh = Mesh(POSE.inverse().apply(placed), both.faces, np.full(both.vertices.shape, 0.5))
    after, _ = paint(mesh, None, POSE, image, mask, CAMERA)
    x, y, z = both.vertices.T
    front = np.isclose(z, -width / 2 * pixel) & (x > 18 * pixel)
    np.testing.assert_allclose(after.colors[front].mean(0), to_linear(blue), atol=0.01)
    middle = np.argmin(x**2 + y**2 - z)  # of the block's back, too far from all that is seen
    assert after.colors[x > 18 * pixel, 0].max() < after.colors[middle, 0] + 0.01


@pytest.mark.parametrize("device", DEVICES)
def test_colors_are_carried_on_over_edges(device):
    """A strip of triangles; one end is red, one blue, and a triangle lies apart."""
    count = 10
    low = torch.arange(count - 1)
    lower = torch.stack([low, low + 1, low + count], 1)
    upper = torch.stack([low + 1, low + 1 + count, low + count], 1)
    faces = torch.cat([lower, upper, torch.tensor([[20, 21, 22]])]).to(device)
    colors, known = torch.zeros(23, 3, dtype=torch.float64), torch.zeros(23, dtype=torch.bool)
    colors[[0, 10]], colors[[9, 19]] = torch.eye(3, dtype=torch.float64)[[0, 2]][:, None]
    known[[0, 10, 9, 19]] = True
    found, edges = spread(colors.to(device), known.to(device), faces, 3)
    wanted, plain = carried_on(colors.numpy(), known.numpy(), faces.cpu().numpy(), 3)
    np.testing.assert_allclose(found.cpu().numpy(), wanted, atol=1e-9)
    np.testing.assert_array_equal(edges.cpu().numpy(), plain)
    assert edges[:5].tolist() == [0, 1, 2, 3, torch.inf]
    assert found[3].tolist() == [1, 0, 0]
    assert found[18].tolist() == [0, 0, 1]
    assert found[22].tolist() == [0, 0, 0]


def pixel_squares(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (4N, 3) and faces (2N, 3) of squares that fill pixels, rows and columns (N, 2)."""
    corner = np.array([[0, 0], [0, 1], [1, 1], [1, 0]])
    row, column = (places[:, None] + corner).reshape(-1, 2).T
    at = np.stack([column, row, np.ones_like(row)], 1) @ np.linalg.inv(CAMERA).T
    faces = np.array([[0, 2, 1], [0, 3, 2]]) + 4 * np.arange(len(places))[:, None, None]
    return at * DISTANCE, faces.reshape(-1, 3)


def test_an_empty_mesh_is_left_as_it_is(ball):
    mask, _ = ball
    empty = Mesh(np.zeros((0, 3)), np.zeros((0, 3)))
    image = np.zeros((*mask.shape, 3), dtype=np.uint8)
    assert paint(empty, None, POSE, image, mask, CAMERA) == (empty, None)
