"""The model `tiny` with the weights that come with the package: found, whole, good and small."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gltf import assert_valid_glb

import sam3d_nb as s3
from sam3d_nb.cli import tell_rough_depth
from sam3d_nb.errors import InputError, WeightsError
from sam3d_nb.events import DepthEvent, Event
from sam3d_nb.frames import project
from sam3d_nb.object3d import Object3D
from sam3d_nb.request import resolve_request
from sam3d_nb.tiny import load, shipped
from sam3d_nb.tiny.shipped import NAME
from sam3d_nb.weights.folder import MANIFEST, check_hashes, read_manifest
from sam3d_nb.zoo import unload_model

MB = 10**6
CHAIR = ("living_room", 1)  # thin, with parts that hide each other


@pytest.fixture(scope="module")
def room() -> s3.Example:
    return s3.load_example(CHAIR[0])


@pytest.fixture(scope="module")
def chair(room: s3.Example) -> Object3D:
    return s3.load_model(NAME, device="cpu").reconstruct(room, CHAIR[1], seed=2)


@pytest.fixture
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another list of what is kept, so that other tests find theirs."""
    monkeypatch.setattr(load, "_latest", [])


def arrays(result: Object3D) -> dict[str, np.ndarray]:
    assert result.gaussians is not None
    assert result.mesh.colors is not None
    fields = {name: getattr(result.gaussians, name) for name in ("centers", "scales", "colors")}
    mesh = {name: getattr(result.mesh, name) for name in ("vertices", "faces", "colors")}
    return fields | {f"mesh_{name}": value for name, value in mesh.items()}


# What comes with the package


def test_the_weights_are_those_of_the_manifest() -> None:
    manifest = read_manifest(shipped.FOLDER, NAME)
    check_hashes(shipped.FOLDER, manifest)
    present = {path.name for path in shipped.FOLDER.glob("*.safetensors")}
    assert present == {name for name in manifest.files if name.endswith(".safetensors")}


def test_the_weights_are_small_and_say_where_they_come_from() -> None:
    sizes = {path.name: path.stat().st_size for path in shipped.FOLDER.iterdir()}
    assert max(sizes.values()) < 16 * MB
    assert sum(sizes.values()) <= 48 * MB
    for text in ("ATTRIBUTION.md", "CARD.md"):
        assert sizes[text] > 1000


# Loading


def test_it_is_the_default_where_the_official_weights_are_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SAM3D_NB_WEIGHTS", str(tmp_path))
    assert s3.load_model(device="cpu").name == NAME
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)  # and where its own are, the baseline
    assert s3.load_model(device="cpu").name == "silhouette"


@pytest.mark.usefixtures("nothing_loaded")
def test_it_is_loaded_once_until_it_is_forgotten() -> None:
    first = s3.load_model(NAME, device="cpu")
    assert s3.load_model(NAME, device="cpu") is first
    load.forget(first)
    second = s3.load_model(NAME, device="cpu")
    assert second is not first
    unload_model(second)
    assert load.kept() == []


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nothing_loaded: None) -> Path:
    folder = tmp_path / "weights"
    shutil.copytree(shipped.FOLDER, folder)
    monkeypatch.setattr(shipped, "FOLDER", folder)
    return folder


def test_a_file_that_was_cut_off_is_named(copied: Path) -> None:
    path = copied / "mesh_decoder.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"mesh_decoder\.safetensors has .* bytes .*install"):
        s3.load_model(NAME, device="cpu")


def test_a_file_of_something_else_is_named(copied: Path, room: s3.Example) -> None:
    """Of the right size, so that only reading it tells."""
    path = copied / "structure_flow.safetensors"
    path.write_bytes(b"\x00" * path.stat().st_size)
    with pytest.raises(WeightsError, match=r"structure_flow\.safetensors is .*; install"):
        s3.load_model(NAME, device="cpu").reconstruct(room, CHAIR[1])


def test_a_manifest_of_another_model_is_told(copied: Path) -> None:
    manifest = json.loads((copied / MANIFEST).read_text())
    (copied / MANIFEST).write_text(json.dumps(manifest | {"model": "huge"}))
    with pytest.raises(WeightsError, match=r"manifest\.json is .*not for tiny.*; install"):
        s3.load_model(NAME, device="cpu")


# What it makes


def test_it_is_nearer_to_the_truth_than_the_baseline(room: s3.Example, chair: Object3D) -> None:
    found = s3.compare(chair, room)
    baseline = s3.load_model("silhouette").reconstruct(room, CHAIR[1])
    other = s3.compare(baseline, room)
    assert found["silhouette IoU"] >= 0.9
    assert found["F-score@0.05, placed"] >= 0.8
    assert found["F-score@0.05, placed"] > other["F-score@0.05, placed"] + 0.2
    assert found["color PSNR in the photo's view, dB"] >= 20


def test_the_same_seed_gives_the_same_bits(room: s3.Example, chair: Object3D) -> None:
    """Networks that stay and networks that come for their stage only are the same on a CPU."""
    staged = s3.load_model(NAME, device="cpu", memory="staged")
    again = staged.reconstruct(room, CHAIR[1], seed=2)
    for name, value in arrays(chair).items():
        np.testing.assert_array_equal(arrays(again)[name], value, err_msg=name)
    assert again.pose == chair.pose


def test_a_shortcut_that_was_not_trained_is_refused_before_any_work(room: s3.Example) -> None:
    model = s3.load_model(NAME, device="cpu")
    says = r"tiny has no few-step mode.*leave few_step out: it takes no more than 4 and 6 steps"
    with pytest.raises(InputError, match=says):
        model.stream(room, CHAIR[1], few_step=True)
    with pytest.raises(InputError, match=says):
        model.reconstruct_scene(room, few_step=True)
    request = resolve_request(room, CHAIR[1])
    with pytest.raises(InputError, match=says):
        model.run(request, few_step=True)
    model.run(request, few_step=False, steps=(2, 2)).close()


def test_a_photo_alone_will_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No point map: depth is estimated, as for anybody's photo. Every format is written."""
    bear = replace(s3.load_example("teddy_bear"), pointmap=None, intrinsics=None)
    model = s3.load_model(NAME, device="cpu")
    result = model.reconstruct(bear, 0)
    assert s3.compare(result, bear, 0)["silhouette IoU"] >= 0.8
    assert result.gaussians is not None
    assert len(result.gaussians.centers) > 1000
    assert result.depth_is_estimated
    tell_rough_depth([result, result])
    assert capsys.readouterr().err.count("depth is a rough estimate") == 1
    assert len(repr(result)) < 200
    assert ", by tiny: <mesh: " in repr(result)
    for suffix in ("glb", "obj", "ply", "stl"):
        path = result.save(tmp_path / f"bear.{suffix}")
        assert path.stat().st_size > 10_000
    assert_valid_glb(tmp_path / "bear.glb")


def test_estimated_points_lie_where_a_photo_that_is_no_square_shows_them() -> None:
    coffee = s3.load_example("coffee")
    assert coffee.pointmap is None
    model = s3.load_model(NAME, device="cpu")
    events: list[DepthEvent] = []

    def note(event: Event) -> None:
        if isinstance(event, DepthEvent) and event.pointmap is not None:
            events.append(event)

    model.reconstruct(coffee, 0, on_event=note, formats=("gaussians",))
    points, intrinsics = events[0].pointmap, events[0].intrinsics
    height, width = coffee.image.shape[:2]
    assert height != width
    assert points.shape == (height, width, 3)
    known = np.isfinite(points).all(-1)
    assert known.mean() > 0.5
    pixels = project(points[known].astype(np.float64), intrinsics)
    rows, columns = np.nonzero(known)
    np.testing.assert_allclose(pixels, np.stack([columns, rows], 1) + 0.5, atol=0.05)


PROGRAM = """
import json
from pathlib import Path
import sam3d_nb as s3
result = s3.load_model("tiny", device="cpu").reconstruct(s3.load_example("coffee"), 0)
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
peak = int(status["VmHWM"].split()[0]) * 1024
print(json.dumps({"faces": len(result.mesh.faces), "peak": peak}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_it_needs_less_memory_than_any_laptop_has() -> None:
    """The peak of its own process; that of `getrusage` counts in the tests that started it."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True)
    found = json.loads(done.stdout)
    assert found["faces"] > 1000
    assert found["peak"] < 2 * 10**9
