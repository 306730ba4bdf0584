"""Example folders: what is read, and the sentence for what is not as it should be."""

import json
import os
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import trimesh
from PIL import Image

from sam3d_nb.errors import InputError
from sam3d_nb.examples import Example, data_folder, list_examples, load_example
from sam3d_nb.request import make_request

H, W = 12, 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An example with the masks 0 and 3, a point map, names and one true mesh."""
    path = tmp_path / "room"
    path.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (H, W, 3), dtype=np.uint8)).save(path / "image.png")
    save_mask(path / "0.png", rows=slice(0, 6))
    save_mask(path / "3.png", rows=slice(6, 12))
    np.savez_compressed(path / "pointmap.npz", points=points(), K=intrinsics())
    info = {"objects": [{"index": 3, "name": "lamp"}], "frame": "opencv", "extra": 1}
    (path / "example.json").write_text(json.dumps(info))
    return path


def save_mask(path: Path, rows: slice, shape: tuple[int, int] = (H, W)) -> None:
    mask = np.zeros(shape, dtype=np.uint8)
    mask[rows, 2:10] = 255
    Image.fromarray(mask).save(path)


def points() -> np.ndarray:
    v, u = np.mgrid[:H, :W] + 0.5
    result = np.dstack([(u - W / 2) / 30, (v - H / 2) / 30, np.ones((H, W))])
    result[0, 0] = np.nan
    result[0, 1, 2] = np.inf
    return result


def intrinsics() -> np.ndarray:
    return np.array([[30, 0, W / 2], [0, 30, H / 2], [0, 0, 1.0]])


def test_all_parts_are_read(folder: Path) -> None:
    example = load_example(folder)
    assert example.name == "room"
    assert example.image.shape == (H, W, 3)
    assert list(example.masks) == [0, 3]
    assert example.mask(3).sum() == 48
    assert example.names == {0: "object 0", 3: "lamp"}
    assert example.pointmap is not None
    assert example.pointmap.dtype == np.float32
    np.testing.assert_array_equal(example.intrinsics, intrinsics())
    assert example.info["extra"] == 1
    assert "20 x 12 pixels, 2 masks, point map, camera" in repr(example)


def test_unknown_points_become_nan(folder: Path) -> None:
    pointmap = load_example(folder).pointmap
    assert pointmap is not None
    assert np.isnan(pointmap[0, :2]).all()
    assert np.isfinite(pointmap[0, 2:]).all()


def test_pipeline_takes_a_point_map_with_nan_and_infinity() -> None:
    mask = np.ones((H, W), dtype=bool)
    request = make_request(np.zeros((H, W, 3), np.uint8), mask, points(), None, seed=0)
    assert request.pointmap is not None
    assert np.isnan(request.pointmap[0, :2]).all()
    np.testing.assert_allclose(request.intrinsics, intrinsics(), rtol=1e-5)


def test_only_a_photo_is_needed(folder: Path) -> None:
    for path in list(folder.iterdir()):
        if path.name != "image.png":
            path.unlink()
    example = load_example(folder)
    assert len(example.masks) == 0
    assert example.pointmap is None
    assert example.intrinsics is None
    with pytest.raises(InputError, match="none exist"):
        example.mask(0)


def test_photo_of_any_name_and_kind(folder: Path) -> None:
    Image.open(folder / "image.png").save(folder / "holiday.jpg")
    (folder / "image.png").unlink()
    assert load_example(folder / "holiday.jpg").mask(0).shape == (H, W)
    with pytest.raises(InputError, match=r"holds no photo; name it image\.png"):
        load_example(folder)
    (folder / "holiday.jpg").rename(folder / "image.jpg")
    assert load_example(folder).folder == folder


def test_photo_with_a_number_for_a_name_is_not_its_own_mask(folder: Path) -> None:
    (folder / "image.png").rename(folder / "7.png")
    assert list(load_example(folder / "7.png").masks) == [0, 3]


def test_camera_from_the_json_file(folder: Path) -> None:
    (folder / "pointmap.npz").unlink()
    (folder / "example.json").write_text(json.dumps({"camera": {"K": intrinsics().tolist()}}))
    np.testing.assert_array_equal(load_example(folder).intrinsics, intrinsics())


def test_official_sample_layout(tmp_path: Path) -> None:
    """Opaque RGBA photo, masks with the object in alpha beside photo colors, nothing else."""
    rng = np.random.default_rng(1)
    photo = rng.integers(0, 256, (H, W, 4), dtype=np.uint8)
    photo[..., 3] = 255
    Image.fromarray(photo).save(tmp_path / "image.png")
    cut_out = photo.copy()
    cut_out[..., 3] = 0
    cut_out[3:9, 4:12, 3] = 255
    Image.fromarray(cut_out).save(tmp_path / "14.png")
    example = load_example(tmp_path)
    np.testing.assert_array_equal(example.image, photo[..., :3])
    np.testing.assert_array_equal(example.mask(14), cut_out[..., 3] > 0)


def test_missing_mask_says_which_exist(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no mask 5 .*these exist: 0, 3"):
        load_example(folder).mask(5)
    for index in (1, 2):
        save_mask(folder / f"{index}.png", rows=slice(0, 6))
    with pytest.raises(InputError, match="masks 0 to 3 exist"):
        load_example(folder).mask(5)


def test_bad_mask_does_not_block_the_others(folder: Path) -> None:
    (folder / "1.png").write_bytes(b"no picture")
    save_mask(folder / "2.png", rows=slice(0, 0))
    save_mask(folder / "4.png", rows=slice(0, 6), shape=(W, H))
    example = load_example(folder)
    assert example.mask(0).any()
    with pytest.raises(InputError, match=r"1\.png is not a picture"):
        example.mask(1)
    with pytest.raises(InputError, match="mask 2 is empty"):
        example.mask(2)
    with pytest.raises(InputError, match="upright by their EXIF orientation"):
        example.mask(4)


def test_mask_twice(folder: Path) -> None:
    save_mask(folder / "03.png", rows=slice(0, 6))
    with pytest.raises(InputError, match=r"03\.png and 3\.png .*both mask 3"):
        load_example(folder)


def test_mask_drawn_over_the_unturned_photo(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(folder / "image.png").save(folder / "image.png", exif=exif)
    (folder / "pointmap.npz").unlink()
    example = load_example(folder)
    assert example.image.shape == (W, H, 3)
    with pytest.raises(InputError, match="make it from the upright photo"):
        example.mask(0)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"points": np.zeros((H + 1, W, 3))}, r"needs shape \(12, 20, 3\) but has \(13, 20, 3\)"),
        ({"points": np.zeros((W, H, 3))}, "upright"),
        ({"points": np.full((H, W, 3), np.nan)}, "no finite point"),
        ({"points": np.zeros((H, W, 3), dtype="U3")}, "needs numbers"),
        ({"depth": np.zeros((H, W))}, r"needs an array 'points' but has \['depth'\]"),
        ({"points": np.ones((H, W, 3)), "K": np.zeros((2, 2))}, r"'K' .* needs shape \(3, 3\)"),
        ({"points": np.ones((H, W, 3)), "K": np.zeros((3, 3))}, "positive focal lengths"),
    ],
)
def test_bad_point_maps(folder: Path, arrays: dict[str, np.ndarray], sentence: str) -> None:
    np.savez(folder / "pointmap.npz", **arrays)
    with pytest.raises(InputError, match=sentence):
        load_example(folder)


class _RunsWhenUnpickled:
    def __reduce__(self) -> tuple:
        return os._exit, (99,)


def test_pickled_objects_are_refused(folder: Path) -> None:
    evil = np.full((H, W, 3), _RunsWhenUnpickled(), dtype=object)
    np.savez(folder / "pointmap.npz", points=evil)
    with pytest.raises(InputError, match="pickled objects"):
        load_example(folder)


def test_point_map_that_unpacks_to_gigabytes_is_refused(folder: Path) -> None:
    """The header tells the size, so nothing is allocated."""
    (folder / "small.npy").write_bytes(b"")
    np.save(folder / "small.npy", np.zeros((1, 1, 3), np.float32))
    content = (folder / "small.npy").read_bytes()
    huge = content.replace(b"(1, 1, 3), }" + b" " * 8, b"(99999, 99999, 3), }")
    assert huge != content
    with ZipFile(folder / "pointmap.npz", "w") as archive:
        archive.writestr("points.npy", huge)
    with pytest.raises(InputError, match=r"has \(99999, 99999, 3\)"):
        load_example(folder)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"\x93NUMPY"])
def test_point_map_that_is_no_archive(folder: Path, content: bytes) -> None:
    (folder / "pointmap.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"no \.npz file that can be read"):
        load_example(folder)


def test_damaged_archive_member(folder: Path) -> None:
    path = folder / "pointmap.npz"
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"no \.npz file that can be read"):
        load_example(folder)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "no JSON that can be read"),
        ("[" * 100_000, "no JSON that can be read"),
        ("[]", "needs an object"),
        ('{"objects": {}}', "'objects' must be a list"),
        ('{"objects": [{"name": "x"}]}', "whole number 'index'"),
        ('{"camera": []}', "'camera' an object"),
        ('{"frame": "opengl"}', "only 'opencv'"),
        ('{"camera": {"K": "wide"}}', "no matrix of numbers"),
        ('{"camera": {"K": [[1, 0], [0, 1]]}}', "needs the form"),
    ],
)
def test_bad_json(folder: Path, content: str, sentence: str) -> None:
    (folder / "pointmap.npz").unlink()
    (folder / "example.json").write_text(content)
    with pytest.raises(InputError, match=sentence):
        load_example(folder)


def test_true_mesh_is_in_the_camera_frame(folder: Path) -> None:
    (folder / "meshes").mkdir()
    scene = trimesh.Scene()
    move = trimesh.transformations.translation_matrix([0, 0, 2])
    red = trimesh.creation.box(extents=[1, 1, 1])
    red.visual.vertex_colors = [255, 0, 0, 255]
    scene.add_geometry(red, transform=move)
    scene.add_geometry(trimesh.creation.icosphere(radius=0.1))
    scene.export(folder / "meshes" / "3.glb")
    example = load_example(folder)
    assert example.true_mesh(0) is None
    mesh = example.true_mesh(3)
    assert mesh is not None
    assert len(mesh.faces) == 12 + 1280
    np.testing.assert_allclose(mesh.bounds, [[-0.5, -0.5, -0.1], [0.5, 0.5, 2.5]], atol=1e-6)
    assert mesh.colors is not None
    np.testing.assert_allclose(mesh.colors[mesh.vertices[:, 2] > 1], [[1, 0, 0]] * 8)


def test_true_mesh_keeps_its_texture(folder: Path) -> None:
    """Upper left of the texture is red, and uv (0, 0) is there."""
    (folder / "meshes").mkdir()
    texture = np.zeros((8, 8, 3), dtype=np.uint8)
    texture[:4, :4] = (255, 0, 0)
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(texture))
    uv = np.array([[0, 1], [1, 1], [0, 0]], dtype=float)  # trimesh: v upwards
    visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    triangle = trimesh.Trimesh(np.eye(3), [[0, 1, 2]], visual=visual, process=False)
    triangle.export(folder / "meshes" / "0.glb")
    mesh = load_example(folder).true_mesh(0)
    assert mesh is not None
    np.testing.assert_array_equal(mesh.texture, texture)
    corner = np.flatnonzero((mesh.vertices == [1, 0, 0]).all(1))[0]
    np.testing.assert_allclose(mesh.uv[corner], [0, 0], atol=1e-6)


def test_true_mesh_samples_several_textures(folder: Path) -> None:
    (folder / "meshes").mkdir()
    scene = trimesh.Scene()
    for shift, color in ((0, (255, 0, 0)), (5, (0, 0, 188))):
        picture = Image.new("RGB", (4, 4), color)
        material = trimesh.visual.material.PBRMaterial(baseColorTexture=picture)
        visual = trimesh.visual.TextureVisuals(uv=np.full((3, 2), 0.5), material=material)
        scene.add_geometry(
            trimesh.Trimesh(np.eye(3) + shift, [[0, 1, 2]], visual=visual, process=False)
        )
    scene.export(folder / "meshes" / "0.glb")
    mesh = load_example(folder).true_mesh(0)
    assert mesh is not None
    near = mesh.vertices.max(1) < 3
    np.testing.assert_allclose(mesh.colors[near], [[1, 0, 0]] * 3)
    linear = ((188 / 255 + 0.055) / 1.055) ** 2.4
    np.testing.assert_allclose(mesh.colors[~near], [[0, 0, linear]] * 3, rtol=1e-5)


def test_damaged_mesh(folder: Path) -> None:
    (folder / "meshes").mkdir()
    (folder / "meshes" / "0.glb").write_bytes(b"glTF\x02\x00\x00\x00 and no more")
    with pytest.raises(InputError, match=r"0\.glb is no GLB file"):
        load_example(folder).true_mesh(0)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="coffee"):
        load_example("no-such-example")


def test_path_that_the_system_refuses() -> None:
    with pytest.raises(InputError, match="cannot be looked into: File name too long"):
        load_example("x" * 5000)


def test_list_of_a_folder(folder: Path) -> None:
    (folder.parent / "_draft").mkdir()
    Image.new("RGB", (4, 4)).save(folder.parent / "_draft" / "image.png")
    (folder.parent / "empty").mkdir()
    assert list_examples(folder.parent) == [str(folder)]
    assert isinstance(load_example(list_examples(folder.parent)[0]), Example)
    with pytest.raises(InputError, match="there is no folder"):
        list_examples(folder.parent / "nowhere")


def test_examples_that_come_with_the_package() -> None:
    names = list_examples()
    assert "coffee" in names
    assert load_example("coffee").folder == data_folder().absolute() / "coffee"
