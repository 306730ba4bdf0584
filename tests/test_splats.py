"""Gaussians as arrays, carried by poses, and their files, read by others and by ourselves."""

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from harness import Golden
from scipy.spatial.transform import Rotation

from sam3d_nb.errors import InputError, OutputError
from sam3d_nb.frames import Pose, rotation_matrix
from sam3d_nb.mesh import Mesh
from sam3d_nb.model.gaussians import PLY_PROPERTIES as OFFICIAL_PROPERTIES
from sam3d_nb.model.gaussians import GaussianSet
from sam3d_nb.object3d import Object3D, Provenance
from sam3d_nb.splats import (
    PLY_PROPERTIES,
    Gaussians,
    decode_ply,
    encode_ply,
    load_splats,
    merge,
)


def some(count: int = 50, seed: int = 0) -> Gaussians:
    rng = np.random.default_rng(seed)
    return Gaussians(
        rng.uniform(-0.5, 0.5, (count, 3)),
        np.exp(rng.uniform(-7, -3, (count, 3))),
        Rotation.random(count, rng=rng).as_quat(canonical=True, scalar_first=True),
        rng.uniform(0.01, 0.99, count),
        rng.uniform(0, 1, (count, 3)),
    )


def covariances(gaussians: Gaussians) -> np.ndarray:
    axes = np.stack([rotation_matrix(q) for q in gaussians.rotations])
    axes = axes * gaussians.scales[:, None].astype(np.float64)
    return axes @ axes.transpose(0, 2, 1)  # (K, 3, 3)


def assert_same(actual: Gaussians, expected: Gaussians, **tolerance: float) -> None:
    for name in ("centers", "scales", "opacities", "colors"):
        np.testing.assert_allclose(getattr(actual, name), getattr(expected, name), **tolerance)
    agreement = np.abs((actual.rotations * expected.rotations).sum(1))  # q and -q are one rotation
    np.testing.assert_allclose(agreement, 1, **tolerance)


# Poses


@pytest.mark.parametrize("scale", [(0.7, 0.7, 0.7), (0.5, 2.0, 1.1)])
def test_a_pose_carries_centers_and_shapes(scale: tuple[float, float, float]) -> None:
    local = some()
    pose = Pose((0.3, -0.5, 0.7, 0.2), (1.0, -2.0, 3.0), scale)
    placed = local.placed(pose)
    np.testing.assert_allclose(placed.centers, pose.apply(local.centers), atol=1e-6)
    linear = pose.matrix()[:3, :3]
    expected = linear @ covariances(local) @ linear.T
    np.testing.assert_allclose(covariances(placed), expected, rtol=1e-3, atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(placed.rotations, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(placed.colors, local.colors)
    np.testing.assert_array_equal(placed.opacities, local.opacities)


def test_sets_are_merged_in_their_order() -> None:
    first, second = some(3, seed=1), some(5, seed=2)
    both = merge([first, second])
    assert len(both) == 8
    np.testing.assert_array_equal(both.colors[3:], second.colors)
    np.testing.assert_array_equal(both.opacities[:3], first.opacities)
    with pytest.raises(InputError, match="at least one"):
        merge([])


# Files


def test_a_ply_comes_back(tmp_path: Path) -> None:
    gaussians = some()
    path = gaussians.save(tmp_path / "new" / "set.ply")
    assert_same(load_splats(path), gaussians, rtol=2e-5, atol=1e-6)
    with pytest.raises(OutputError, match="exists"):
        gaussians.save(path)
    some(7).save(path, overwrite=True)
    assert len(load_splats(path)) == 7


def test_a_ply_is_what_the_released_model_writes(request: pytest.FixtureRequest) -> None:
    assert PLY_PROPERTIES == OFFICIAL_PROPERTIES
    golden = Golden(request.config.getoption("--golden"), "stage2/slat_decoder_gs")
    official = golden["ply"].numpy().tobytes()
    ours = encode_ply(decode_ply(official))
    end = official.index(b"end_header\n") + len(b"end_header\n")
    assert ours[:end] == official[:end]
    rows, expected = (
        np.frombuffer(content[end:], "<f4").reshape(-1, len(PLY_PROPERTIES)).copy()
        for content in (ours, official)
    )
    expected[:, 13:] /= np.linalg.norm(expected[:, 13:], axis=1, keepdims=True)
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=2e-4)


def test_a_ply_says_the_same_as_the_network_s_own_table() -> None:
    gaussians = some()
    table = np.frombuffer(encode_ply(gaussians).partition(b"end_header\n")[2], "<f4")
    network = GaussianSet.from_ply_table(torch.tensor(table.reshape(-1, 17)), kernel_size=1e-5)
    np.testing.assert_allclose(network.rgb.numpy(), gaussians.colors, atol=1e-5)
    np.testing.assert_allclose(network.scale.numpy(), gaussians.scales, rtol=1e-3)
    np.testing.assert_allclose(network.opacity[:, 0].numpy(), gaussians.opacities, atol=1e-5)
    np.testing.assert_allclose(network.rotation.numpy(), gaussians.rotations, atol=1e-5)


def test_other_programs_read_the_ply(tmp_path: Path) -> None:
    gaussians = some()
    cloud = trimesh.load(gaussians.save(tmp_path / "set.ply"))
    np.testing.assert_array_equal(np.asarray(cloud.vertices, np.float32), gaussians.centers)
    data = cloud.metadata["_ply_raw"]["vertex"]["data"]
    np.testing.assert_allclose(np.ravel(data["scale_1"]), np.log(gaussians.scales[:, 1]), rtol=1e-6)


def test_opacities_at_both_ends_can_be_written() -> None:
    ends = Gaussians(np.zeros((2, 3)), np.ones((2, 3)), [[1, 0, 0, 0]] * 2, [0, 1], np.ones((2, 3)))
    rows = np.frombuffer(encode_ply(ends).partition(b"end_header\n")[2], "<f4")
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(decode_ply(encode_ply(ends)).opacities, [0, 1], atol=1e-6)


def test_a_splat_comes_back_with_8_bit_colors_largest_first(tmp_path: Path) -> None:
    gaussians = some()
    path = gaussians.save(tmp_path / "set.splat")
    assert path.stat().st_size == 32 * len(gaussians)
    order = np.argsort(-gaussians.scales.prod(1) * gaussians.opacities)
    back = load_splats(path)
    np.testing.assert_array_equal(back.centers, gaussians.centers[order])
    np.testing.assert_array_equal(back.scales, gaussians.scales[order])
    np.testing.assert_allclose(back.colors, gaussians.colors[order], atol=0.6 / 255)
    np.testing.assert_allclose(back.opacities, gaussians.opacities[order], atol=0.6 / 255)
    agreement = np.abs((back.rotations * gaussians.rotations[order]).sum(1))
    assert agreement.min() > 0.9998  # about a degree


# An object and its splats


def object_with(gaussians: Gaussians | None) -> Object3D:
    corner = Mesh(np.eye(3), np.array([[0, 1, 2]]))
    source = Provenance("test", "1", "0", "")
    return Object3D(corner, Pose((0, 1, 0, 0), (0, 0, 2)), source, "thing", gaussians)


def test_an_object_writes_its_splats_where_its_glb_is(tmp_path: Path) -> None:
    gaussians = some()
    thing = object_with(gaussians)
    saved = load_splats(thing.save_splats(tmp_path / "thing.ply"))
    np.testing.assert_array_equal(saved.centers, gaussians.centers)
    placed = thing.gaussians_in_camera()
    np.testing.assert_allclose(placed.centers, thing.pose.apply(gaussians.centers), atol=1e-6)


def test_an_object_without_gaussians_says_so(tmp_path: Path) -> None:
    thing = object_with(None)
    for ask in (lambda: thing.save_splats(tmp_path / "a.ply"), thing.gaussians_in_camera):
        with pytest.raises(InputError, match="'thing' has no gaussians: test made none"):
            ask()


# Bad input


def test_arrays_that_do_not_go_together_get_a_sentence() -> None:
    good = some(4)
    with pytest.raises(InputError, match=r"scales need shape \(4, 3\), not \(3, 3\)"):
        Gaussians(good.centers, good.scales[:3], good.rotations, good.opacities, good.colors)
    bad = good.colors * np.nan
    with pytest.raises(InputError, match="colors of 4 are not all finite"):
        Gaussians(good.centers, good.scales, good.rotations, good.opacities, bad)


def header(*lines: str, first: str = "format binary_little_endian 1.0") -> bytes:
    return "\n".join(["ply", first, *lines, "end_header", ""]).encode("latin-1")


WHOLE = header("element vertex 2", *(f"property float {name}" for name in PLY_PROPERTIES))
BAD_FILES = {
    "no ply": ("a.ply", b"hello", "no PLY file"),
    "no end": ("a.ply", WHOLE[:-12], "no PLY file"),
    "ascii": ("a.ply", header("element vertex 1", first="format ascii 1.0"), "binary_little"),
    "nothing": ("a.ply", b"ply\nend_header\n", "binary_little"),
    "cut off": ("a.ply", WHOLE + bytes(68), "cut off: 2 gaussians"),
    "a mesh": ("a.ply", header("element vertex 0", "element face 0"), "one element"),
    "no number": ("a.ply", header("element vertex \xb2"), "one element"),
    "no name": ("a.ply", header("element"), "one element"),
    "a list": ("a.ply", header("element vertex 0", "property list uchar int i"), "list uchar"),
    "points only": ("a.ply", header("element vertex 0", "property float x"), "opacity.* missing"),
    "twice x": ("a.ply", header("element vertex 0", *["property float x"] * 2), "properties"),
    "splat cut off": ("a.splat", bytes(40), "32 bytes a gaussian"),
    "empty splat": ("a.splat", b"", "32 bytes a gaussian"),
    "another kind": ("a.spz", b"", "use .ply or .splat"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_damaged_file_gets_a_sentence(case: str, tmp_path: Path) -> None:
    name, content, sentence = BAD_FILES[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        load_splats(tmp_path / name)


def test_what_cannot_be_saved_or_found_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"use \.ply or \.splat"):
        some().save(tmp_path / "set.glb")
    with pytest.raises(InputError, match="0 gaussians"):
        some(0).save(tmp_path / "set.ply")
    with pytest.raises(InputError, match="no file"):
        load_splats(tmp_path / "set.ply")
    assert not list(tmp_path.iterdir())
