"""Up and the floor are found again in rooms that are known, and objects stand on it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from shapes import box, icosphere

from sam3d_nb.errors import InputError
from sam3d_nb.examples import load_example
from sam3d_nb.frames import CAMERA, OPENGL_CAMERA, Pose, pose_between, rotation_matrix
from sam3d_nb.mesh import Mesh
from sam3d_nb.object3d import Object3D, Provenance
from sam3d_nb.scene import Scene
from sam3d_nb.scene.box import fitted_boxes, principal_axes
from sam3d_nb.scene.realign import METHODS
from sam3d_nb.scene.up import Votes, elect, floor_height, patches_of
from sam3d_nb.splats import Gaussians

SOURCE = Provenance("test", "1", "0", "")
UP = np.array([0.0, 1.0, 0.0])
HEIGHT = 1.5


def camera(tilt: float, roll: float = 0.0) -> Pose:
    """A camera 1.5 m above a Y-up world's floor that looks down by `tilt` degrees: to the world."""
    turn = Rotation.from_euler("YXZ", [20, -tilt, roll], degrees=True)
    stand = Pose(turn.as_quat(scalar_first=True), (0, HEIGHT, 0))
    return stand @ pose_between(CAMERA, OPENGL_CAMERA)


def degrees(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b, -1, 1))))


def block(size: tuple[float, float, float], pose: Pose, own: Rotation, name: str) -> Object3D:
    """A cuboid around 0 whose own frame is turned by `own`; `pose` is that of the upright one."""
    vertices, faces = box(size)
    mesh = Mesh(own.apply(vertices), faces)
    back = Pose(own.inv().as_quat(scalar_first=True))
    return Object3D(mesh, pose @ back, SOURCE, name)


def room(seed: int, eye: Pose, swing: float = 0.0, lift: float = 0.0) -> tuple[Scene, list[Pose]]:
    """Six blocks on the floor, and their true poses in the world.

    swing: degrees by which each is then tilted; lift: how far it floats, at most.
    """
    rng = np.random.default_rng(seed)
    objects, truth = [], []
    for number in range(6):
        size = rng.uniform(0.3, 1.2, size=3)
        heading = Rotation.from_rotvec(UP * rng.uniform(0, 2 * np.pi))
        place = (rng.uniform(-2, 2), size[1] / 2, rng.uniform(-6, -3))
        pose = Pose(heading.as_quat(scalar_first=True), place)
        angle = rng.uniform(0, 2 * np.pi)
        axis = np.array([np.cos(angle), 0, np.sin(angle)])
        tilted = Rotation.from_rotvec(axis * np.radians(swing)) * heading
        height = place[1] + rng.uniform(0, lift)
        moved = Pose(tilted.as_quat(scalar_first=True), (place[0], height, place[2]))
        own = Rotation.random(rng=rng)
        objects.append(block(tuple(size), eye.inverse() @ moved, own, f"block {number}"))
        truth.append(block(tuple(size), pose, own, "").pose)
    return Scene(tuple(objects)), truth


def floor_map(eye: Pose, table: float | None = None, noise: float = 0.0) -> np.ndarray:
    """What a camera of 90 degrees sees of a floor, and of a table at the height `table`."""
    v, u = np.mgrid[:96, :128] + 0.5
    rays = np.dstack([(u - 64) / 64, (v - 48) / 64, np.ones_like(u)])
    down = -(rays @ rotation_matrix(eye.rotation).T)[..., 1]
    points = np.where(down[..., None] > 0.05, rays * (HEIGHT / down)[..., None], np.nan)
    if table is not None:
        onto = rays * ((HEIGHT - table) / down)[..., None]
        over = (down > 0.05) & (np.abs(u - 64) < 30) & (v > 40)
        points = np.where(over[..., None], onto, points)
    wobble = np.random.default_rng(0).normal(0, noise, points.shape[:2])
    return (points * (1 + wobble)[..., None]).astype(np.float32)


def lowest(scene: Scene) -> list[float]:
    return [float(mesh.vertices[:, 1].min()) for mesh in scene.meshes()]


def assert_same_layout(scene: Scene, truth: list[Pose]) -> None:
    """Objects stand and face each other as in `truth`: but for one turn about up and one shift."""
    for pose, expected in zip(scene.poses, truth, strict=True):
        between = (scene.poses[0].inverse() @ pose).matrix()
        wanted = (truth[0].inverse() @ expected).matrix()
        np.testing.assert_allclose(between, wanted, atol=2e-3)


@pytest.mark.parametrize("method", ["obb", "obb+"])
@pytest.mark.parametrize(("tilt", "roll"), [(0, 0), (16, 0), (30, 8), (50, -10), (-10, 5)])
def test_up_and_floor_of_blocks(method: str, tilt: float, roll: float) -> None:
    eye = camera(tilt, roll)
    true_up = eye.inverse().matrix()[:3, 1]
    for seed in range(3):
        scene, truth = room(seed, eye)
        found = scene.realigned(method)
        assert found.realign == method
        assert degrees(found.up, true_up) < 1
        np.testing.assert_allclose(lowest(found), 0, atol=1e-3)
        assert found.world.translation[1] == pytest.approx(HEIGHT, abs=1e-2)
        assert_same_layout(found, truth)


def test_pca_of_a_low_even_room() -> None:
    eye = camera(25)
    scene = Scene(
        tuple(
            block(
                (0.4, 0.4, 0.4),
                eye.inverse() @ Pose(translation=(x, 0.2, z)),
                Rotation.identity(),
                "",
            )
            for x in (-2, 0, 2)
            for z in (-7, -5, -3)
        )
    )
    found = scene.realigned("pca")
    assert degrees(found.up, eye.inverse().matrix()[:3, 1]) < 1e-3
    np.testing.assert_allclose(lowest(found), 0, atol=1e-5)


def test_point_map_decides_where_boxes_lean() -> None:
    """All blocks lean by 12 degrees, each in another direction; the floor is in the picture."""
    eye = camera(20)
    scene, _ = room(1, eye, swing=12, lift=0.5)
    scene = replace(scene, pointmap=floor_map(eye))
    true_up = eye.inverse().matrix()[:3, 1]
    rigid = scene.realigned("obb")
    assert degrees(rigid.up, true_up) < 0.1
    assert rigid.world.translation[1] == pytest.approx(HEIGHT, abs=1e-3)
    for thing, pose in zip(rigid.objects, rigid.poses, strict=True):
        np.testing.assert_allclose(pose.matrix(), (rigid.world @ thing.pose).matrix(), atol=1e-12)

    laid = scene.realigned("obb+")
    np.testing.assert_allclose(lowest(laid), 0, atol=1e-6)
    for mesh in laid.meshes():  # four corners on the floor, four at one height
        heights = np.sort(mesh.vertices[:, 1])
        np.testing.assert_allclose(heights[:4], 0, atol=5e-3)
        assert np.ptp(heights[4:]) < 5e-3


def test_objects_keep_their_headings_when_laid() -> None:
    """Leaning, floating blocks turn upright by the least angle, so that each looks where it did."""
    eye = camera(20)
    scene, truth = room(2, eye, swing=12, lift=0.5)
    laid = replace(scene, pointmap=floor_map(eye)).realigned("obb+")
    assert_same_layout(laid, truth)


def test_same_scene_same_numbers() -> None:
    eye = camera(16)
    scene, _ = room(3, eye, swing=5)
    scene = replace(scene, pointmap=floor_map(eye, noise=0.01))
    for method in METHODS:
        first, second = scene.realigned(method), scene.realigned(method)
        assert first.poses == second.poses
        assert first.world == second.world
        again = first.realigned("obb").realigned(method)
        assert again.poses == first.poses
    mixed = replace(scene, objects=scene.objects[::-1], poses=()).realigned("obb+")
    np.testing.assert_allclose(mixed.up, scene.realigned("obb+").up, atol=1e-9)


def test_none_is_the_camera_turned() -> None:
    scene, _ = room(0, camera(16))
    back = scene.realigned("obb+").realigned("none")
    assert back.poses == scene.poses
    points = scene.objects[0].mesh_in_camera().vertices
    np.testing.assert_allclose(back.meshes()[0].vertices, points * (1, -1, -1), atol=1e-6)


def test_what_cannot_be_realigned_gets_a_sentence() -> None:
    scene, _ = room(0, camera(16))
    with pytest.raises(InputError, match=r"'OBB'.*none, pca, obb, obb\+"):
        scene.realigned("OBB")
    with pytest.raises(InputError, match="without objects"):
        Scene(()).realigned("pca")


@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize("table", [None, 0.7])
def test_floor_of_a_point_map(noise: float, table: float | None) -> None:
    """The floor, not the table above it, though that fills more of the picture."""
    eye = camera(30, 4)
    patches = patches_of(floor_map(eye, table, noise))
    up = elect(Votes(patches.normals, patches.areas))
    assert up is not None
    assert degrees(up, eye.inverse().matrix()[:3, 1]) < (0.01 if noise == 0 else 1)
    height = floor_height(patches, up)
    assert height == pytest.approx(-HEIGHT, abs=0.03)


def test_no_floor_in_a_wall_or_in_nothing() -> None:
    v, u = np.mgrid[:96, :128] + 0.5
    wall = np.dstack([(u - 64) / 32, (v - 48) / 32, np.full_like(u, 2.0)])
    patches = patches_of(wall)
    assert elect(Votes(patches.normals, patches.areas)) is None
    assert floor_height(patches, np.array([0.0, -1, 0])) is None
    nothing = patches_of(np.full((96, 128, 3), np.nan))
    assert len(nothing.areas) == 0
    assert floor_height(nothing, np.array([0.0, -1, 0])) is None
    scene, _ = room(0, camera(16))
    for points in (wall, np.full((96, 128, 3), np.nan)):
        found = replace(scene, pointmap=points.astype(np.float32)).realigned("obb")
        assert degrees(found.up, camera(16).inverse().matrix()[:3, 1]) < 1


def test_tightest_box_against_many_turns() -> None:
    """The plain way: try 20,000 random turns; none gives a smaller box."""
    rng = np.random.default_rng(0)
    for cloud in (
        rng.uniform(-1, 1, (200, 3)) * (1, 2, 0.3),
        icosphere(1)[0],
        rng.normal(size=(50, 3)),
    ):
        turn = Rotation.random(rng=rng)
        points = turn.apply(cloud) + np.array([5, 0, -2])
        boxes = fitted_boxes(points)
        volumes = [b.volume for b in boxes]
        assert volumes == sorted(volumes)
        for found in boxes:
            np.testing.assert_allclose(found.axes.T @ found.axes, np.eye(3), atol=1e-9)
            assert np.linalg.det(found.axes) == pytest.approx(1)
            local = (points - found.center) @ found.axes
            assert (np.abs(local) <= found.size / 2 + 1e-9).all()
        tried = Rotation.random(20_000, rng=rng).as_matrix() @ points.T
        best = np.ptp(tried, axis=2).prod(axis=1).min()
        assert boxes[0].volume <= best * 1.001


def test_a_cuboid_has_its_own_box() -> None:
    rng = np.random.default_rng(1)
    turn = Rotation.random(rng=rng)
    found = fitted_boxes(turn.apply(box((1, 2, 3))[0]))[0]
    assert sorted(found.size) == pytest.approx([1, 2, 3])
    assert sorted(found.face_areas) == pytest.approx([2, 3, 6])


@pytest.mark.parametrize(
    "points", [[[0, 0, 3]], [[0, 0, 3], [1, 1, 4]], [[0, 0, 3], [1, 0, 3], [0, 1, 4]]]
)
def test_points_on_a_plane_a_line_or_alone_have_boxes(points: list) -> None:
    found = fitted_boxes(np.array(points, dtype=float))[0]
    local = (np.array(points) - found.center) @ found.axes
    assert (np.abs(local) <= found.size / 2 + 1e-9).all()
    assert found.volume == pytest.approx(0, abs=1e-9)


def test_principal_axes_agree_with_the_eigenvectors() -> None:
    points = np.random.default_rng(0).normal(size=(100, 3)) * (1, 5, 2)
    _, vectors = np.linalg.eigh(np.cov(points.T))
    axes = principal_axes(points)
    np.testing.assert_allclose(np.abs((axes * vectors[:, ::-1]).sum(0)), 1, atol=1e-9)


def test_gaussians_alone_stand_on_the_floor() -> None:
    eye = camera(16)
    scene, _ = room(4, eye)
    clouds = []
    for thing in scene.objects:
        at = thing.mesh.vertices
        rest = (
            np.full_like(at, 0.01),
            np.tile([1.0, 0, 0, 0], (len(at), 1)),
            np.ones(len(at)),
            at * 0,
        )
        none = Mesh(np.zeros((0, 3)), np.zeros((0, 3)))
        clouds.append(replace(thing, mesh=none, gaussians=Gaussians(at, *rest)))
    for method in ("pca", "obb", "obb+"):
        found = Scene(tuple(clouds)).realigned(method)
        assert found.gaussians().centers[:, 1].min() == pytest.approx(0, abs=1e-5)
    by_mesh = scene.realigned("obb+")
    np.testing.assert_allclose(found.up, by_mesh.up, atol=1e-6)
    bare = replace(clouds[0], gaussians=None)
    with pytest.raises(InputError, match="neither triangles nor gaussians"):
        Scene((bare,)).realigned("obb")


def test_gravity_in_a_rendered_room() -> None:
    """The true meshes of the living room, their frames the camera's, which is tilted by 16.5."""
    example = load_example("living_room")
    meshes = {i: example.true_mesh(i) for i in example.masks}
    objects = [
        Object3D(mesh, Pose(), SOURCE, example.names[i]) for i, mesh in meshes.items() if mesh
    ]
    true = np.array(example.info["camera"]["world_to_camera"])
    for points in (None, example.pointmap):
        found = Scene(tuple(objects), pointmap=points).realigned("obb")
        assert degrees(found.up, true[:3, 2]) < 0.1
        assert -found.world.translation[1] == pytest.approx(true[:3, 3] @ true[:3, 2], abs=0.02)
