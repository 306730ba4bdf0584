"""The benchmark: the published method and files, rows at once, resuming, failures, the command."""

import errno
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import sam3d_nb as s3
from sam3d_nb import cli, zoo
from sam3d_nb.errors import InputError, OutputError, ReconstructionError
from sam3d_nb.events import MeshEvent
from sam3d_nb.frames import Pose
from sam3d_nb.machine import code_sha256
from sam3d_nb.mesh import Mesh
from sam3d_nb.pipeline import Model, Reconstruction, Run
from sam3d_nb.profiling import header
from sam3d_nb.profiling.benchmark import benchmark
from sam3d_nb.profiling.results import load_results
from sam3d_nb.profiling.trace import profile_run
from sam3d_nb.request import Request
from sam3d_nb.silhouette import Silhouette
from sam3d_nb.weights import converted, load
from sam3d_nb.weights.folder import FOLDER_VARIABLE
from sam3d_nb.weights.store import StandInStore
from sam3d_nb.weights.write import write_stand_in

STEPS = [f"elapsed_time_at_active_step_00{n}" for n in (1, 2, 3)]
KEPT: dict[str, Any] = {"use_inference_cache": True}


def write_photo(folder: Path, masks: int = 1) -> Path:
    """A photo whose object m lies in columns 10 m to 10 m + 8."""
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(folder / "image.png")
    for index in range(masks):
        mask = np.zeros((40, 60), np.uint8)
        mask[5:35, 10 * index : 10 * index + 8] = 255
        Image.fromarray(mask).save(folder / f"{index}.png")
    return folder


@pytest.fixture(autouse=True)
def code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package may be worked on while the tests run."""
    monkeypatch.setattr(header, "code_sha256", lambda: "c0de" * 16)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three objects in two photos, and a folder that is left out."""
    folder = tmp_path / "photos"
    write_photo(folder / "kid_box", masks=2)
    write_photo(folder / "lamp")
    write_photo(folder / "_not this one")
    return folder


class Clockwork(Model):
    """Takes a known time: `seconds` in order, then nothing. Counts what it does."""

    name, version = "clockwork", "1"

    def __init__(self, *seconds: float) -> None:
        self.seconds = iter(seconds)
        self.seen: list[int | None] = []
        self.failing: set[int] = set()

    def run(self, request: Request) -> Run:
        yield MeshEvent(0.0)
        self.seen.append(request.mask_index)
        time.sleep(next(self.seconds, 0.0))
        if request.mask_index in self.failing:
            raise ReconstructionError("found nothing\n  usable")
        yield MeshEvent(1.0)
        return Reconstruction(Mesh(np.eye(3), np.array([[0, 1, 2]])), Pose())


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, index_col="mask_index")


# The published method


def test_columns_rows_and_names_are_the_published_ones(photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "out"
    benchmark(photos, place, Clockwork(), **KEPT)
    head = (place / "kid_box_elapsed_time.csv").read_text().splitlines()[0]
    assert head.split(",") == ["mask_index", *STEPS, "elapsed_time_average"]
    assert list(read(place / "kid_box_elapsed_time.csv").index) == ["0", "1", "mean"]
    assert list(read(place / "lamp_elapsed_time.csv").index) == ["0", "mean"]
    table = read(place / "elapsed_time.csv")
    assert list(table.index) == ["0_kid_box", "1_kid_box", "0_lamp", "mean"]
    assert list(table.columns) == [*STEPS, "elapsed_time_average"]


def test_averages_and_means_are_the_plain_ones(photos: Path, tmp_path: Path) -> None:
    results = benchmark(photos, tmp_path / "out", Clockwork(), **KEPT)
    table = read(tmp_path / "out" / "elapsed_time.csv")
    for row in results.rows:
        seconds = [run.seconds for run in row.runs if run.counted]
        assert list(table.loc[row.label, STEPS]) == pytest.approx(seconds, abs=1e-6)
        average = table.loc[row.label, "elapsed_time_average"]
        assert average == pytest.approx(sum(seconds) / 3, abs=1e-6)
    objects = table.drop(index="mean")
    for column in table:
        assert table.loc["mean", column] == pytest.approx(sum(objects[column]) / 3, abs=1e-6)
    pd.testing.assert_frame_equal(results.table(), table, atol=1e-6)


def test_warmup_is_run_but_not_counted_and_wait_is_skipped(photos: Path) -> None:
    model = Clockwork(0.3, 0.02, 0.05)
    settings = {"wait": 4, "warmup": 1, "active": 2}
    results = benchmark(photos / "lamp", None, model, **KEPT, **settings)
    assert model.seen == [0, 0, 0]
    (row,) = results.table().drop(index="mean").to_dict("records")
    assert 0.02 <= row[STEPS[0]] < 0.2
    assert 0.05 <= row[STEPS[1]] < 0.2
    assert STEPS[2] not in row
    assert results.rows[0].runs[0].seconds >= 0.3


def test_without_the_cache_every_run_loads_and_that_counts(photos: Path) -> None:
    loads = []

    def load() -> Model:
        time.sleep(0.05)
        loads.append(1)
        return Clockwork()

    results = benchmark(photos / "lamp", None, load, active=2)
    assert len(loads) == 1 + (1 + 2)
    assert (results.table() >= 0.05).all(axis=None)
    assert not results.kept
    stages = results.by_stage()
    assert list(stages.index) == ["load model", "mesh", "between stages", "all"]
    assert stages.loc["load model", "mean"] >= 0.05
    kept = benchmark(photos, None, load, active=2, **KEPT)
    assert len(loads) == 4 + 1
    assert kept.table()["elapsed_time_average"].max() < 0.05
    assert kept.kept


def test_the_official_model_is_read_from_its_files_for_every_run(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stand-in weights in small sizes, by the command."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "weights"))
    write_stand_in(StandInStore(dtype=torch.float16), tmp_path / "weights")
    opened: list[Path] = []

    def read_converted(place: Path) -> Any:
        opened.append(place)
        return converted.read_converted(place)

    monkeypatch.setattr(load, "read_converted", read_converted)
    arguments = ["profile", f"--images_dir={photos / 'lamp'}", f"--output_dir={tmp_path / 'out'}"]
    arguments += ["--model=sam-3d-objects", "--device=cpu", "--active=1"]
    assert cli.main(arguments) == 0
    assert len(opened) == 1 + 2
    results = load_results(tmp_path / "out")
    identity = results.header["identity"]
    assert identity["model"]["name"] == "sam-3d-objects with stand-in weights"
    assert len(identity["weights_sha256"]) == 64
    stages = list(results.by_stage().index)
    assert stages[:4] == ["load model", "depth", "conditioning", "sparse structure"]
    (row,) = results.rows
    assert all(run.voxels and run.faces and run.gaussians for run in row.runs)
    steps = [span for span in row.runs[0].spans if span.path[0] == "structured latent"]
    assert len(steps) == 1 + 25


# Files


def test_every_row_is_on_disk_before_the_next_one_begins(photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "out"
    found: list[list[str]] = []

    class Looking(Clockwork):
        def run(self, request: Request) -> Run:
            path = place / "elapsed_time.csv"
            found.append(list(read(path).index) if path.is_file() else [])
            assert not list(place.glob("*.tmp"))
            return super().run(request)

    benchmark(photos, place, Looking(), warmup=0, active=1, **KEPT)
    assert found == [[], ["0_kid_box", "mean"], ["0_kid_box", "1_kid_box", "mean"]]


def test_the_header_says_what_ran_on_what_and_how(photos: Path, tmp_path: Path) -> None:
    benchmark(photos, tmp_path / "out", Clockwork(), seed=5, **KEPT)
    header = json.loads((tmp_path / "out" / "header.json").read_text())
    assert set(header) == {"date", "commit", "clocks_mhz", "identity"}
    identity = header["identity"]
    assert set(identity["hardware"]) >= {"cpu", "cores", "memory_gib", "system"}
    assert set(identity["versions"]) >= {"sam3d_nb", "python", "torch"}
    assert "driver" in identity
    assert identity["code_sha256"] == "c0de" * 16
    assert re.fullmatch("[0-9a-f]{64}", code_sha256())
    assert identity["model"] == {"name": "clockwork", "version": "1"}
    configuration = identity["configuration"]
    assert configuration["seed"] == 5
    assert (configuration["wait"], configuration["warmup"], configuration["active"]) == (0, 1, 3)


def test_the_header_has_the_first_load_only_where_there_was_one(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Clockwork()
    spec = replace(zoo.MODELS["silhouette"], build=lambda *a: there, kept=lambda: [there])
    monkeypatch.setitem(zoo.MODELS, "silhouette", spec)
    assert "first_load_seconds" not in benchmark(photos, None, "silhouette", **KEPT).header
    monkeypatch.setitem(zoo.MODELS, "silhouette", replace(spec, kept=list))
    assert benchmark(photos, None, "silhouette", **KEPT).header["first_load_seconds"] >= 0
    assert "first_load_seconds" in benchmark(photos, None, Clockwork, **KEPT).header


def test_rows_come_back_as_they_were(photos: Path, tmp_path: Path) -> None:
    results = benchmark(photos, tmp_path / "out", Clockwork(), measure_scenes=True, **KEPT)
    again = load_results(tmp_path / "out")
    assert again.rows == results.rows
    assert again.scene_rows == results.scene_rows
    assert again.header == results.header


# Failures


def test_a_mask_that_fails_has_a_row_that_says_why_and_is_in_no_mean(
    photos: Path, tmp_path: Path
) -> None:
    model = Clockwork()
    model.failing = {1}
    results = benchmark(photos, tmp_path / "out", model, **KEPT)
    table = read(tmp_path / "out" / "elapsed_time.csv")
    assert table.loc["1_kid_box", "error"] == "found nothing usable"
    assert table.loc["1_kid_box", [*STEPS, "elapsed_time_average"]].isna().all()
    good = table.loc[["0_kid_box", "0_lamp"], "elapsed_time_average"]
    assert table.loc["mean", "elapsed_time_average"] == pytest.approx(good.mean(), abs=1e-6)
    assert "error" not in read(tmp_path / "out" / "lamp_elapsed_time.csv")
    assert results.failures() == {"1_kid_box": "found nothing usable"}
    assert results.by_stage().loc["all", "n"] == 6

    model.failing.clear()
    model.seen.clear()
    results = benchmark(photos, tmp_path / "out", model, **KEPT)
    assert model.seen == [1] * 4, "what failed is tried again, and nothing else"
    assert not results.failures()
    assert list(read(tmp_path / "out" / "elapsed_time.csv")) == [*STEPS, "elapsed_time_average"]


def test_errors_that_nobody_expected_are_rows_too(photos: Path) -> None:
    class Broken(Clockwork):
        def run(self, request: Request) -> Run:
            raise RuntimeError("CUDA error: an illegal memory access")
            yield

    results = benchmark(photos, None, Broken(), **KEPT)
    reasons = set(results.failures().values())
    assert reasons == {"RuntimeError: CUDA error: an illegal memory access"}
    table = results.table()
    assert table.loc["mean", STEPS].isna().all()
    assert results.summary().loc["objects failed", "value"] == 3
    assert len(results.by_stage()) == 0
    with pytest.raises(InputError, match="none of 3 objects was measured"):
        results.plot_stages()


def test_damaged_pictures_and_masks_are_rows(photos: Path) -> None:
    (photos / "lamp" / "image.png").write_bytes(b"no picture")
    (photos / "kid_box" / "1.png").write_bytes(b"no mask")
    failures = benchmark(photos, None, Clockwork(), **KEPT).failures()
    assert set(failures) == {"0_lamp", "1_kid_box"}
    assert "image.png" in failures["0_lamp"]
    assert "1.png" in failures["1_kid_box"]


def test_a_model_that_cannot_be_loaded_is_an_error_of_the_call(photos: Path) -> None:
    with pytest.raises(InputError, match="no model 'sillhouette'"):
        benchmark(photos, None, "sillhouette")
    with pytest.raises(InputError, match="takes no options"):
        benchmark(photos, None, "silhouette", steps=(1, 1))
    with pytest.raises(InputError, match="nothing to do"):
        benchmark(write_photo(photos / "bare", masks=0), None, "silhouette")


# Going on


def test_what_is_done_is_not_done_again(photos: Path, tmp_path: Path) -> None:
    model = Clockwork()
    benchmark(photos / "lamp", tmp_path / "out", model, **KEPT)
    model.seen.clear()
    results = benchmark(photos, tmp_path / "out", model, **KEPT)
    assert model.seen == [0] * 4 + [1] * 4
    assert [row.label for row in results.rows] == ["0_kid_box", "1_kid_box", "0_lamp"]
    model.seen.clear()
    Image.fromarray(np.full((40, 60), 255, np.uint8)).save(photos / "lamp" / "0.png")
    benchmark(photos, tmp_path / "out", model, **KEPT)
    assert model.seen == [0] * 4, "a mask that changed is another object"
    model.seen.clear()
    benchmark(photos, tmp_path / "out", model, overwrite=True, **KEPT)
    assert len(model.seen) == 12


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"active": 2}, "configuration.active 3 instead of 2"),
        ({"seed": 1}, "configuration.seed 0 instead of 1"),
        ({"use_pointmaps": False}, "configuration.use_pointmaps True instead of False"),
        ({"model": Silhouette()}, "model.name 'clockwork' instead of 'silhouette'"),
    ],
)
def test_rows_of_different_benchmarks_are_not_mixed(
    photos: Path, tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    benchmark(photos, tmp_path / "out", Clockwork(), **KEPT)
    before = (tmp_path / "out" / "rows.jsonl").read_bytes()
    with pytest.raises(OutputError, match=words):
        benchmark(photos, tmp_path / "out", **({"model": Clockwork()} | KEPT | settings))
    assert (tmp_path / "out" / "rows.jsonl").read_bytes() == before


SLOW = """
import sys, time
import test_profiling_benchmark as tests
class Slow(tests.Clockwork):
    def run(self, request):
        yield from super().run(request)
        print("running", flush=True)
        while True:
            time.sleep(0.01)
            yield tests.MeshEvent(0.5)
tests.header.code_sha256 = lambda: "c0de" * 16
tests.benchmark(sys.argv[1], sys.argv[2], Slow(), use_inference_cache=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on_where_it_was(
    photos: Path, tmp_path: Path, number: signal.Signals
) -> None:
    place = tmp_path / "out"
    journal = place / "rows.jsonl"
    benchmark(photos, place, Clockwork(), **KEPT)
    whole = journal.read_bytes()
    assert whole.count(b"\n") == 3
    journal.write_bytes(whole[:-20])  # as if killed while the last row was being written

    command = [sys.executable, "-c", SLOW, str(photos), str(place)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        with pytest.raises(OutputError, match="another process is working"):
            benchmark(photos, place, Clockwork(), **KEPT)
        process.send_signal(number)
        assert process.wait(20) != 0
    assert journal.read_bytes() == b"".join(whole.splitlines(keepends=True)[:2])
    assert list(read(place / "elapsed_time.csv").index) == ["0_kid_box", "1_kid_box", "mean"]
    assert not list(place.glob("*.tmp"))

    model = Clockwork()
    assert len(benchmark(photos, place, model, **KEPT).rows) == 3
    assert model.seen == [0] * 4, "the lamp alone"


def test_damaged_rows_are_measured_again(photos: Path, tmp_path: Path) -> None:
    model = Clockwork()
    benchmark(photos, tmp_path / "out", model, **KEPT)
    journal = tmp_path / "out" / "rows.jsonl"
    first, second, third = journal.read_bytes().splitlines(keepends=True)
    lines = [first[:50] + b"\n", second, b'{"kind": "object", "mask": 3}\n', third]
    journal.write_bytes(b"".join([*lines, b'{"kind": "other"}\n']))
    model.seen.clear()
    with pytest.warns(UserWarning, match="damaged"):
        results = benchmark(photos, tmp_path / "out", model, **KEPT)
    assert model.seen == [0] * 4
    assert len(results.rows) == 3


@pytest.mark.parametrize(
    "content", ["", "[]", '{"identity": {"configuration": {"active": 3}}}', "\x00"]
)
def test_a_damaged_header_is_told(photos: Path, tmp_path: Path, content: str) -> None:
    benchmark(photos, tmp_path / "out", Clockwork(), **KEPT)
    (tmp_path / "out" / "header.json").write_text(content)
    with pytest.raises(InputError, match=r"header\.json cannot be read"):
        load_results(tmp_path / "out")
    with pytest.raises(InputError, match=r"header\.json cannot be read"):
        benchmark(photos, tmp_path / "out", Clockwork(), **KEPT)
    benchmark(photos, tmp_path / "out", Clockwork(), overwrite=True, **KEPT)
    assert len(load_results(tmp_path / "out").rows) == 3


def test_a_place_that_cannot_be_written_is_told_before_the_work(
    photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("in the way")
    model = Clockwork()
    with pytest.raises(OutputError, match="choose another folder"):
        benchmark(photos, tmp_path / "out", model, **KEPT)
    assert model.seen == []


# Scenes and profiles


def test_measured_scenes_stand_beside_their_estimate(photos: Path, tmp_path: Path) -> None:
    model = Clockwork(*[0.04] * 30)
    results = benchmark(
        photos, tmp_path / "out", model, warmup=0, active=1, measure_scenes=True, **KEPT
    )
    scenes = results.scenes()
    assert list(scenes.index) == ["kid_box", "lamp"]
    assert list(scenes["objects"]) == [2, 1]
    mean = results.table().loc["mean", "elapsed_time_average"]
    for row in scenes.itertuples():
        assert row.estimate == pytest.approx(row.objects * mean)
        assert row.error == pytest.approx(row.estimate / row.measured - 1)
        assert row.measured >= 0.04 * row.objects
    summary = results.summary(scene_of=7)
    assert summary.loc["scene of 7 objects, estimate", "value"] == pytest.approx(7 * mean)
    error = summary.loc["error of the estimate, 2 measured scenes", "value"]
    assert error == pytest.approx(scenes["error"].abs().mean())
    made = len(model.seen)
    benchmark(photos, tmp_path / "out", model, warmup=0, active=1, measure_scenes=True, **KEPT)
    assert len(model.seen) == made


def test_a_scene_of_other_objects_is_measured_anew(photos: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = KEPT | {"warmup": 0, "active": 1, "measure_scenes": True}
    benchmark(photos, tmp_path / "out", Clockwork(), masks_per_photo=1, **settings)
    more = benchmark(photos, tmp_path / "out", Clockwork(), **settings)
    assert list(more.scenes()["objects"]) == [2, 1]
    model = Clockwork()
    Image.fromarray(np.ones((40, 60, 3), np.uint8)).save(photos / "kid_box" / "image.png")
    benchmark(photos, tmp_path / "out", model, **settings)
    assert model.seen == [0, 1, 0, 1], "two objects, and their scene"
    fresh = settings | {"measure_scenes": False, "overwrite": True}
    benchmark(photos, tmp_path / "out", model, **fresh)
    assert not (tmp_path / "out" / "scenes.csv").exists(), "no table of forgotten rows stays"


def test_a_changed_mask_is_measured_anew_however_its_file_is_called(
    photos: Path, tmp_path: Path
) -> None:
    place = (photos / "lamp" / "0.png").rename(photos / "lamp" / "00.PNG")
    benchmark(photos / "lamp", tmp_path / "out", Clockwork(), **KEPT)
    Image.fromarray(np.full((40, 60), 255, np.uint8)).save(place)
    model = Clockwork()
    benchmark(photos / "lamp", tmp_path / "out", model, **KEPT)
    assert model.seen == [0] * 4


def test_a_scene_with_a_failure_is_no_measurement(photos: Path) -> None:
    model = Clockwork()
    model.failing = {1}
    results = benchmark(photos, None, model, measure_scenes=True, **KEPT)
    assert results.scenes().loc["kid_box", "failed"] == "1 of 2 objects failed"
    assert np.isnan(results.scenes().loc["kid_box", "measured"])


def test_profiles_are_written_of_a_run_that_does_not_count(photos: Path, tmp_path: Path) -> None:
    model = Clockwork()
    place = tmp_path / "out"
    settings: dict[str, Any] = KEPT | {"save_profile_summary": True, "active": 1}
    benchmark(photos, place, model, **settings)
    assert len(model.seen) == 3 * (1 + 1 + 1)
    names = sorted(path.name for path in (place / "profiles").iterdir())
    labels = ("0_kid_box", "0_lamp", "1_kid_box")
    assert names == [f"{n}_{kind}" for n in labels for kind in ("profile.txt", "trace.json.gz")]
    assert "mesh" in (place / "profiles" / "0_lamp_profile.txt").read_text()
    trace = json.loads(gzip.decompress((place / "profiles" / "0_lamp_trace.json.gz").read_bytes()))
    assert any(event.get("name") == "mesh" for event in trace["traceEvents"])
    benchmark(photos, place, model, **settings)
    assert len(model.seen) == 9
    with pytest.raises(OutputError, match="needs an output_dir"):
        benchmark(photos, None, model, **settings)


def test_a_profile_that_fails_is_told_and_the_others_go_on(photos: Path, tmp_path: Path) -> None:
    class Tired(Clockwork):
        def run(self, request: Request) -> Run:
            if len(self.seen) == 1:  # the run that is profiled
                self.failing = {0}
            found = yield from super().run(request)
            return found

    settings: dict[str, Any] = KEPT | {"save_profile_summary": True, "warmup": 0, "active": 1}
    with pytest.warns(UserWarning, match="0_lamp could not be profiled: found nothing usable"):
        results = benchmark(photos / "lamp", tmp_path / "out", Tired(), **settings)
    assert results.failures() == {}
    assert (tmp_path / "out" / "summary.csv").is_file()


@pytest.mark.parametrize("disk", ["full", "gone"])
def test_a_trace_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: str
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def gone(*arguments: Any, **settings: Any) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "profiles")

    if disk == "full":
        monkeypatch.setattr("sam3d_nb.profiling.trace.shutil.copyfileobj", full)
    else:
        monkeypatch.setattr("sam3d_nb.profiling.trace.tempfile.TemporaryDirectory", gone)
    with pytest.raises(OutputError, match=r"cannot write lamp_trace\.json\.gz into .*: No s"):
        profile_run(lambda on_event: None, tmp_path, "lamp")
    assert [path.name for path in tmp_path.iterdir()] == ["lamp_profile.txt"]


def test_a_trace_needs_no_room_in_the_systems_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    profile_run(lambda on_event: None, tmp_path, "lamp")
    assert json.loads(gzip.decompress((tmp_path / "lamp_trace.json.gz").read_bytes()))


# The command and the surface


def test_the_published_command(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "profile",
        f"--images_dir={photos / 'lamp'}",
        f"--output_dir={tmp_path / 'out'}",
        "--use_inference_cache=false",
        "--save_profile_summary=false",
        "--wait=0",
        "--warmup=1",
        "--active=3",
    ]
    assert cli.main([*arguments, "--model=silhouette"]) == 0
    told = capsys.readouterr()
    assert "load model" in told.out
    assert "cold, model loaded for every run" in told.out
    assert "failed" not in told.err
    assert len(read(tmp_path / "out" / "elapsed_time.csv")) == 2
    assert (tmp_path / "out" / "summary.csv").is_file()
    assert (tmp_path / "out" / "by_stage.csv").is_file()


def test_the_command_tells_failures(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "kid_box" / "1.png").write_bytes(b"no mask")
    arguments = ["profile", f"--images-dir={photos}", f"--output-dir={tmp_path / 'out'}"]
    arguments += ["--use-inference-cache", "--model=silhouette", "--active=1", "--measure-scenes"]
    assert cli.main(arguments) == ReconstructionError.exit_code
    error = capsys.readouterr().err
    assert "1_kid_box failed: " in error
    assert "scene kid_box failed: 1 of 2 objects failed" in error


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--active=0"], 3),
        (["--images_dir=nowhere"], 3),
        (["--active=x"], 2),
        (["--use_inference_cache=maybe"], 2),
        (["--device=gpu"], 3),
    ],
)
def test_bad_commands_have_codes(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
) -> None:
    command = ["profile", f"--images_dir={photos}", f"--output_dir={tmp_path}", *arguments]
    try:
        found = cli.main(command)
    except SystemExit as stop:
        found = int(str(stop.code))
    assert found == code
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_says_what_is_kept_when_it_is_interrupted(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    made: list[int] = []

    def run(self: Silhouette, request: Request) -> Run:
        made.append(1)
        if len(made) > 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return Clockwork().run(request)

    monkeypatch.setattr(Silhouette, "run", run)
    arguments = ["profile", f"--images_dir={photos}", f"--output_dir={tmp_path / 'out'}"]
    arguments += ["--model=silhouette", "--warmup=0", "--active=1"]
    assert cli.main(arguments) == 130
    assert "1 of 3 objects are measured, the same command goes on there" in capsys.readouterr().err


def test_the_notebook_surface(photos: Path) -> None:
    results = s3.benchmark(photos, model=Silhouette(), active=1, **KEPT)
    assert repr(results).endswith("model kept: 3 objects>")
    assert "0_kid_box" in results._repr_html_()
    events: list[tuple[int, int, str]] = []
    s3.benchmark(photos, model=Clockwork(), **KEPT, on_progress=lambda *told: events.append(told))
    assert events == [(0, 3, "0_kid_box"), (1, 3, "1_kid_box"), (2, 3, "0_lamp"), (3, 3, "done")]
