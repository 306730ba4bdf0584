"""Pictures against formulas and loops; viewers, masks and sheets by what they hold."""

import base64
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scenes import SIZE, K, write_scene
from shapes import box, icosphere, mesh

from sam3d_nb.errors import InputError
from sam3d_nb.examples import Example
from sam3d_nb.frames import FACING_CAMERA, Pose, rotation_matrix
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.thin import thinned
from sam3d_nb.object3d import Object3D, Provenance
from sam3d_nb.scene import Scene
from sam3d_nb.scene.scene import Failure
from sam3d_nb.view import render as rendering
from sam3d_nb.view.camera import Camera
from sam3d_nb.view.masks import PALETTE, PAPER, color_of, draw_masks, legend_width, pole, show_masks
from sam3d_nb.view.render import AMBIENT, LIGHT, picture, render, render_photo_view
from sam3d_nb.view.shading import sample_texture, shrink, to_srgb, with_normals
from sam3d_nb.view.sheet import SIDES, contact_sheet, cutout, scene_title
from sam3d_nb.view.show import show
from sam3d_nb.view.three import looking_at
from sam3d_nb.view.world import ball, photo_direction, turned, upright

PROVENANCE = Provenance("silhouette", "1", "0.1", "0" * 64, mask_index=0)


def square(**looks: np.ndarray) -> Mesh:
    """A unit square around 0 that faces +z, corners upper left, right, lower right, left."""
    corners = np.array([[-0.5, 0.5, 0], [0.5, 0.5, 0], [0.5, -0.5, 0], [-0.5, -0.5, 0]])
    return Mesh(corners, np.array([[0, 3, 2], [0, 2, 1]]), **looks)


def textured(texture: np.ndarray) -> Mesh:
    return square(uv=np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]), texture=texture)


def ball_object(pose: Pose | None = None) -> Object3D:
    pose = pose or Pose(FACING_CAMERA, (0.0, 0.0, 1.5), (0.4, 0.4, 0.4))
    return Object3D(mesh(icosphere(3, 0.5)), pose, PROVENANCE, name="ball <b>")


def straight_on(size: int) -> Camera:
    """Looks along -z at the unit square, which fills the picture."""
    k = np.array([[size, 0, size / 2], [0, size, size / 2], [0, 0, 1.0]])
    return Camera(size, size, k, np.diag([1.0, -1, -1]), np.array([0, 0, 5.0]), orthographic=True)


@pytest.fixture
def flat_light(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "AMBIENT", 1.0)


# Colors


def test_colors_are_encoded_as_srgb() -> None:
    linear = torch.tensor([0.0, 0.002, 0.0031308, 0.2140411, 0.5, 1.0, 1.7])
    expected = [0, 0.02584, 0.04045, 0.5, 0.7353569, 1, 1]
    np.testing.assert_allclose(to_srgb(linear).numpy(), expected, atol=1e-4)


@pytest.mark.usefixtures("flat_light")
def test_vertex_colors_are_linear_and_textures_srgb() -> None:
    by_vertex = square(colors=np.tile([[0.2140411, 1.0, 0.0]], (4, 1)))
    by_texture = textured(np.full((4, 4, 3), (128, 255, 0), dtype=np.uint8))
    for shape in (by_vertex, by_texture):
        seen = picture([shape], straight_on(16))
        assert seen.shape == (16, 16, 3)
        assert np.abs(seen.astype(int) - [128, 255, 0]).max() <= 1
    assert np.abs(picture([square()], straight_on(16)).astype(int) - 188).max() <= 1


@pytest.mark.usefixtures("flat_light")
def test_a_texture_stands_upright_and_reads_from_left_to_right() -> None:
    texture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    seen = picture([textured(texture.repeat(8, 0).repeat(8, 1))], straight_on(64))
    centers = seen[4::8, 4::8].astype(int)
    assert np.abs(centers - texture).max() <= 1


def plain_bilinear(texture: np.ndarray, u: float, v: float) -> np.ndarray:
    height, width = texture.shape[:2]
    x, y = u * width - 0.5, v * height - 0.5
    total = np.zeros(3)
    for i in (int(np.floor(y)), int(np.floor(y)) + 1):
        for j in (int(np.floor(x)), int(np.floor(x)) + 1):
            total += texture[i % height, j % width] * (1 - abs(x - j)) * (1 - abs(y - i))
    return total


def test_texture_sampling_is_the_plain_loop() -> None:
    generator = np.random.default_rng(1)
    texture, uv = generator.random((5, 7, 3)), generator.uniform(-1.5, 2.5, (200, 2))
    found = sample_texture(torch.tensor(texture), torch.tensor(uv))
    expected = [plain_bilinear(texture, u, v) for u, v in uv]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_a_fine_texture_is_averaged_where_the_picture_is_coarse() -> None:
    texture = np.zeros((512, 512, 3), dtype=np.uint8)
    texture[::2, ::2] = texture[1::2, 1::2] = 255
    seen = picture([textured(texture)], straight_on(32)).astype(int)
    middle = np.median(seen)
    assert np.abs(seen - middle).max() <= 16  # no moiré
    assert shrink(torch.rand(8, 12, 3), 4).shape == (2, 3, 3)
    torch.testing.assert_close(shrink(torch.ones(5, 5, 3), 8), torch.ones(1, 1, 3))


# Shading and edges


def test_normals_are_smooth_on_a_ball_and_flat_on_a_box() -> None:
    shape, normals = with_normals(mesh(icosphere(3, 2.0)))
    assert len(shape.vertices) == len(normals) == 642
    np.testing.assert_allclose(normals, shape.vertices / 2, atol=0.02)
    split, normals = with_normals(mesh(box((1, 2, 3))))
    for face in range(12):
        corners = split.vertices[split.faces[face]].astype(float)
        flat = np.cross(corners[1] - corners[0], corners[2] - corners[0])
        flat /= np.linalg.norm(flat)
        np.testing.assert_allclose(normals[split.faces[face]], [flat] * 3, atol=1e-6)


def test_normals_are_the_plain_loop() -> None:
    generator = np.random.default_rng(4)
    vertices, faces = icosphere(2)
    rough = Mesh(vertices * generator.uniform(0.8, 1.1, (len(vertices), 1)), faces)
    split, normals = with_normals(rough, crease=30.0)
    corners = rough.vertices[faces].astype(float)
    areas = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat = areas / np.linalg.norm(areas, axis=1, keepdims=True)
    assert len(split.vertices) > len(vertices)
    for vertex in range(len(vertices)):
        around = [f for f in range(len(faces)) if vertex in faces[f]]
        mean = sum(areas[f] for f in around)
        mean /= np.linalg.norm(mean)
        smooth = all(flat[f] @ mean >= np.cos(np.radians(30)) for f in around)
        for f in around:
            near = [g for g in around if smooth or flat[f] @ flat[g] >= np.cos(np.radians(30))]
            expected = sum(areas[g] for g in near)
            found = normals[split.faces[f][faces[f] == vertex][0]]
            np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-5)


def test_normals_are_smooth_across_a_texture_seam() -> None:
    vertices, faces = icosphere(3)
    torn = Mesh(vertices[faces].reshape(-1, 3), np.arange(faces.size).reshape(-1, 3))
    _, normals = with_normals(torn)
    np.testing.assert_allclose(normals[: faces.size], torn.vertices, atol=0.02)


def test_what_faces_the_lamp_is_brighter_and_nothing_is_black() -> None:
    seen = render(mesh(icosphere(5, 0.5)), 0, 0, 129, background=None)
    grey, alpha = seen[..., 0].astype(int), seen[..., 3]
    assert grey[40, 50] > grey[64, 100] > grey[100, 120]  # the lamp is left and above
    darkest = to_srgb(torch.tensor([0.5 * AMBIENT])).item() * 255
    assert grey[alpha == 255].min() >= int(darkest)
    assert grey.max() <= 188


def test_both_sides_of_a_sheet_are_lit() -> None:
    front, back = (render(square(), a, 0, 64)[32, 32, 0] for a in (0, 180))
    assert abs(int(front) - int(back)) <= 2


def test_edges_are_smooth_and_the_background_shows_through() -> None:
    seen = render(mesh(icosphere(5, 0.5)), 0, 0, 64, background=None)
    assert seen.shape == (64, 64, 4)
    assert set(np.unique(seen[..., 3])) == {0, 64, 128, 191, 255}
    assert (seen[..., 3] / 255).sum() == pytest.approx(np.pi * 32**2 / 1.02**2, rel=0.01)
    on_light = render(mesh(icosphere(5, 0.5)), 0, 0, 64)
    assert tuple(on_light[0, 0]) == LIGHT
    assert render(mesh(icosphere(2, 0.5)), size=(40, 60)).shape == (40, 60, 3)


# Worlds


def test_the_photo_view_covers_the_mask(tmp_path: Path) -> None:
    things = [mesh(icosphere(3, 0.25), (0.1, -0.05, 1.3))]
    example = write_scene(tmp_path / "scene", things)
    seen = render_photo_view(things[0], K, SIZE, SIZE)
    assert seen.shape == (SIZE, SIZE, 4)
    mask = example.mask(0)
    assert ((seen[..., 3] > 127) != mask).sum() <= 0.02 * mask.sum()
    pose = Pose(FACING_CAMERA, (0.1, -0.05, 1.3), (0.5, 0.5, 0.5))
    posed = render_photo_view(ball_object(pose), K, SIZE, SIZE)
    assert np.abs(posed.astype(int) - seen).max() <= 8


def test_worlds_are_upright() -> None:
    placed = ball_object(Pose(FACING_CAMERA, (0.3, -0.2, 2.0), (0.4, 0.4, 0.4)))
    assert upright(placed)[0] is placed.mesh
    in_scene, truth = upright([placed, placed.mesh_in_camera()])
    np.testing.assert_allclose(in_scene.vertices, truth.vertices)
    np.testing.assert_allclose(ball([in_scene])[0], [0.3, 0.2, -2.0], atol=1e-6)
    assert ball([in_scene])[1] == pytest.approx(0.2, abs=1e-3)
    assert upright(placed.mesh)[0] is placed.mesh
    seen = placed.mesh_in_camera()
    np.testing.assert_array_equal(upright(seen, "camera")[0].vertices, turned(seen).vertices)
    np.testing.assert_array_equal(turned(turned(seen)).vertices, seen.vertices)


def test_the_photo_direction_looks_back_to_the_camera() -> None:
    assert photo_direction(np.array([0, 0, -2.0])) == (0, 0)
    azimuth, elevation = photo_direction(np.array([1.0, 0, -1]))
    assert (azimuth, elevation) == (pytest.approx(-45), pytest.approx(0))
    assert photo_direction(np.array([0, -1.0, -1]))[1] == pytest.approx(45)


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        ("a name", "but got str"),
        ([1, 2], "but got list"),
        ([], "no mesh here has a triangle"),
        (Mesh(np.zeros((3, 3)), np.zeros((0, 3))), "no mesh here has a triangle"),
    ],
)
def test_nothing_to_show_gets_a_sentence(thing: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        render(thing)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        show(thing)  # type: ignore[arg-type]


# Viewer


def find(widget: object, name: str) -> list:
    """All widgets of a class within `widget`, by the class's name."""
    found = [widget] if type(widget).__name__ == name else []
    for trait in ("children", "scene", "geometry", "material", "camera"):
        inner = getattr(widget, trait, ())
        for child in inner if isinstance(inner, tuple | list) else [inner]:
            found += find(child, name)
    return found


def test_show_holds_viewer_picture_and_text() -> None:
    view = show(ball_object(), size=120)
    bundle = view._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == view.model_id
    still = np.asarray(Image.open(BytesIO(base64.b64decode(bundle["image/png"]))))
    assert np.array_equal(still, render(ball_object(), size=120))
    assert bundle["text/plain"] == "ball <b>: 1,280 triangles, 1.00 wide, 1.00 high, 1.00 deep"
    (renderer,) = find(view, "Renderer")
    assert (renderer.width, renderer.height) == (120, 120)
    page = "".join(w.value for w in find(view, "HTML"))
    assert 'alt="ball &lt;b&gt;: 1,280 triangles' in page
    assert "<b>ball &lt;b&gt;</b>" in page
    assert "1,280 triangles; drag to turn" in page


def test_viewer_gets_geometry_as_three_wants_it() -> None:
    colors = np.random.default_rng(0).random((642, 3)).astype(np.float32)
    shape = mesh(icosphere(3, 0.5))
    view = show(Mesh(shape.vertices, shape.faces, colors), size=64)
    (geometry,) = find(view, "BufferGeometry")
    arrays = {name: a.array for name, a in geometry.attributes.items()}
    np.testing.assert_array_equal(arrays["position"], shape.vertices)
    np.testing.assert_array_equal(arrays["color"], colors)
    np.testing.assert_array_equal(arrays["index"].reshape(-1, 3), shape.faces)
    assert arrays["index"].dtype == np.uint32
    assert {a.dtype for n, a in arrays.items() if n != "index"} == {np.dtype(np.float32)}
    (material,) = find(view, "MeshPhongMaterial")
    assert material.vertexColors == "VertexColors"
    (renderer,) = find(view, "Renderer")
    assert renderer.gammaInput
    assert renderer.gammaOutput


def test_viewer_gets_the_texture_with_sides_of_powers_of_two() -> None:
    texture = np.full((100, 60, 3), (200, 40, 90), dtype=np.uint8)
    (material,) = find(show(textured(texture), size=64), "MeshPhongMaterial")
    kind, data = material.map.imageUri.split(",")
    assert kind == "data:image/jpeg;base64"
    loaded = Image.open(BytesIO(base64.b64decode(data)))
    assert loaded.size == (64, 128)
    assert np.abs(np.asarray(loaded).astype(int) - [200, 40, 90]).max() <= 3
    assert material.map.flipY is False


def test_several_items_stand_side_by_side_in_the_photos_frame() -> None:
    placed = ball_object(Pose(FACING_CAMERA, (0.3, -0.2, 2.0), (0.4, 0.4, 0.4)))
    view = show(placed, placed.mesh_in_camera(), size=64, titles=["mine", "truth"])
    assert len(find(view, "Renderer")) == 2
    assert view.still.shape == (64, 128, 3)
    assert np.abs(view.still[:, :64].astype(int) - view.still[:, 64:]).max() <= 2
    assert view.text.startswith("mine: 1,280 triangles, 0.40 wide")
    scene = show([placed, placed], size=64)
    assert len(find(scene, "Renderer")) == 1
    assert scene.text.startswith("2 objects: 2,560 triangles")
    with pytest.raises(InputError, match="2 items need as many titles but got 1"):
        show(placed, placed, titles=["one"])
    with pytest.raises(InputError, match="something to show"):
        show()


def test_a_large_mesh_is_shown_by_a_copy_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam3d_nb.view.subject.TRIANGLES", 2000)
    view = show(mesh(icosphere(4, 0.5)), size=64)
    (geometry,) = find(view, "BufferGeometry")
    drawn = len(geometry.attributes["index"].array) // 3
    assert 500 < drawn <= 2000
    page = "".join(w.value for w in find(view, "HTML"))
    assert f"5,120 triangles, the viewer shows a copy of {drawn:,}" in page
    assert "5,120 triangles" in view.text


def test_a_thinned_mesh_keeps_place_and_colors() -> None:
    vertices, faces = icosphere(5, 0.5)
    whole = Mesh(vertices, faces, colors=vertices + 0.5)
    small = thinned(whole, 3000)
    assert 1000 < len(small.faces) <= 3000
    np.testing.assert_allclose(np.linalg.norm(small.vertices, axis=1), 0.5, atol=0.02)
    assert small.colors is not None
    np.testing.assert_allclose(small.colors, small.vertices + 0.5, atol=1e-3)
    assert thinned(whole, len(faces)) is whole
    normals = np.cross(
        small.vertices[small.faces[:, 1]] - small.vertices[small.faces[:, 0]],
        small.vertices[small.faces[:, 2]] - small.vertices[small.faces[:, 0]],
    )
    outward = (normals * small.vertices[small.faces[:, 0]]).sum(1) > 0
    assert outward.mean() > 0.99
    sheet = thinned(textured(np.full((4, 4, 3), 188, dtype=np.uint8)), 1)
    assert len(sheet.faces) <= 1


def test_a_thinned_mesh_keeps_its_texture_and_the_pieces_of_it() -> None:
    """Two halves whose places in the texture lie far apart: none in between comes up."""
    vertices, faces = icosphere(5, 0.5)
    left = vertices[faces].mean(1)[:, 0] < 0
    halves = [faces[left], faces[~left] + len(vertices)]
    uv = np.concatenate([0.2 * vertices[:, :2] + 0.2, 0.2 * vertices[:, :2] + 0.8])
    texture = np.zeros((8, 8, 3), dtype=np.uint8)
    whole = Mesh(np.concatenate([vertices] * 2), np.concatenate(halves), uv=uv, texture=texture)
    small = thinned(whole, 3000)
    assert 1000 < len(small.faces) <= 3000
    assert small.texture is texture
    assert small.uv is not None
    first = small.uv.mean(1) < 0.5
    expected = np.where(first[:, None], 0.2, 0.8) + 0.2 * small.vertices[:, :2]
    np.testing.assert_allclose(small.uv, expected, atol=0.01)
    sides = first[small.faces]
    assert (sides.all(1) | ~sides.any(1)).all(), "no triangle spans both pieces"
    seam = np.unique(small.vertices[first], axis=0), np.unique(small.vertices[~first], axis=0)
    both = len(seam[0]) + len(seam[1]) - len(np.unique(np.concatenate(seam), axis=0))
    assert both > 20, "the halves still touch"


def test_viewers_side_by_side_turn_together_and_look_at_the_object() -> None:
    view = show(ball_object(), ball_object(), size=32)
    first, second = find(view, "Renderer")
    start = np.array(first.camera.position)
    np.testing.assert_allclose(
        looking_at(first.camera.position, (0, 0, 0)), first.camera.quaternion, atol=1e-9
    )
    for leader, other in ((first, second), (second, first)):
        place = tuple((np.roll(np.array(leader.camera.position), 1) * 1.2).tolist())
        leader.camera.position = place
        assert other.camera.position == place
        x, y, z, w = other.camera.quaternion
        forward = rotation_matrix((w, x, y, z)) @ [0, 0, -1]
        np.testing.assert_allclose(forward, -np.array(place) / np.linalg.norm(place), atol=1e-9)
    assert np.linalg.norm(first.camera.position) > 1.4 * np.linalg.norm(start)
    for place in ((0, 5, 0), (0, -5, 0)):
        x, y, z, w = looking_at(place, (0, 0, 0))
        forward = rotation_matrix((w, x, y, z)) @ [0, 0, -1]
        np.testing.assert_allclose(forward, -np.array(place) / 5, atol=1e-9)


def test_viewers_side_by_side_share_what_a_notebook_can_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sam3d_nb.view.subject.TRIANGLES", 3000)
    large, small = mesh(icosphere(5, 0.5)), mesh(icosphere(3, 0.5))
    view = show(large, small, size=32)
    drawn = [len(g.attributes["index"].array) // 3 for g in find(view, "BufferGeometry")]
    assert sum(drawn) <= 3000
    assert drawn[0] > 4 * drawn[1] > 0


# Masks and sheets


def plain_pole(mask: np.ndarray) -> float:
    """The largest distance of a pixel of the mask to a pixel outside, by all pairs."""
    padded = np.pad(mask, 1)
    inside, outside = np.argwhere(padded), np.argwhere(~padded)
    return float(np.sqrt(((inside[:, None] - outside) ** 2).sum(-1)).min(1).max())


def test_the_number_stands_where_the_mask_is_widest() -> None:
    mask = np.random.default_rng(3).random((20, 24)) < 0.9
    mask[5:12, 8:16] = True
    row, column = pole(mask)
    assert mask[row, column]
    outside = np.argwhere(~np.pad(mask, 1)) - 1
    distance = np.sqrt(((outside - [row, column]) ** 2).sum(1)).min()
    assert distance == pytest.approx(plain_pole(mask))
    with pytest.raises(InputError, match="empty mask"):
        pole(np.zeros((4, 4), dtype=bool))


def test_masks_are_colored_numbered_and_named(tmp_path: Path) -> None:
    image = np.full((200, 300, 3), 128, dtype=np.uint8)
    left, inner = np.zeros((2, 200, 300), dtype=bool)
    left[40:180, 20:160] = True
    inner[100:130, 60:100] = True
    drawn = np.asarray(draw_masks(image, {0: left, 7: inner})).astype(float)
    assert drawn.shape == (200, 300, 3)
    assert (drawn[:30] == 128).all()
    np.testing.assert_allclose(drawn[60, 150], 128 + 0.45 * (np.array(PALETTE[0]) - 128), atol=1)
    assert (np.abs(drawn[115, 60:63] - color_of(7)).max(1) < 2).any()  # outline of the inner one
    assert (drawn.max(-1) < 30).sum() > 100  # the pills that carry the numbers
    example = Example(
        tmp_path, image, {0: left, 7: inner}, info={"objects": [{"index": 7, "name": "cup"}]}
    )
    page = show_masks(example)
    assert page.width == 300
    assert page.height > 220
    assert np.abs(np.asarray(page)[:200].astype(float) - drawn).max() == 0
    assert page._repr_png_()


def test_numbers_of_nested_masks_do_not_cover_each_other() -> None:
    image = np.zeros((400, 400, 3), dtype=np.uint8)
    shapes = {i: np.zeros((400, 400), dtype=bool) for i in range(3)}
    for i, half in enumerate((150, 60, 12)):
        shapes[i][200 - half : 200 + half, 200 - half : 200 + half] = True
    one = np.asarray(draw_masks(image, {2: shapes[2]}))
    both = np.asarray(draw_masks(image, shapes))
    pill = (one[190:210, 190:210] == 24).all(-1) | (one[190:210, 190:210] == 255).all(-1)
    assert pill.sum() > 80
    assert np.array_equal(one[190:210, 190:210][pill], both[190:210, 190:210][pill])


def test_large_photos_are_shown_small_and_odd_masks_get_a_sentence() -> None:
    image = np.zeros((1000, 2000, 3), dtype=np.uint8)
    assert draw_masks(image, {}, size=500).size == (500, 250)
    with pytest.raises(InputError, match=r"mask 3 is \(10, 10\) but the image is \(1000, 2000\)"):
        draw_masks(image, {3: np.ones((10, 10), dtype=bool)})
    full = {0: np.ones((1000, 2000), dtype=bool), 1: np.zeros((1000, 2000), dtype=bool)}
    assert draw_masks(image, full, size=500).size == (500, 250)


def test_contact_sheet_has_a_row_for_object_and_truth(tmp_path: Path) -> None:
    things = [mesh(icosphere(3, 0.2), (0.2, 0.1, 1.5)), mesh(box((0.3, 0.3, 0.3)), (-0.3, 0, 1.6))]
    known = write_scene(tmp_path / "known", things)
    blind = write_scene(tmp_path / "blind", things, truth=False)
    pose = Pose(FACING_CAMERA, (0.2, 0.1, 1.5), (0.4, 0.4, 0.4))
    single = contact_sheet(blind, ball_object(pose), size=100)
    with_truth = contact_sheet(known, ball_object(pose), size=100)
    two = contact_sheet(blind, [ball_object(pose)] * 2, size=100)
    assert with_truth.width == single.width == (len(SIDES) + 1) * 112 + 12
    assert with_truth.height == two.height > single.height + 100
    pixels = np.asarray(with_truth).astype(int)
    truth, mine = pixels[-112:-12], pixels[-112 - 100 - 24 - 19 : -112 - 24 - 19]
    front = np.s_[:80, 124:224]
    assert (mine[front].min(-1) < 235).sum() > 2000
    assert np.abs(mine[front] - truth[front]).max() <= 4  # the ball is the truth
    with pytest.raises(InputError, match="at least one object"):
        contact_sheet(blind, [])


def test_contact_sheet_of_a_scene_has_photo_masks_and_one_row(tmp_path: Path) -> None:
    """The ball is where it was seen; the mask that nothing was made of is not drawn."""
    things = [mesh(icosphere(3, 0.2), (0.2, 0.1, 1.5)), mesh(box((0.3, 0.3, 0.3)), (-0.3, 0, 1.6))]
    example = write_scene(tmp_path / "room", things)
    thing = ball_object(Pose(FACING_CAMERA, (0.2, 0.1, 1.5), (0.4, 0.4, 0.4)))
    scene = Scene((thing,))
    sheet = contact_sheet(example, scene, size=100)
    assert sheet.width == len(SIDES) * 112 + 12
    pixels = np.asarray(sheet).astype(int)
    left = (sheet.width - 2 * (128 + 12) - legend_width({0: example.names[0]})) // 2
    np.testing.assert_array_equal(pixels[12:140, left : left + 128], example.image)
    masked = pixels[12:140, left + 140 : left + 268]
    changed = (masked != example.image).any(-1)
    assert changed[example.mask(0)].mean() > 0.9
    assert not changed[example.mask(1)].any()
    mine, truth = pixels[-112 - 12 - 19 - 112 :][:100], pixels[-112:-12]
    for place in range(4):
        across = np.s_[:80, 12 + 112 * place : 112 + 112 * place]
        assert (mine[across].min(-1) < 235).sum() > 2000
        assert np.abs(mine[across] - truth[across]).max() <= 4, "the ball is the truth"
    nameless = replace(thing, provenance=replace(thing.provenance, mask_index=None))
    assert contact_sheet(example, Scene((nameless,)), size=100).height < sheet.height - 100
    empty = replace(thing, mesh=Mesh(np.zeros((0, 3)), np.zeros((0, 3))))
    with pytest.raises(InputError, match="nothing to show"):
        contact_sheet(example, Scene((empty,)))


@pytest.mark.parametrize("shape", [(200, 60), (200, 200), (60, 200)])
def test_photo_and_masks_are_next_to_each_other_in_the_middle(shape: tuple[int, int]) -> None:
    """Whatever the photo's shape; only where it leaves room are the names beside it."""
    image = np.full((*shape, 3), 90, dtype=np.uint8)
    mask = np.zeros(shape, dtype=bool)
    mask[20:40, 20:40] = True
    thing = ball_object(Pose(FACING_CAMERA, (0, 0, 1.5), (0.4, 0.4, 0.4)))
    sheet = np.asarray(contact_sheet(Example(Path("cup"), image, {0: mask}), thing, size=100))
    top = sheet[12 : 12 + round(shape[0] * min(1, 268 / max(shape)))]
    used = (top != PAPER).any((0, 2)).nonzero()[0]
    assert (np.diff(used) == 13).any(), "a gap of 12 pixels"
    assert abs(used[0] - (sheet.shape[1] - 1 - used[-1])) < 40, "margins are alike"
    beside = used[-1] - used[0] > 2 * shape[1] + 12
    assert beside == (shape == (200, 60))


def test_the_title_of_a_scene_says_what_was_made_and_what_was_guessed() -> None:
    thing = ball_object(Pose(FACING_CAMERA, (0.2, 0.1, 1.5), (0.4, 0.4, 0.4)))
    guessed = replace(thing.provenance, model="tiny", settings={"point_map": "estimated"})
    count = f"{2 * len(thing.mesh.faces):,} triangles"
    scene = Scene((replace(thing, provenance=guessed),) * 2, (Failure("lamp", 3, "E", "too thin"),))
    assert scene_title(scene) == f"scene, 2 objects, 1 failed: tiny, {count}, depth estimated"
    upright = replace(scene, realign="obb", failures=(), objects=(thing,), poses=())
    model, count = thing.provenance.model, f"{len(thing.mesh.faces):,} triangles"
    assert scene_title(upright) == f"scene, 1 object: {model}, {count}, upright by obb"


def test_cutout_is_a_square_around_the_mask() -> None:
    image = np.full((100, 200, 3), 40, dtype=np.uint8)
    mask = np.zeros((100, 200), dtype=bool)
    mask[0:50, 180:200] = True
    part = np.asarray(cutout(image, mask, 64)).astype(int)
    assert part.shape == (64, 64, 3)
    assert part[32, 32].tolist() == [40, 40, 40]
    assert part[32, 2].min() > 190
