"""Batches: everything once, nothing half-written, what fails told, stopping and going on."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_models import Hungry, Toy, write_mask, write_photo

import sam3d_nb as s3
from sam3d_nb import cli
from sam3d_nb.batch import folder as folder_module
from sam3d_nb.batch.inputs import read_photo
from sam3d_nb.batch.results import read_manifest
from sam3d_nb.engine.model import Sam3dObjects
from sam3d_nb.errors import InputError, OutputError, ReconstructionError, WeightsError
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.finish import Finishing
from sam3d_nb.mesh.load import load_mesh
from sam3d_nb.pipeline import Run, finish
from sam3d_nb.request import Request
from sam3d_nb.runs import reconstruct_to_folder
from sam3d_nb.weights.store import StandInStore
from sam3d_nb.work.inputs import InputHashes
from sam3d_nb.work.items import Item, list_work
from sam3d_nb.work.journal import Journal, read_records


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    write_photo(root / "a lamp", masks=2)
    write_photo(root / "box", masks=3, shade=120)
    write_photo(root / "_left_out")
    return root


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


def files(folder: Path) -> dict[str, bytes]:
    """All files of a batch, those of the manifest aside."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "manifest" not in path.name
    }


def records(folder: Path, kind: str = "object") -> list[dict[str, Any]]:
    return [r for r in read_records(folder / "manifest.jsonl") if r["kind"] == kind]


# What is done


def test_every_mask_of_every_photo_as_if_reconstructed_one_by_one(
    photos: Path, output: Path, tmp_path: Path
) -> None:
    batch = s3.reconstruct_batch(photos, output, "silhouette", formats=("glb", "obj"), seed=3)
    model = s3.load_model("silhouette")
    expected = {}
    for folder, masks in (("a lamp", 2), ("box", 3)):
        for index in range(masks):
            run = reconstruct_to_folder(
                s3.load_example(photos / folder),
                index,
                model,
                tmp_path / "alone",
                formats=("glb", "obj"),
                seed=3,
                overwrite=True,
            )
            expected |= {f"{folder}/{p.name}": p.read_bytes() for p in run.folder.iterdir()}
    assert files(output) == expected
    assert len(expected) >= 5 * 3, "glb, obj and its material"
    assert [batch.count(status) for status in ("done", "failed", "skipped")] == [5, 0, 0]
    assert "5 objects of 2 photos: 5 made" in batch.summary()


def test_the_manifest_says_what_files_there_are(photos: Path, output: Path) -> None:
    batch = s3.reconstruct_batch(photos, output, "silhouette")
    found = {}
    for record in records(output):
        assert (record["status"], record["attempts"], record["reason"]) == ("done", 1, "")
        assert record["seconds"] > 0
        assert set(record["stages"]) == {"depth", "mesh", "texture"}
        for file in record["files"]:
            content = (output / file["path"]).read_bytes()
            assert len(content) == file["bytes"]
            found[file["path"]] = file["sha256"]
    assert set(found) == set(files(output))
    (head,) = records(output, "run")
    (end,) = records(output, "end")
    assert head["identity"]["model"] == "silhouette"
    assert (head["objects"], head["seed"], head["engine"]) == (5, 0, "local")
    assert (end["ended"], end["done"], end["left"]) == ("complete", 5, 0)
    table = batch.table()
    assert list(table["image"] + table["mask"].astype(str)) == [
        "a lamp0",
        "a lamp1",
        "box0",
        "box1",
        "box2",
    ]
    assert read_manifest(output).equals(table)


def test_the_manual_names_every_field_of_the_manifest(photos: Path, output: Path) -> None:
    class Failing(Toy):
        def misbehave(self, request: Request) -> None:
            if request.mask_index == 1:
                raise KeyError("slip")

    s3.reconstruct_batch(photos, output, Failing())
    s3.reconstruct_batch(photos, output, Failing())
    s3.reconstruct_batch(photos, output, Toy(version="2"), overwrite=True)
    manual = Path(__file__).parent.parent / "docs" / "batches.md"
    rows = [line for line in manual.read_text().splitlines() if line.startswith("| `")]
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    there = list(read_records(output / "manifest.jsonl"))
    assert {record["kind"] for record in there} == {"run", "object", "replacing", "end"}
    assert {name for record in there for name in record} - {"kind"} == told


def test_what_photos_share_is_made_once_a_photo(photos: Path, output: Path) -> None:
    given: list[dict] = []

    class Sharing(Toy):
        def shared(self) -> dict[str, Any]:
            given.append({"cache": object()})
            return given[-1]

    s3.reconstruct_batch(photos, output, Sharing())
    assert len(given) == 2


def test_the_official_network_writes_gaussians_too_and_shares_a_photo(
    photos: Path, output: Path, tmp_path: Path
) -> None:
    """Stand-in weights: what objects of a photo share changes no bit of their files."""
    model = Sam3dObjects(StandInStore())
    quick = {"steps": (2, 2)}
    points = np.full((40, 60, 3), 1.0, np.float32)
    points[..., 0], points[..., 1] = np.meshgrid(np.linspace(-1, 1, 60), np.linspace(-1, 1, 40))
    np.savez(photos / "box" / "pointmap.npz", points=points)
    batch = s3.reconstruct_batch(photos / "box", output, model, options=quick)
    example = s3.load_example(photos / "box")
    for index in range(3):
        made = finish(model.stream(example, index, **quick))
        made.save(tmp_path / "alone" / "box" / f"box_{index}.glb")
        made.save_splats(tmp_path / "alone" / "box" / f"box_{index}_gaussians.ply")
    assert files(output) == files(tmp_path / "alone")
    assert batch.header["identity"]["stage1_steps"] == 2
    assert batch.header["device"] == "cpu"
    assert "device" not in batch.header["identity"], "an object made elsewhere is made"


def test_options_go_to_the_model_and_decide(photos: Path, output: Path) -> None:
    s3.reconstruct_batch(photos, output, Toy(), options={"size": 0.5})
    (head,) = records(output, "run")
    assert head["identity"]["size"] == 0.5
    small = load_mesh(output / "box" / "box_0.glb").vertices.max()
    s3.reconstruct_batch(photos, output, Toy(), overwrite=True)
    assert load_mesh(output / "box" / "box_0.glb").vertices.max() == 2 * small
    with pytest.raises(InputError, match="silhouette takes no options, but got size"):
        s3.reconstruct_batch(photos, output, "silhouette", options={"size": 0.5})


def test_meshes_are_finished_as_those_of_single_runs(
    photos: Path, output: Path, tmp_path: Path
) -> None:
    arguments = ["batch", f"--images_dir={photos}", f"--output_dir={output}", "--model=silhouette"]
    assert cli.main([*arguments, "--triangles=200", "--texture=64"]) == 0
    wish = Finishing(triangles=200, texture=64)
    example, model = s3.load_example(photos / "box"), s3.load_model("silhouette")
    alone = reconstruct_to_folder(example, 1, model, tmp_path / "alone", finishing=wish)
    assert (output / "box" / "box_1.glb").read_bytes() == alone.files["glb"].read_bytes()
    mesh = load_mesh(output / "box" / "box_1.glb")
    assert len(mesh.faces) <= 200
    assert mesh.texture.shape == (64, 64, 3)
    (head,) = records(output, "run")
    assert head["finishing"] == asdict(wish)
    again = s3.reconstruct_batch(photos, output, "silhouette", finishing=wish)
    assert again.count("skipped") == 5


def test_warnings_are_in_the_manifest(photos: Path, output: Path) -> None:
    class Warning_(Toy):
        def misbehave(self, request: Request) -> None:
            warnings.warn("the toy\nsqueaks", stacklevel=1)

    s3.reconstruct_batch(photos, output, Warning_())
    assert [record["warnings"] for record in records(output)] == [["the toy squeaks"]] * 5


# Going on


def test_a_second_run_skips_what_is_done(photos: Path, output: Path) -> None:
    first = s3.reconstruct_batch(photos / "box", output, "silhouette")
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*.glb")}
    batch = s3.reconstruct_batch(photos, output, "silhouette")
    assert [batch.count(status) for status in ("done", "skipped")] == [2, 3]
    assert {path: path.stat().st_mtime_ns for path in times} == times
    skipped = [record for record in records(output) if record["status"] == "skipped"]
    assert {r["reason"] for r in skipped} == {f"made by run {first.header['run']}"}
    assert set(read_manifest(output)["status"]) == {"done"}


@pytest.mark.parametrize("damage", ["gone", "short"])
def test_an_object_whose_file_is_damaged_is_made_again(
    photos: Path, output: Path, damage: str
) -> None:
    s3.reconstruct_batch(photos, output, "silhouette")
    before = files(output)
    path = output / "box" / "box_1.glb"
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"short")
    batch = s3.reconstruct_batch(photos, output, "silhouette")
    assert batch.count("done") == 1
    assert files(output) == before


@pytest.mark.parametrize(
    "change", ["seed", "formats", "finishing", "model", "photo", "mask", "camera"]
)
def test_other_inputs_or_settings_replace_nothing_unasked(
    photos: Path, output: Path, change: str
) -> None:
    given: dict[str, Any] = {"images_dir": photos, "output_dir": output, "model": Toy()}
    s3.reconstruct_batch(**given)
    before = files(output)
    made = 5
    if change == "seed":
        given["seed"] = 1
    elif change == "formats":
        given["formats"] = ("ply",)
    elif change == "finishing":
        given["finishing"] = Finishing(fill_holes=True)
    elif change == "model":
        given["model"] = Toy(version="2")
    else:
        made = 1 if change == "mask" else 3
        if change == "mask":
            write_mask(photos / "box" / "2.png", 30)
        elif change == "photo":
            (photos / "box" / "image.png").write_bytes(
                (photos / "a lamp" / "image.png").read_bytes()
            )
        else:
            camera = {"camera": {"K": [[50, 0, 30], [0, 50, 20], [0, 0, 1]]}}
            (photos / "box" / "example.json").write_text(json.dumps(camera))
    with pytest.raises(OutputError, match=r"made from other inputs or with another.*overwrite"):
        s3.reconstruct_batch(**given)
    assert files(output) == before
    batch = s3.reconstruct_batch(**given, overwrite=True)
    assert (batch.count("done"), batch.count("skipped")) == (made, 5 - made)
    assert {path.suffix for path in output.rglob("*_?.*")} == {
        f".{given.get('formats', ['glb'])[0]}"
    }
    again = s3.reconstruct_batch(**given, overwrite=True)
    assert again.count("skipped") == 5


def test_files_that_no_batch_made_are_not_replaced_unasked(photos: Path, output: Path) -> None:
    precious = output / "box" / "box_1.glb"
    precious.parent.mkdir(parents=True)
    precious.write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"box_1\.glb is there and not of a batch"):
        s3.reconstruct_batch(photos, output, Toy())
    assert files(output) == {"box/box_1.glb": b"precious"}


def test_a_run_killed_while_it_replaces_an_object_leaves_no_wrong_claim(
    photos: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of the second run are there, its record is not: that of the first is not true."""

    class Steady(Toy):
        """Files of two seeds differ in the seed's digit alone, so that their sizes are equal."""

        def run(self, request: Request, **options: Any) -> Run:
            return super().run(replace(request, seed=0), **options)

    s3.reconstruct_batch(photos / "box", output, Steady())
    first = files(output)
    write = folder_module.write_files

    def write_and_die(*arguments: Any, **named: Any) -> None:
        write(*arguments, **named)
        raise SystemExit("killed")

    monkeypatch.setattr(folder_module, "write_files", write_and_die)
    with pytest.raises(SystemExit):
        s3.reconstruct_batch(photos / "box", output, Steady(), seed=1, overwrite=True)
    monkeypatch.undo()
    second = files(output)
    assert second != first
    assert [len(content) for content in second.values()] == [len(c) for c in first.values()]
    batch = s3.reconstruct_batch(photos / "box", output, Steady())
    assert (batch.count("done"), batch.count("skipped")) == (1, 2)
    assert files(output) == first


def test_leftovers_of_a_killed_run_go_and_its_half_line_too(photos: Path, output: Path) -> None:
    s3.reconstruct_batch(photos, output, "silhouette")
    whole = files(output)
    (output / "box" / f".{'0f' * 8}.tmp").write_bytes(b"half")
    manifest = output / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(lines[:-2]) + lines[-2][:50])
    batch = s3.reconstruct_batch(photos, output, "silhouette")
    assert (batch.count("done"), batch.count("skipped")) == (1, 4)
    assert files(output) == whole
    assert all(json.loads(line) for line in manifest.read_bytes().splitlines())


@pytest.mark.parametrize(
    "line",
    [
        '{"name": "a"}',
        '{"kind": "object", "status": "done", "image": "box", "mask": 0, "key": "k"}',
        '{"kind": "object", "status": "done", "image": "a", "mask": 0, "key": "k", "files": [1]}',
    ],
)
def test_a_file_that_is_no_manifest_is_refused(photos: Path, output: Path, line: str) -> None:
    output.mkdir()
    (output / "manifest.jsonl").write_text(line + "\n")
    with pytest.raises(OutputError, match="no manifest of a batch"):
        s3.reconstruct_batch(photos, output, Toy())
    assert list(read_records(output / "manifest.jsonl")) == [json.loads(line)]


def test_a_manifest_cannot_name_files_elsewhere(photos: Path, output: Path) -> None:
    s3.reconstruct_batch(photos, output, Toy())
    precious = output.parent / "precious.glb"
    precious.write_bytes(b"precious")
    manifest = output / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace("box/box_0.glb", "../precious.glb"))
    s3.reconstruct_batch(photos, output, Toy(), seed=1, overwrite=True)
    assert precious.read_bytes() == b"precious"


def test_names_of_folders_stay_inside_the_output(tmp_path: Path, output: Path) -> None:
    photo = write_photo(tmp_path / "photos" / "inner").parent / "image.png"
    for path in (photo.parent / "inner").iterdir():
        path.rename(photo.parent / path.name)
    given = photo.parent / "inner" / ".." / "image.png"
    s3.reconstruct_batch(given, output, Toy())
    assert list(files(output)) == ["example/example_0.glb"]


def test_two_batches_do_not_share_a_folder(photos: Path, output: Path) -> None:
    with Journal(output / "manifest.jsonl"), pytest.raises(OutputError, match="another process"):
        s3.reconstruct_batch(photos, output, Toy())


# What fails


def test_wrong_input_is_told_once_and_tried_again_by_the_next_run(
    photos: Path, output: Path
) -> None:
    write_mask(photos / "box" / "1.png", 0, width=0)
    (photos / "a lamp" / "image.png").write_bytes(b"no picture")
    batch = s3.reconstruct_batch(photos, output, "silhouette")
    assert set(batch.failures()) == {"0_a lamp", "1_a lamp", "1_box"}
    assert "empty" in batch.failures()["1_box"]
    assert "no picture" in batch.failures()["0_a lamp"] or "image" in batch.failures()["0_a lamp"]
    failed = [record for record in records(output) if record["status"] == "failed"]
    assert {(r["error"], r["attempts"], len(r["files"])) for r in failed} == {("InputError", 1, 0)}
    assert batch.count("done") == 2
    write_mask(photos / "box" / "1.png", 10)
    batch = s3.reconstruct_batch(photos, output, "silhouette")
    assert [batch.count(status) for status in ("done", "failed", "skipped")] == [1, 2, 2]


def test_a_file_that_cannot_be_read_is_a_failure_of_its_objects(
    photos: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path == photos / "box" / "2.png":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    batch = s3.reconstruct_batch(photos, output, Toy())
    assert list(batch.failures()) == ["2_box"]
    assert "2.png cannot be read: Permission denied" in batch.failures()["2_box"]


def test_out_of_memory_is_tried_again_after_memory_is_freed(
    photos: Path, output: Path, tmp_path: Path
) -> None:
    model = Hungry(tmp_path)
    batch = s3.reconstruct_batch(photos / "box", output, model)
    assert list(batch.table()["attempts"]) == [2, 2, 2]
    assert model.released == 3
    plain = output.parent / "plain"
    s3.reconstruct_batch(photos / "box", plain, Toy())
    assert files(plain) == files(output)


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (MemoryError(), 3),
        (RuntimeError("CUDA out of memory"), 3),
        (ReconstructionError("nothing there"), 1),
        (KeyError("slip"), 1),
    ],
)
def test_tries_are_bounded_and_for_memory_only(
    photos: Path, output: Path, error: Exception, attempts: int
) -> None:
    class Failing(Toy):
        def misbehave(self, request: Request) -> None:
            if request.mask_index == 1:
                raise error

    batch = s3.reconstruct_batch(photos / "box", output, Failing())
    assert list(batch.table()["attempts"]) == [1, attempts, 1]
    (failed,) = (record for record in records(output) if record["status"] == "failed")
    assert failed["error"] == type(error).__name__
    unexpected = isinstance(error, KeyError)
    assert ("please report it" in failed["reason"]) == unexpected
    assert ("misbehave" in failed.get("trace", "")) == unexpected
    assert [record["mask"] for record in records(output) if record["status"] == "done"] == [0, 2]
    none = s3.reconstruct_batch(photos / "box", output, Failing(), retries=0)
    assert none.objects[1]["attempts"] == 1


def test_an_object_without_anything_to_save_is_a_failure(photos: Path, output: Path) -> None:
    class Empty(Toy):
        def run(self, request: Request, **options: Any) -> Run:
            made = yield from super().run(request, **options)
            return replace(made, mesh=replace(made.mesh, faces=made.mesh.faces[:0]))

    batch = s3.reconstruct_batch(photos / "box", output, Empty())
    assert {record["error"] for record in batch.objects} == {"ReconstructionError"}
    assert "without triangles" in batch.failures()["0_box"]


def test_what_all_objects_would_fail_by_ends_the_batch(photos: Path, output: Path) -> None:
    class Forgetful(Toy):
        def misbehave(self, request: Request) -> None:
            if request.mask_index == 1:
                raise WeightsError("the weights are gone")

    with pytest.raises(WeightsError, match="the weights are gone"):
        s3.reconstruct_batch(photos, output, Forgetful())
    (end,) = records(output, "end")
    assert (end["ended"], end["done"], end["left"]) == (
        "WeightsError: the weights are gone",
        1,
        4,
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"engine": "spark"}, "no engine 'spark'"),
        ({"workers": 2}, "are about Ray"),
        ({"ray_address": "auto"}, "are about Ray"),
        ({"retries": -1}, "retries is a whole number from 0 on"),
        ({"seed": 1.5}, "seed is a whole number"),
        ({"seed": 2**63}, "seed is a whole number from 0 to 2"),
        ({"formats": ("step",)}, "no format 'step'"),
        ({"formats": ("glb", "obj", "glb")}, "the format 'glb' is given twice"),
        ({"finishing": {"triangles": 500}}, r"is such as Finishing\(.* but got \{'triangles': 500"),
        ({"model": 3}, "a model is a name"),
        ({"model": "nemo"}, "no model 'nemo'"),
        ({"model": Toy(), "engine": "ray"}, "each worker of a cluster loads its own"),
        ({"engine": "ray", "workers": 0}, "workers is a whole number from 1 on"),
    ],
)
def test_what_is_wrong_with_the_call_is_told_before_anything_is_done(
    photos: Path, output: Path, wrong: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        s3.reconstruct_batch(photos, output, **{"model": "silhouette"} | wrong)
    assert not files(output) if output.exists() else True


def test_without_ray_the_engine_says_how_to_get_it(
    photos: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'pip install "sam3d_nb\[cluster\]"'):
        s3.reconstruct_batch(photos, output, "silhouette", engine="ray")


# Stopping

SLOW = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import sam3d_nb.batch.run
from batch_models import Slow
from sam3d_nb.cli import main
sam3d_nb.batch.run.loader = lambda model, device, memory: Slow
given = [f"--images_dir={sys.argv[2]}", f"--output_dir={sys.argv[3]}", *sys.argv[4:]]
sys.exit(main(["batch", *given]))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_goes_on_and_ends_as_if_it_had_not_been(
    photos: Path, output: Path, tmp_path: Path, number: signal.Signals
) -> None:
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", SLOW, here, str(photos), str(output)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (output.exists() and len(records(output)) >= 2):
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    done = len(records(output))
    assert 2 <= done < 5
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130
        assert f"interrupted; {done} of 5 objects are done, the same command goes on" in said
        assert [end["ended"] for end in records(output, "end")] == ["interrupted"]
    assert all(name.endswith(".glb") for name in files(output)) or number == signal.SIGKILL
    batch = s3.reconstruct_batch(photos, output, "silhouette")
    assert (batch.count("skipped"), batch.count("done")) == (done, 5 - done)
    s3.reconstruct_batch(photos, tmp_path / "at once", "silhouette")
    assert files(output) == files(tmp_path / "at once")


def test_a_signal_while_a_mesh_is_finished_does_not_wait_for_it(
    photos: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []

    def slow(mesh: Mesh, **wish: Any) -> Mesh:
        os.kill(os.getpid(), signal.SIGINT)
        ended.append(mesh)
        return mesh

    wish = Finishing(fill_holes=True)
    with monkeypatch.context() as patched:
        patched.setattr("sam3d_nb.mesh.finish.finish", slow)
        with pytest.raises(KeyboardInterrupt, match="0 of 3 objects are done"):
            s3.reconstruct_batch(photos / "box", output, Toy(), finishing=wish)
    assert not ended
    batch = s3.reconstruct_batch(photos / "box", output, Toy(), finishing=wish)
    assert batch.count("done") == 3


def test_a_signal_between_two_events_ends_the_object_that_is_made(
    photos: Path, output: Path
) -> None:
    class Stopped(Toy):
        def misbehave(self, request: Request) -> None:
            if request.mask_index == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt, match="1 of 3 objects are done"):
        s3.reconstruct_batch(photos / "box", output, Stopped())
    assert list(files(output)) == ["box/box_0.glb"]


# The command


def test_the_command_prints_a_summary_and_what_failed(
    photos: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["batch", "--model=silhouette", f"--images-dir={photos}", f"--output_dir={output}"]
    assert cli.main(given) == 0
    said = capsys.readouterr()
    assert "5 objects of 2 photos: 5 made, 0 made earlier, 0 failed;" in said.out
    assert "all records in manifest.jsonl" in said.out
    assert said.err == ""
    write_mask(photos / "box" / "3.png", 0, width=0)
    assert cli.main(given) == ReconstructionError.exit_code
    said = capsys.readouterr()
    assert "6 objects of 2 photos: 0 made, 5 made earlier, 1 failed" in said.out
    assert said.err.startswith("sam3d-nb: 3_box failed: ")
    assert cli.main([*given, "--seed=1"]) == OutputError.exit_code
    assert cli.main([*given, "--seed=1", "--overwrite"]) == ReconstructionError.exit_code
    assert cli.main([*given, "--engine=spark"]) == InputError.exit_code
    assert cli.main(["batch", "--images_dir=nowhere"]) == InputError.exit_code


# Inputs


def hash_all(photos: Path) -> list[str]:
    hashes = InputHashes()
    return [hashes.of(item) for item in list_work(photos)]


def test_the_hash_of_inputs_is_of_what_decides(photos: Path) -> None:
    hashes = hash_all(photos)
    assert len(set(hashes)) == 5
    assert [InputHashes().of(item) for item in list_work(photos)] == hashes
    (photos / "box" / "2.png").rename(photos / "box" / "02.png")
    (photos / "box" / "notes.txt").write_text("anything")
    assert hash_all(photos) == hashes
    write_mask(photos / "box" / "02.png", 40)
    same = [a == b for a, b in zip(hashes, hash_all(photos), strict=True)]
    assert same == [True] * 4 + [False]
    with pytest.raises(InputError, match="cannot be looked into"):
        InputHashes().of(Item(photos / "gone" / "image.png", "gone", 0))


def test_files_of_a_photo_are_an_example_elsewhere(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    path = read_photo(photos / "box" / "image.png").unpack(tmp_path / "there")
    here, there = s3.load_example(photos / "box"), s3.load_example(path)
    assert (here.image == there.image).all()
    assert all((here.mask(index) == there.mask(index)).all() for index in range(3))
    assert list(there.masks) == [0, 1, 2]
