"""Raw meshes finished for other programs, and saved."""

import json
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import fields
import numpy as np
import pytest
import shapes
from gltf import assert_valid_glb

from sam3d_nb.errors import InputError, ReconstructionError
from sam3d_nb.events import Event, FinishingEvent
from sam3d_nb.frames import Pose
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.finish import Finishing, finish
from sam3d_nb.mesh.load import load_mesh
from sam3d_nb.mesh.topology import topology
from sam3d_nb.object3d import Object3D, Provenance
from sam3d_nb.scene import Scene
from sam3d_nb.splats import Gaussians


@cache
def raw() -> Mesh:
    """A chair with its feet cut off and a few triangles lost."""
    mesh = fields.chair(40)
    keep = (mesh.vertices[mesh.faces][:, :, 1] > -0.45).all(1)
    keep &= np.random.default_rng(0).random(len(keep)) > 0.01
    return fields.cut(mesh, keep)


OPTIONS = {
    "nothing": {},
    "fewer triangles": {"triangles": 2000},
    "holes": {"fill_holes": True},
    "watertight": {"watertight": True},
    "texture": {"texture": 256},
    "planar": {"triangles": 2000, "texture": 256, "charts": "planar"},
    "everything": {"triangles": 2000, "fill_holes": True, "watertight": True, "texture": 256},
}


@pytest.mark.parametrize("name", list(OPTIONS))
def test_what_was_asked_for_and_a_valid_file(name: str, tmp_path: Path) -> None:
    options = OPTIONS[name]
    mesh = finish(raw(), **options)
    found = topology(mesh)
    if not options:
        assert mesh is raw()
    if "triangles" in options:
        assert 0.95 * options["triangles"] < len(mesh.faces) <= options["triangles"]
    if "fill_holes" in options or "watertight" in options:
        assert found.open_edges == 0
    assert found.watertight == ("watertight" in options or "fill_holes" in options)
    assert (mesh.texture is not None) == ("texture" in options)
    assert (mesh.colors is not None) == ("texture" not in options)

    path = fields.object_of(mesh).save(tmp_path / "chair.glb")
    assert_valid_glb(path)
    loaded = load_mesh(path)
    if mesh.texture is None:
        np.testing.assert_allclose(loaded.colors, mesh.colors, atol=1e-6)
    else:
        np.testing.assert_array_equal(loaded.texture, mesh.texture)
        np.testing.assert_allclose(loaded.uv, mesh.uv, atol=1e-6)
    again = finish(raw(), **options)
    for part in ("vertices", "faces", "colors", "uv", "texture"):
        np.testing.assert_array_equal(getattr(mesh, part), getattr(again, part))


def test_watertight_and_small_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = finish(fields.chair(40), triangles=300, watertight=True)
    assert len(mesh.faces) <= 300
    assert topology(mesh).watertight
    body = fields.chair(24)
    monkeypatch.setattr("sam3d_nb.mesh.finish.reduced", lambda *_: (body.vertices, body.faces))
    with pytest.raises(ReconstructionError, match="cannot be closed with 40; ask for more"):
        finish(body, triangles=40, watertight=True)


def test_an_object_is_returned_with_the_mesh_that_was_asked_for() -> None:
    source = Provenance("silhouette", "1", "0.1", "0" * 64)
    given = Object3D(raw(), Pose((1.0, 0.0, 0.0, 0.0), (1.0, 2.0, 3.0), (4.0, 4.0, 4.0)), source)
    light = finish(given, triangles=500, texture=256)
    expected = finish(given.mesh, triangles=500, texture=256)
    np.testing.assert_array_equal(light.mesh.vertices, expected.vertices)
    np.testing.assert_array_equal(light.mesh.texture, expected.texture)
    assert (light.pose, light.provenance) == (given.pose, source)
    assert topology(finish(given, triangles=500, watertight=True).mesh).watertight
    assert not topology(given.mesh).watertight
    lids = finish(given, fill_holes=True).mesh
    np.testing.assert_array_equal(lids.faces, finish(given.mesh, fill_holes=True).faces)
    assert len(lids.faces) > len(given.mesh.faces)


def test_a_wish_for_many_objects_is_checked_at_once_and_is_what_finish_does() -> None:
    given = fields.object_of(raw())
    wish = Finishing(triangles=500, texture=256)
    events: list[Event] = []
    made = wish.apply(given, events.append)
    assert events == [FinishingEvent(0.0, given.name), FinishingEvent(1.0, given.name)]
    expected = finish(given, triangles=500, texture=256)
    np.testing.assert_array_equal(made.mesh.vertices, expected.mesh.vertices)
    np.testing.assert_array_equal(made.mesh.texture, expected.mesh.texture)
    assert wish
    assert not Finishing()
    plain = Finishing(np.int64(500), np.True_, np.False_, np.int64(256))  # type: ignore[arg-type]
    assert json.dumps(asdict(plain)) == json.dumps(asdict(replace(wish, fill_holes=True)))
    assert Finishing().apply(given, events.append) is given
    empty = replace(given, mesh=Mesh(np.zeros((0, 3)), np.zeros((0, 3))))
    assert wish.apply(empty, events.append) is empty, "there may be gaussians alone"
    assert len(events) == 2
    with pytest.raises(InputError, match="whole number of triangles from 4 up, not to 3"):
        Finishing(triangles=3)
    with pytest.raises(InputError, match="pixels a side but 5 were asked for"):
        Finishing(texture=5)
    with pytest.raises(InputError, match="watertight is True or False but got 'false'"):
        Finishing(watertight="false")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="fill_holes is True or False but got 5"):
        finish(raw(), fill_holes=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("thing", [Scene(()), "chair.glb", None])
def test_what_is_neither_mesh_nor_object(thing: object) -> None:
    with pytest.raises(InputError, match=r"got a (Scene|str|NoneType); scenes have .*`finished`"):
        finish(thing, triangles=500)  # type: ignore[type-var]


def test_an_object_without_vertex_colors_has_those_of_its_gaussians_baked() -> None:
    colored = raw()
    count = len(colored.vertices)
    red = Gaussians(
        colored.vertices,
        np.full((count, 3), 0.02, dtype=np.float32),
        np.tile(np.array([1.0, 0, 0, 0], dtype=np.float32), (count, 1)),
        np.ones(count, dtype=np.float32),
        np.tile(np.array([1.0, 0, 0], dtype=np.float32), (count, 1)),
    )
    source = Provenance("silhouette", "1", "0.1", "0" * 64)
    pose = Pose((1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 3.0), (1.0, 1.0, 1.0))
    plain = Mesh(colored.vertices, colored.faces)
    made = finish(Object3D(plain, pose, source, gaussians=red), triangles=500, texture=256).mesh
    assert made.texture is not None
    assert (made.texture[..., 0] > 200).mean() > (made.texture[..., 1] > 200).mean()


def test_a_textured_mesh_stays_textured() -> None:
    textured = finish(raw(), texture=256)
    assert finish(textured) is textured
    assert finish(textured, triangles=10**6) is textured
    small = finish(textured, triangles=2000, watertight=True)
    assert small.texture.shape == (256, 256, 3)
    assert topology(small).watertight
    direct = finish(raw(), triangles=2000, watertight=True, texture=256)
    difference = small.texture.mean((0, 1)) - direct.texture.mean((0, 1))
    assert np.abs(difference).max() < 10


def test_a_tiny_texture_grows_to_the_smallest_that_is_baked() -> None:
    texture = np.full((4, 2, 3), 99, np.uint8)
    dot = Mesh(raw().vertices, raw().faces, uv=np.zeros((len(raw().vertices), 2)), texture=texture)
    small = finish(dot, triangles=100)
    assert small.texture.shape == (16, 16, 3)
    assert (small.texture == 99).all()


def test_a_mesh_without_colors() -> None:
    plain = Mesh(raw().vertices, raw().faces)
    mesh = finish(plain, triangles=2000, watertight=True)
    assert mesh.colors is None
    assert topology(mesh).watertight
    with pytest.raises(InputError, match="neither vertex colors nor a texture"):
        finish(plain, texture=256)


def test_gaussians_color_a_mesh_without_colors() -> None:
    vertices = raw().vertices
    splats = Gaussians(
        vertices,
        np.full(vertices.shape, 0.01),
        np.tile([1.0, 0, 0, 0], (len(vertices), 1)),
        np.ones(len(vertices)),
        np.tile([1.0, 0.2, 0], (len(vertices), 1)),
    )
    mesh = finish(Mesh(vertices, raw().faces), triangles=1000, texture=64, gaussians=splats)
    assert (mesh.texture == (255, 51, 0)).all()
    with pytest.raises(InputError, match="give its size as `texture`"):
        finish(raw(), gaussians=splats)


def test_several_bodies_keep_their_colors_apart() -> None:
    ball = shapes.mesh(shapes.icosphere(3))
    count = len(ball.vertices)
    colors = np.repeat([[1.0, 0, 0], [0, 0, 1.0]], count, axis=0)
    two = Mesh(
        np.concatenate([ball.vertices, ball.vertices + np.array([2.05, 0, 0])]),
        np.concatenate([ball.faces, ball.faces + count]),
        colors,
    )
    mesh = finish(two, triangles=400, texture=128, watertight=True)
    assert topology(mesh).components == 2
    levels = np.unique(mesh.texture.reshape(-1, 3), axis=0)
    np.testing.assert_array_equal(levels, [[0, 0, 255], [255, 0, 0]])


def table_with_crumbs() -> tuple[Mesh, Mesh]:
    """A table top, a ball below it, thin legs apart from it; and the same with crumbs around it."""
    top = shapes.box((1, 0.05, 0.6))
    ball = shapes.icosphere(2, 0.03)  # 0.4 % of the volume of the top
    legs = [at(shapes.box((0.01, 0.11, 0.01)), x, -0.2, 0) for x in (-0.45, 0.45)]  # 0.04 %
    kept = [top, at(ball, 0, -0.2, 0), *legs]
    crumbs = [at(shapes.box((0.02, 0.02, 0.02)), 0.2 * i, 0.2, 0) for i in range(3)]
    hole = at(shapes.icosphere(1, 0.01), 0.1, 0, 0.1)
    return join(kept), join([*kept, *crumbs, (hole[0], hole[1][:, ::-1])])


def at(shape: tuple[np.ndarray, np.ndarray], *place: float) -> tuple[np.ndarray, np.ndarray]:
    return shape[0] + np.array(place), shape[1]


def join(parts: list[tuple[np.ndarray, np.ndarray]]) -> Mesh:
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
    faces = [part[1] + start for part, start in zip(parts, starts[:-1], strict=True)]
    return fields.painted(Mesh(np.concatenate([p[0] for p in parts]), np.concatenate(faces)))


def test_watertight_drops_crumbs_and_keeps_thin_legs() -> None:
    clean, crumbled = table_with_crumbs()
    assert topology(crumbled).components == 8
    mesh = finish(crumbled, watertight=True)
    np.testing.assert_array_equal(mesh.vertices, clean.vertices)
    np.testing.assert_array_equal(mesh.faces, clean.faces)
    np.testing.assert_array_equal(mesh.colors, clean.colors)
    assert finish(clean, watertight=True) is clean
    assert finish(crumbled, fill_holes=True) is crumbled
    light = finish(crumbled, watertight=True, triangles=200)
    assert topology(light).components == 4
    assert topology(light).watertight


def test_the_largest_part_stays_however_small_it_is() -> None:
    dust = join([at(shapes.box((0.01, 0.01, 0.01)), i, 0, 0) for i in range(4)])
    assert finish(dust, watertight=True) is dust


def test_a_texture_stays_as_it_was_where_only_crumbs_go() -> None:
    clean, crumbled = table_with_crumbs()
    textured = finish(crumbled, texture=64)
    mesh = finish(textured, watertight=True)
    np.testing.assert_array_equal(mesh.texture, textured.texture)
    assert topology(mesh).components == topology(clean).components == 4
    assert len(mesh.faces) == len(clean.faces)
    corners, uv = mesh.vertices[mesh.faces], mesh.uv[mesh.faces]
    np.testing.assert_array_equal(corners, textured.vertices[textured.faces][: len(mesh.faces)])
    np.testing.assert_array_equal(uv, textured.uv[textured.faces][: len(mesh.faces)])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"triangles": 2}, "whole number of triangles from 4 up, not to 2"),
        ({"texture": 4}, "16 to 4096 pixels a side but 4"),
        ({"texture": 64, "charts": "round"}, "no way to unwrap called 'round'"),
    ],
)
def test_options_out_of_range(options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        finish(raw(), **options)
