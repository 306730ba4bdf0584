"""Objects to files and back, and what happens to files when writing goes wrong."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gltf
import numpy as np
import pytest
import shapes
import trimesh

from sam3d_nb import files
from sam3d_nb.errors import InputError, OutputError
from sam3d_nb.files import write_file, write_files
from sam3d_nb.frames import Pose
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.color import to_srgb
from sam3d_nb.mesh.export import FRAME, describe, load_object, read_extras
from sam3d_nb.mesh.glb import Node, encode_glb, pack_glb, unpack_glb
from sam3d_nb.mesh.load import load_mesh
from sam3d_nb.object3d import Object3D, Provenance
from sam3d_nb.zoo import load_model


def wrap(mesh: Mesh, name: str = "red chair") -> Object3D:
    provenance = Provenance(
        model="silhouette",
        model_version="1",
        package_version="0.1.0",
        image_sha256="ab" * 32,
        mask_index=14,
        seed=7,
        timings={"mesh": 0.25, "sparse structure": 1.5},
    )
    pose = Pose((0.6, 0.8, 0, 0), (0.1, -0.2, 2.5), (0.7, 0.7, 0.7))
    return Object3D(mesh, pose, provenance, name=name)


def plain() -> Mesh:
    return shapes.mesh(shapes.icosphere(2, radius=0.5))


def colored() -> Mesh:
    colors = np.random.default_rng(0).uniform(0, 1, size=(len(plain().vertices), 3)) ** 3
    return replace(plain(), colors=colors)


def textured() -> Mesh:
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (32, 64, 3), dtype=np.uint8)
    return replace(plain(), uv=rng.uniform(0, 1, (len(plain().vertices), 2)), texture=texture)


MESHES: dict[str, Callable[[], Mesh]] = {"plain": plain, "colored": colored, "textured": textured}


@pytest.fixture
def result() -> Object3D:
    return wrap(textured())


@pytest.mark.parametrize("kind", MESHES)
def test_glb_is_valid_and_comes_back_whole(kind: str, tmp_path: Path) -> None:
    saved = wrap(MESHES[kind]())
    path = saved.save(tmp_path / "chair.glb")
    gltf.assert_valid_glb(path)
    read = load_object(path)
    untimed = replace(saved.provenance, timings={})
    assert (read.name, read.pose, read.provenance) == (saved.name, saved.pose, untimed)
    for part in ("vertices", "faces", "colors", "texture"):
        np.testing.assert_array_equal(getattr(read.mesh, part), getattr(saved.mesh, part))
    if saved.mesh.uv is not None:
        np.testing.assert_allclose(read.mesh.uv, saved.mesh.uv, atol=1e-7)


def test_glb_of_a_reconstruction_is_valid(tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    mask = np.zeros((70, 90), dtype=bool)
    mask[10:60, 20:70] = True
    made = load_model("silhouette").reconstruct(photo, mask)
    path = made.save(tmp_path / "made.glb")
    gltf.assert_valid_glb(path)
    assert load_object(path).provenance == replace(made.provenance, timings={})


def test_equal_objects_give_equal_files_however_long_they_took(
    result: Object3D, tmp_path: Path
) -> None:
    slower = replace(result, provenance=replace(result.provenance, timings={"mesh": 9.75}))
    for suffix in (".glb", ".obj", ".ply", ".stl"):
        first, second = (
            thing.save(tmp_path / folder / f"chair{suffix}").read_bytes()
            for folder, thing in (("a", result), ("b", slower))
        )
        assert first == second


def test_the_validator_finds_what_is_wrong(result: Object3D, tmp_path: Path) -> None:
    path = result.save(tmp_path / "chair.glb")
    content = path.read_bytes().replace(b'"NORMAL"', b'"MORNAL"')
    path.write_bytes(content)
    with pytest.raises(AssertionError, match="MESH_PRIMITIVE_INVALID_ATTRIBUTE"):
        gltf.assert_valid_glb(path)


def test_a_missing_validator_fails_and_says_what_to_do(
    result: Object3D, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = result.save(tmp_path / "chair.glb")
    monkeypatch.setattr(gltf, "HERE", tmp_path)
    with pytest.raises(AssertionError, match=r"`bash setup_a\.sh test` installs it"):
        gltf.assert_valid_glb(path)


def test_extras_lie_in_the_node_and_hold_no_null(result: Object3D, tmp_path: Path) -> None:
    unknown = replace(result, provenance=replace(result.provenance, mask_index=None))
    path = unknown.save(tmp_path / "chair.glb")
    document, _ = unpack_glb(path.read_bytes())
    extras = document["nodes"][0]["extras"]
    assert extras == read_extras(path) == json.loads(json.dumps(describe(unknown)))
    assert document["nodes"][0]["name"] == "red chair"
    assert extras["frame"] == FRAME
    assert "null" not in json.dumps(extras)
    assert load_object(path).provenance == replace(unknown.provenance, timings={})
    seen = trimesh.load_scene(path)
    assert seen.graph["red chair"][1] is not None


def test_nodes_take_their_poses(tmp_path: Path) -> None:
    """Several objects in one file: what a scene will be."""
    poses = [Pose(), Pose((0.5, 0.5, -0.5, 0.5), (1, 2, 3), (0.5, 1, 2))]
    path = tmp_path / "two.glb"
    path.write_bytes(encode_glb([Node(colored(), f"part {i}", p) for i, p in enumerate(poses)]))
    gltf.assert_valid_glb(path)
    read = load_mesh(path)
    colors, count = colored().colors, len(plain().vertices)
    assert colors is not None
    assert read.colors is not None
    halves = sorted([0, count], key=lambda start: read.vertices[start].max())
    for start, pose in zip(halves, poses, strict=True):
        part = slice(start, start + count)
        expected = pose.apply(plain().vertices)
        np.testing.assert_allclose(read.vertices[part], expected, atol=1e-6)
        np.testing.assert_array_equal(read.colors[part], colors)


def test_a_large_mesh_needs_wide_indices(tmp_path: Path) -> None:
    for side in (255, 257):  # 65,025 and 66,049 vertices: below and above 16 bits
        row, column = np.divmod(np.arange((side - 1) ** 2), side - 1)
        corner = row * side + column
        v = np.stack((*np.divmod(np.arange(side * side), side), np.zeros(side * side)), axis=1)
        mesh = Mesh(v, np.stack([corner, corner + side, corner + 1], axis=1))
        path = tmp_path / f"{side}.glb"
        path.write_bytes(encode_glb([Node(mesh, "grid")]))
        gltf.assert_valid_glb(path)
        np.testing.assert_array_equal(load_mesh(path).faces, mesh.faces)


def test_bounds_of_a_file_are_those_of_its_vertices(tmp_path: Path) -> None:
    vertices = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)
    mesh = Mesh(vertices, np.arange(999).reshape(-1, 3))
    document, binary = unpack_glb(encode_glb([Node(mesh, "dust")]))
    place = document["accessors"][0]
    assert (place["min"], place["max"]) == (vertices.min(0).tolist(), vertices.max(0).tolist())
    np.testing.assert_array_equal(mesh.bounds, [vertices.min(0), vertices.max(0)])
    view = document["bufferViews"][place["bufferView"]]
    assert binary[view["byteOffset"] :][: view["byteLength"]] == vertices.tobytes()


def test_useless_triangles_are_dropped_and_colors_kept_in_range(tmp_path: Path) -> None:
    mesh = Mesh(np.eye(3), [[0, 1, 2], [0, 0, 1]], colors=[[2, 0, 0], [-1, 0, 0], [0.5, 0, 0]])
    path = wrap(mesh).save(tmp_path / "odd.glb")
    gltf.assert_valid_glb(path)
    assert len(load_mesh(path).faces) == 1


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply", ".stl"])
@pytest.mark.parametrize("kind", MESHES)
def test_another_library_reads_every_format(suffix: str, kind: str, tmp_path: Path) -> None:
    mesh = MESHES[kind]()
    path = wrap(mesh).save(tmp_path / f"my chair{suffix.upper()}")
    read = trimesh.load_mesh(path, file_type=suffix[1:], process=False)
    assert isinstance(read, trimesh.Trimesh)
    corners = read.vertices[read.faces]
    np.testing.assert_allclose(corners, mesh.vertices[mesh.faces], atol=1e-6)
    assert (np.einsum("fi,fi->f", read.face_normals, read.triangles_center) > 0).all()


def test_obj_names_its_material_and_texture(result: Object3D, tmp_path: Path) -> None:
    path = result.save(tmp_path / "my chair.obj")
    made = sorted(p.name for p in tmp_path.iterdir())
    assert made == ["my chair.obj", "my_chair.mtl", "my_chair_texture.png"]
    assert FRAME in path.read_text().splitlines()[0]
    read = trimesh.load_mesh(path, process=False)
    picture = read.visual.material.image
    np.testing.assert_array_equal(np.asarray(picture), result.mesh.texture)
    assert result.mesh.uv is not None
    np.testing.assert_allclose(
        read.visual.uv[read.faces] * (1, -1) + (0, 1), result.mesh.uv[result.mesh.faces], atol=1e-6
    )


def test_obj_and_ply_colors_are_srgb(tmp_path: Path) -> None:
    mesh = colored()
    assert mesh.colors is not None
    expected = to_srgb(mesh.colors)
    ply = trimesh.load_mesh(wrap(mesh).save(tmp_path / "chair.ply"), process=False)
    np.testing.assert_allclose(ply.visual.vertex_colors[:, :3] / 255, expected, atol=0.5 / 255)
    written = np.stack([ply.metadata["_ply_raw"]["vertex"]["data"][n] for n in ("nx", "ny", "nz")])
    np.testing.assert_array_equal(np.squeeze(written).T, mesh.normals)
    lines = wrap(mesh).save(tmp_path / "chair.obj").read_text().splitlines()
    written = np.array([line.split()[4:] for line in lines if line.startswith("v ")], dtype=float)
    np.testing.assert_allclose(written, expected, atol=1e-4)


def test_ply_samples_the_texture(result: Object3D, tmp_path: Path) -> None:
    mesh = result.mesh
    path = result.save(tmp_path / "chair.ply")
    read = trimesh.load_mesh(path, process=False)
    assert mesh.texture is not None
    assert mesh.uv is not None
    for color, (u, v) in zip(read.visual.vertex_colors, mesh.uv, strict=True):
        expected = mesh.texture[min(int(v * 32), 31), min(int(u * 64), 63)]
        np.testing.assert_allclose(color[:3], expected, atol=1)
    assert f"comment sam3d_nb; {FRAME}".encode() in path.read_bytes()[:300]


def test_stl_says_its_frame(result: Object3D, tmp_path: Path) -> None:
    content = result.save(tmp_path / "chair.stl").read_bytes()
    assert content[:80].startswith(b"sam3d_nb; x right, y up, z towards the viewer")
    assert len(content) == 84 + 50 * len(result.mesh.faces)


def test_the_mesh_lies_in_the_camera_frame_by_its_pose(result: Object3D) -> None:
    moved = result.mesh_in_camera()
    np.testing.assert_allclose(moved.vertices, result.pose.apply(result.mesh.vertices), atol=1e-6)


@pytest.mark.parametrize("name", ["chair.fbx", "chair", "chair.glb.zip"])
def test_unknown_formats_get_a_sentence(name: str, result: Object3D, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"use \.glb, \.obj, \.ply, \.stl"):
        result.save(tmp_path / name)


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply", ".stl"])
def test_an_empty_mesh_gets_a_sentence(suffix: str, tmp_path: Path) -> None:
    empty = wrap(Mesh(np.zeros((3, 3)), np.zeros((0, 3))))
    with pytest.raises(InputError, match="no triangles"):
        empty.save(tmp_path / f"chair{suffix}")
    assert not list(tmp_path.iterdir())


def test_only_triangles_without_area_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no triangles"):
        wrap(Mesh(np.eye(3), [[0, 0, 1]])).save(tmp_path / "chair.glb")


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply", ".stl"])
def test_a_file_is_replaced_only_when_asked(suffix: str, result: Object3D, tmp_path: Path) -> None:
    path = tmp_path / f"chair{suffix}"
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"chair\.\w+ exists; .* overwrite=True"):
        result.save(path)
    assert path.read_bytes() == b"precious"
    assert len(list(tmp_path.iterdir())) == 1
    result.save(path, overwrite=True)
    assert len(path.read_bytes()) > 100


def test_a_texture_in_the_way_stops_the_obj_too(result: Object3D, tmp_path: Path) -> None:
    (tmp_path / "chair_texture.png").write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"chair_texture\.png exists"):
        result.save(tmp_path / "chair.obj")
    assert [p.name for p in tmp_path.iterdir()] == ["chair_texture.png"]


def test_missing_folders_are_made(result: Object3D, tmp_path: Path) -> None:
    assert result.save(tmp_path / "a" / "b" / "chair.stl").is_file()


def test_a_folder_that_is_a_file_gets_a_sentence(result: Object3D, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write chair\.glb into .*choose another"):
        result.save(tmp_path / "file" / "chair.glb")
    (tmp_path / "chair.ply").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        result.save(tmp_path / "chair.ply", overwrite=True)


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="the administrator may write everywhere"
)
def test_a_folder_without_permission_gets_a_sentence(result: Object3D, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        result.save(tmp_path / "chair.glb")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("step", ["_write_flushed", "os.replace"])
@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing_behind(
    step: str,
    call: int,
    error: BaseException,
    result: Object3D,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of the three files of an OBJ fails in turn, half written or not yet renamed."""
    module, name = (files.os, "replace") if "." in step else (files, step)
    working, calls = getattr(module, name), []

    def failing(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == call:
            if step == "_write_flushed":
                arguments[0].write_bytes(b"half")  # type: ignore[attr-defined]
            raise error
        working(*arguments)

    monkeypatch.setattr(module, name, failing)
    wanted = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(wanted, match="No space left" if wanted is OutputError else None):
        result.save(tmp_path / "chair.obj")
    assert len(calls) == call
    assert not list(tmp_path.iterdir())


def test_a_failed_overwrite_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_file(tmp_path / "report.json", b"old")

    def failing(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files.os, "fsync", failing)
    with pytest.raises(OutputError, match="Input/output error"):
        write_file(path, b"new", overwrite=True)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_written_files_have_usual_rights_and_names_of_any_length(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250)
    write_files({path: b"content"})
    (tmp_path / "usual").write_bytes(b"")
    assert path.read_bytes() == b"content"
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_damaged_glb_files_get_a_sentence(result: Object3D, tmp_path: Path) -> None:
    content = result.save(tmp_path / "chair.glb").read_bytes()
    broken = tmp_path / "broken.glb"
    for damaged, sentence in [
        (b"", "at least 20 bytes"),
        (b"not a glb file at all, sorry", "no GLB file"),
        (content[:500], "cut off"),
        (content[:20] + b"{" * 50 + content[70:], "cannot be read"),
        (content.replace(b'"rotation"', b'"rotatiom"'), "^$"),
        (content.replace(b'"pose"', b'"p0se"'), "says nothing about pose"),
        (re.sub(rb'"rotation":\[[^]]*', lambda m: b'"rotation":["' + b"a" * (len(m[0]) - 14) + b'"',
                content), "damaged pose"),
    ]:  # fmt: skip
        broken.write_bytes(damaged)
        if sentence == "^$":  # a field with another name is one of a later version: ignored
            assert load_object(broken).pose.rotation == (1, 0, 0, 0)
            continue
        with pytest.raises(InputError, match=sentence):
            load_object(broken)
    with pytest.raises(InputError, match="no file"):
        load_object(tmp_path / "missing.glb")


def test_vertex_colors_of_other_writers_are_read(tmp_path: Path) -> None:
    """8-bit colors with and without a material whose base color multiplies them."""
    levels = np.random.default_rng(0).integers(0, 256, (len(plain().vertices), 4), dtype=np.uint8)
    shape = trimesh.Trimesh(plain().vertices, plain().faces, vertex_colors=levels, process=False)
    path = tmp_path / "other.glb"
    shape.export(path)
    read = load_mesh(path)
    np.testing.assert_allclose(read.colors, levels[:, :3] / 255, atol=1e-6)

    document, binary = unpack_glb(path.read_bytes())
    document["materials"] = [{"pbrMetallicRoughness": {"baseColorFactor": [1, 0.2, 0, 1]}}]
    document["meshes"][0]["primitives"][0]["material"] = 0
    path.write_bytes(pack_glb(document, binary))
    read = load_mesh(path)
    np.testing.assert_allclose(read.colors, levels[:, :3] / 255 * (1, 0.2, 0), atol=1e-3)
