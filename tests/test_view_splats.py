"""Pictures of gaussians against a plain loop; viewers of them by what they hold."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shapes import icosphere, mesh
from splat_objects import splat_object, surface_gaussians
from test_view import find

from sam3d_nb.errors import InputError
from sam3d_nb.frames import FACING_CAMERA, Pose
from sam3d_nb.mesh import Mesh
from sam3d_nb.scene import Scene
from sam3d_nb.splats import Gaussians, load_splats
from sam3d_nb.view import splatting
from sam3d_nb.view.camera import Camera, orbit_camera
from sam3d_nb.view.points import LEVELS, solid_parts
from sam3d_nb.view.show import show
from sam3d_nb.view.splatting import splat_picture
from sam3d_nb.view.thin import thinned_gaussians
from sam3d_nb.view.world import upright_gaussians

POSE = Pose(FACING_CAMERA, (0.3, -0.2, 2.0), (0.4, 0.4, 0.4))
BACKGROUND = (200, 100, 50)


def colored_ball() -> Mesh:
    shape = mesh(icosphere(4, 0.5))
    return replace(shape, colors=shape.vertices + 0.5)


def some_gaussians(count: int, seed: int = 0) -> Gaussians:
    generator = np.random.default_rng(seed)
    return Gaussians(
        generator.uniform(-0.5, 0.5, (count, 3)),
        generator.uniform(0.01, 0.2, (count, 3)),
        generator.normal(size=(count, 4)) / 2,
        generator.uniform(0, 1, count),
        generator.uniform(-0.1, 1.1, (count, 3)),
    )


def unit(gaussians: Gaussians) -> Gaussians:
    length = np.linalg.norm(gaussians.rotations, axis=1, keepdims=True)
    return replace(gaussians, rotations=gaussians.rotations / length)


def plain_picture(gaussians: Gaussians, camera: Camera) -> np.ndarray:
    """Pixel by pixel, gaussian by gaussian, the nearest first."""
    fx, fy = camera.intrinsics[0, 0], camera.intrinsics[1, 1]
    places = gaussians.centers @ camera.rotation.T + camera.translation
    seen = np.zeros((camera.height, camera.width, 3))
    clear = np.ones((camera.height, camera.width))
    for k in np.argsort(places[:, 2]):
        x, y, z = places[k]
        slope = np.array([[fx / z, 0, -fx * x / z**2], [0, fy / z, -fy * y / z**2]])
        axes = slope @ camera.rotation @ gaussians.axes[k]
        inverse = np.linalg.inv(axes @ axes.T + 0.3 * np.eye(2))
        middle = np.array([fx * x / z, fy * y / z]) + camera.intrinsics[:2, 2]
        for v in range(camera.height):
            for u in range(camera.width):
                off = np.array([u + 0.5, v + 0.5]) - middle
                alpha = min(0.99, gaussians.opacities[k] * np.exp(-off @ inverse @ off / 2))
                if alpha > 1 / 255:
                    seen[v, u] += clear[v, u] * alpha * gaussians.colors[k].clip(0, 1)
                    clear[v, u] *= 1 - alpha
    return 255 * (seen + clear[..., None] * np.array(BACKGROUND) / 255)


@pytest.mark.parametrize("piece", [1 << 21, 300])
def test_the_picture_is_the_plain_loop(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splatting, "PIECE", piece)
    gaussians = unit(some_gaussians(40))
    camera = orbit_camera(np.zeros(3), 0.8, 30, 15, size=(20, 24))
    found = splat_picture(gaussians, camera, BACKGROUND)
    assert found.shape == (20, 24, 3)
    difference = np.abs(found - plain_picture(gaussians, camera))
    assert difference.max() < 6  # it draws 3 deviations, the loop draws all
    assert difference.mean() < 0.6


def test_what_is_behind_the_camera_or_invisible_is_not_drawn() -> None:
    gaussians = unit(some_gaussians(10))
    camera = orbit_camera(np.zeros(3), 0.8, size=16)
    behind = replace(gaussians, centers=gaussians.centers + np.array([0, 0, 50]))
    clear = replace(gaussians, opacities=np.zeros(10))
    beside = replace(gaussians, centers=gaussians.centers + np.array([500, 0, 0]))
    for nothing in (behind, clear, beside):
        assert (splat_picture(nothing, camera, BACKGROUND) == BACKGROUND).all()


def test_gaussians_stand_where_the_mesh_stands() -> None:
    thing = splat_object(colored_ball(), 20_000, POSE)
    for items in ([thing], [thing, thing.mesh_in_camera()]):
        by_mesh, by_splats = (show(*items, size=90, kind=k) for k in ("mesh", None))
        assert np.array_equal(by_mesh.still, by_splats.still)
    as_mesh, as_splats = (show(thing, size=90, kind=k) for k in ("mesh", "gaussians"))
    drawn = [np.abs(v.still.astype(int) - v.still[0, 0]).max(-1) > 12 for v in (as_mesh, as_splats)]
    assert (drawn[0] & drawn[1]).sum() > 0.9 * (drawn[0] | drawn[1]).sum()
    both = drawn[0] & drawn[1]
    colors = [v.still[both].astype(float).mean(0) for v in (as_mesh, as_splats)]
    assert np.abs(colors[0] - colors[1]).max() < 45  # the mesh is lit


def test_the_viewer_gets_points_of_a_few_sizes_in_linear_light() -> None:
    thing = splat_object(colored_ball(), 3_000, POSE, with_mesh=False)
    assert thing.gaussians is not None
    view = show(thing, size=64)
    assert view.text.startswith("splats: 3,000 gaussians, 1.0")
    clouds = find(view, "Points")
    chosen, reach = solid_parts(thing.gaussians)
    assert len(chosen) == 3000, "all are more opaque than the highest level"
    places = np.concatenate([c.geometry.attributes["position"].array for c in clouds])
    colors = np.concatenate([c.geometry.attributes["color"].array for c in clouds])
    order, wanted = np.lexsort(places.T), np.lexsort(thing.gaussians.centers[chosen].T)
    np.testing.assert_array_equal(places[order], thing.gaussians.centers[chosen][wanted])
    expected = thing.gaussians.colors[chosen].clip(0, 1) ** 2.2
    np.testing.assert_allclose(colors[order], expected[wanted], rtol=1e-5)
    assert places.dtype == colors.dtype == np.float32
    sizes = np.array([cloud.material.size for cloud in clouds])
    assert 1 < len(sizes) <= 12
    assert sizes.max() < 5 * sizes.min() + 2 * reach.max()
    area = sum(c.material.size**2 * len(c.geometry.attributes["position"].array) for c in clouds)
    half = np.tan(np.radians(15))
    true_area = ((2 * reach * np.sort(thing.gaussians.scales[chosen])[:, 1]) ** 2).sum()
    radius = np.linalg.norm(thing.gaussians.centers, axis=1).max()
    assert area == pytest.approx(true_area / (radius * half) ** 2, rel=0.05)


def test_solid_points_cover_as_much_as_blended_ones_would() -> None:
    count = 20_000
    opacities = np.full(count, 0.3, dtype=np.float32)
    gaussians = replace(unit(some_gaussians(count)), opacities=opacities)
    chosen, reach = solid_parts(gaussians)
    low, high = LEVELS
    assert len(chosen) / count == pytest.approx((0.3 - low) / (high - low), abs=0.001)
    assert (reach > 0).all()


def test_more_than_a_viewer_can_take_is_thinned_and_said_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sam3d_nb.view.subject.GAUSSIANS", 1000)
    gaussians = surface_gaussians(colored_ball(), 5_000)
    view = show(gaussians, size=48)
    page = "".join(w.value for w in find(view, "HTML"))
    assert "5,000 gaussians, 1,000 of them shown, and larger; drag to turn" in page
    clouds = find(view, "Points")
    assert sum(len(c.geometry.attributes["position"].array) for c in clouds) <= 1000
    small = thinned_gaussians(gaussians, 1000)
    ratio = (small.scales**2).sum() / (gaussians.scales**2).sum()
    assert ratio == pytest.approx(1, rel=1e-3)
    assert thinned_gaussians(gaussians, 5000) is gaussians
    again = thinned_gaussians(gaussians, 1000)
    np.testing.assert_array_equal(small.centers, again.centers)


def test_a_loaded_file_and_a_scene_are_shown(tmp_path: Path) -> None:
    thing = splat_object(colored_ball(), 500, POSE, with_mesh=False)
    loaded = load_splats(thing.save_splats(tmp_path / "splats.ply"))
    alone = show(loaded, size=40)
    assert alone.text.startswith("gaussians: 500 gaussians, 1.0")
    assert np.abs(alone.still.astype(int) - show(thing, size=40).still).max() <= 1
    scene = show(Scene((thing, thing)), size=40)
    assert scene.text.startswith("scene of 2 objects: 1,000 gaussians")
    placed = upright_gaussians([thing])
    np.testing.assert_allclose(placed.centers.mean(0), (0.3, 0.2, -2.0), atol=0.02)
    seen = upright_gaussians(thing.gaussians_in_camera(), "camera")
    np.testing.assert_allclose(seen.centers, placed.centers, atol=1e-6)


def test_what_has_no_gaussians_gets_a_sentence() -> None:
    thing = splat_object(colored_ball(), 10, POSE)
    without = replace(thing, gaussians=None)
    for items, message in (
        ([without], "'splats' has no gaussians: sam-3d-objects made none"),
        ([thing.mesh], "shown as gaussians but got Mesh"),
        ([Scene((without,))], "none of the 1 objects has gaussians"),
        ([replace(thing, gaussians=unit(some_gaussians(0)))], "nothing to show: no gaussian"),
        (["a name"], "but got str"),
    ):
        with pytest.raises(InputError, match=message):
            show(*items, kind="gaussians")
    with pytest.raises(InputError, match="a kind is 'mesh' or 'gaussians' but got 'splat'"):
        show(thing, kind="splat")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no mesh here has a triangle"):
        show(splat_object(colored_ball(), 10, POSE, with_mesh=False), kind="mesh")
