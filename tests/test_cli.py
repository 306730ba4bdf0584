"""The command line: flags as published, results in new folders, one line and a code for errors."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gltf import assert_valid_glb
from PIL import Image

import sam3d_nb as s3
from sam3d_nb import cli, runs
from sam3d_nb.errors import OutputError, ReconstructionError, Sam3dError, WeightsError
from sam3d_nb.mesh.export import load_object
from sam3d_nb.mesh.topology import topology
from sam3d_nb.pipeline import Run
from sam3d_nb.request import Request
from sam3d_nb.silhouette import Silhouette
from sam3d_nb.splats import Gaussians


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A small photo with the mask 14 beside it, as in the published call."""
    folder = tmp_path / "desk lamp"
    folder.mkdir()
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    mask = np.zeros((64, 96), np.uint8)
    mask[10:50, 20:70] = 255
    Image.fromarray(image).save(folder / "image.png")
    Image.fromarray(mask).save(folder / "14.png")
    return folder / "image.png"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "results"


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fails(
    capsys: pytest.CaptureFixture[str], code: int, sentence: str, arguments: list[str]
) -> None:
    """Check the exit code, and that standard error is one line with `sentence`."""
    try:
        found = cli.main(arguments)
    except SystemExit as stop:
        found = stop.code
    error = capsys.readouterr().err
    assert found == code, error
    assert error.count("\n") == 1, error
    assert sentence in error
    assert "Traceback" not in error


def test_published_flags(photo: Path, output: Path) -> None:
    """As in the official command, on the example's photo."""
    arguments = [
        "inference",
        f"--image_path={photo}",
        "--mask_index=14",
        f"--output_dir={output}",
        "--export_images=false",
        "--output_format=glb",
    ]
    assert cli.main(arguments) == 0
    (folder,) = output.iterdir()
    assert folder.name.endswith("_desk_lamp_14")
    assert files(folder) == ["desk_lamp_14.glb", "desk_lamp_14_gaussians.ply"]
    assert_valid_glb(folder / "desk_lamp_14.glb")
    result = load_object(folder / "desk_lamp_14.glb")
    assert result.provenance.mask_index == 14
    assert result.provenance.model == s3.load_model().name


def test_dashes_values_apart_and_more_formats(photo: Path, output: Path) -> None:
    arguments = ["inference", "--image-path", str(photo.parent), "--mask-index", "14"]
    arguments += ["--output-dir", str(output), "--export-images", "--output-format", "glb,PLY,.stl"]
    arguments += ["--seed", "3", "--model", "silhouette", "--device", "cpu"]
    assert cli.main(arguments) == 0
    (folder,) = output.iterdir()
    assert files(folder) == [
        "desk_lamp_14.glb",
        "desk_lamp_14.ply",
        "desk_lamp_14.stl",
        "photo.png",
        "preview.png",
    ]
    assert load_object(folder / "desk_lamp_14.glb").provenance.seed == 3


def test_gaussians_are_written_beside_the_mesh(
    photo: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inflate = Silhouette.run

    def run(self: Silhouette, request: Request) -> Run:
        made = yield from inflate(self, request)
        points = made.mesh.vertices
        one = np.ones(len(points))
        turns = np.tile([1.0, 0, 0, 0], (len(points), 1))
        splats = Gaussians(points, np.full_like(points, 0.01), turns, one, points * 0)
        return replace(made, gaussians=splats)

    monkeypatch.setattr(Silhouette, "run", run)
    arguments = ["inference", f"--image_path={photo}", "--mask_index=14", f"--output_dir={output}"]
    assert cli.main([*arguments, "--model=silhouette"]) == 0
    (folder,) = output.iterdir()
    assert files(folder) == ["desk_lamp_14.glb", "desk_lamp_14_gaussians.ply"]
    assert (folder / "desk_lamp_14_gaussians.ply").read_bytes().startswith(b"ply")


def test_a_light_closed_and_textured_mesh_on_request(photo: Path, output: Path) -> None:
    arguments = ["inference", f"--image_path={photo}", "--mask_index=14", "--overwrite"]
    arguments += [f"--output_dir={output}", "--model=silhouette", "--output_format=glb,obj,.GLB"]
    assert cli.main([*arguments, "--triangles=300", "--watertight", "--texture=64"]) == 0
    (folder,) = output.iterdir()
    path = folder / "desk_lamp_14.glb"
    assert_valid_glb(path)
    mesh = load_object(path).mesh
    assert mesh.texture is not None
    assert mesh.texture.shape == (64, 64, 3)
    assert len(mesh.faces) <= 300
    assert topology(mesh).watertight
    assert (folder / "desk_lamp_14.mtl").is_file()


@pytest.mark.parametrize("mask", [14, -1, -2])
@pytest.mark.parametrize(
    ("option", "sentence"),
    [("--triangles=2", "from 4 up, not to 2"), ("--texture=4", "4 were asked for")],
)
def test_a_mesh_that_cannot_be_is_told_before_any_work(
    photo: Path,
    output: Path,
    capsys: pytest.CaptureFixture[str],
    mask: int,
    option: str,
    sentence: str,
) -> None:
    arguments = ["inference", f"--image_path={photo}", f"--mask_index={mask}", option]
    fails(capsys, 3, sentence, [*arguments, f"--output_dir={output}"])
    assert not output.exists()


@pytest.mark.parametrize("mask", [14, -1])
def test_a_log_tells_what_is_written(
    photo: Path,
    output: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    mask: int,
) -> None:
    monkeypatch.setattr("sam3d_nb.progress.PATIENCE", 0)
    arguments = ["inference", f"--image_path={photo}", f"--output_dir={output}"]
    arguments += [f"--mask_index={mask}", "--model=silhouette", "--export_images=true"]
    cli.main(arguments)
    told = [
        line.split(" s  ")[1] for line in capsys.readouterr().err.splitlines() if " s  " in line
    ]
    assert told[-2:] == ["writing files", "writing pictures"]
    assert not told[-3].startswith("writing")


def test_each_run_has_its_own_folder(
    photo: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["inference", f"--image_path={photo}", "--mask_index=14", f"--output_dir={output}"]
    arguments.append("--model=silhouette")
    for _ in range(3):  # within one second or two
        assert cli.main(arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    paths = [Path(line.split(maxsplit=1)[1]) for line in printed]
    assert len({path.parent for path in paths}) == 3
    assert all(path.is_file() for path in paths)


def test_overwrite_replaces_in_one_folder(photo: Path, output: Path) -> None:
    arguments = ["inference", f"--image_path={photo}", "--mask_index=14", f"--output_dir={output}"]
    arguments.append("--model=silhouette")
    for seed in ("1", "2"):
        assert cli.main([*arguments, "--overwrite=true", "--seed", seed]) == 0
    assert files(output) == ["desk_lamp_14"]
    result = load_object(output / "desk_lamp_14" / "desk_lamp_14.glb")
    assert result.provenance.seed == 2


def test_colliding_names_never_share_a_folder(output: Path) -> None:
    output.mkdir()
    folders = {runs._new_folder(output, "20300101-000000_cup_0") for _ in range(5)}
    assert len(folders) == 5
    assert {"20300101-000000_cup_0", "20300101-000000_cup_0-2"} <= {f.name for f in folders}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ("--mask_index=3", "no mask 3"),
        ("--mask_index=-3", "mask index -3"),
        ("--image_path=nowhere.png", "there is no file or folder nowhere.png"),
        ("--image_path=nowhere", "there is no example nowhere"),
        ("--model=imaginary", "no model 'imaginary'; choose from"),
        ("--output_format=fbx", "no format 'fbx'; choose from glb, obj, ply, stl"),
        ("--output_format=", "no format ''"),
        ("--device=tpu", "no device 'tpu'; choose from"),
        ("--seed=-1", "seed"),
    ],
)
def test_bad_input_ends_with_3_and_leaves_nothing(
    photo: Path, output: Path, capsys: pytest.CaptureFixture[str], changed: str, sentence: str
) -> None:
    arguments = ["inference", f"--image_path={photo}", "--mask_index=14", f"--output_dir={output}"]
    fails(capsys, 3, sentence, [*arguments, changed])
    assert not output.exists() or not files(output)


def test_bad_picture_ends_with_3(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo.write_text("no picture")
    fails(capsys, 3, "not a picture", ["inference", f"--image_path={photo}", "--mask_index=14"])


def test_unwritable_output_ends_with_4_before_any_work(
    photo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sam3d_nb.pipeline.Model.reconstruct", None)  # would be a TypeError
    place = photo / "below a file"
    arguments = ["inference", f"--image_path={photo}", "--mask_index=14", f"--output_dir={place}"]
    fails(capsys, 4, "choose another folder", arguments)


def test_read_only_folder_is_an_output_error(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who runs the tests may be allowed to write everywhere, so the system's refusal is played."""

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(runs.tempfile, "TemporaryFile", refuse)
    with pytest.raises(OutputError, match="Permission denied; choose another folder"):
        runs.result_folder(output, "cup_0")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["inference"],
        ["inference", "--image_path=x", "--mask_index=two"],
        ["inference", "--image_path=x", "--export_images=perhaps"],
        ["inference", "--image_path=x", "--no_such_flag=1"],
        ["inference", "--image=x"],
        ["doctor", "extra"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, 2, "--help", arguments)


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 6, "memory ran out"),
        (WeightsError("no weights"), 5, "no weights"),
        (ReconstructionError("nothing\nfound"), 7, "nothing found"),
        (ZeroDivisionError("oops"), 1, "unexpected ZeroDivisionError: oops"),
    ],
)
def test_what_a_model_raises_becomes_a_code(
    photo: Path,
    output: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    sentence: str,
) -> None:
    def run(*_: object) -> None:
        raise error

    monkeypatch.setattr("sam3d_nb.silhouette.Silhouette.run", run)
    arguments = ["inference", f"--image_path={photo}", "--mask_index=14", f"--output_dir={output}"]
    arguments.append("--model=silhouette")
    fails(capsys, code, sentence, arguments)
    assert not files(output), "an empty folder was left behind"
    assert cli.main([*arguments, "--verbose"]) == code
    assert "Traceback" in capsys.readouterr().err
    assert cli.main(["--verbose", *arguments]) == code
    assert "Traceback" in capsys.readouterr().err


def test_help_states_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    stated = {int(line.split()[0]) for line in text.split("exit codes:")[1].splitlines()[1:]}
    raised = {cls.exit_code for cls in [Sam3dError, *Sam3dError.__subclasses__()]}
    assert stated == raised | {0, 2, 130}


@pytest.mark.parametrize(
    ("given", "turns"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_waiting_threads_leave_the_cores_to_others_unless_somebody_decides(given, turns) -> None:
    known = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    script = "import sam3d_nb, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=known | given, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == turns


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    program = (
        "import sys, sam3d_nb.cli\n"
        "try: sam3d_nb.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pandas', 'jupyterlab', 'PIL', 'trimesh'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.5


def test_doctor_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    assert "model silhouette" in capsys.readouterr().out


def test_evaluate_prints_tables_and_writes_the_report(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    arguments = ["evaluate", f"--examples={photo.parent}", "--model=silhouette"]
    arguments.append(f"--output={report}")
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "| silhouette IoU |" in printed
    assert "no ground truth" in printed
    assert str(report) in printed
    content = json.loads(report.read_text())
    assert content["n"] == 1
    assert content["model"] == "silhouette"
    fails(capsys, 4, "report.json exists", arguments)
    assert cli.main([*arguments, "--overwrite"]) == 0


def test_evaluate_tells_scripts_about_objects_that_failed(
    photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (96, 64)).save(photo.parent / "15.png")
    arguments = ["evaluate", f"--examples={photo.parent}", "--model=silhouette"]
    assert cli.main(arguments) == 7
    assert "mask 15 is empty" in capsys.readouterr().out


def test_evaluate_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, 3, "nowhere", ["evaluate", f"--examples={tmp_path / 'nowhere'}"])
    fails(capsys, 3, "holds no photo", ["evaluate", f"--examples={tmp_path}"])


@pytest.mark.parametrize(
    ("more", "facts"),
    [([], ("tiny", "learned")), (["--model=silhouette"], ("silhouette", "mirrored"))],
    ids=["best model", "baseline"],
)
def test_demo_writes_object_preview_and_report(
    output: Path, capsys: pytest.CaptureFixture[str], more: list[str], facts: tuple[str, ...]
) -> None:
    """Without a name, the best model that is ready: the one that comes with the package."""
    assert cli.main(["demo", f"--output_dir={output}", *more]) == 0
    (folder,) = output.iterdir()
    captured = capsys.readouterr()
    printed = captured.out
    assert not set(captured.err) & set("\r\x1b"), "control characters in what is no terminal"
    for name in ("leather_armchair_0.glb", "preview.png", "report.html"):
        assert str(folder / name) in printed
        assert (folder / name).stat().st_size > 1000
    assert_valid_glb(folder / "leather_armchair_0.glb")
    page = (folder / "report.html").read_text()
    for fact in ("preview.png", "leather armchair", "CC0-1.0", "all stages", *facts):
        assert fact in page
    last = printed.splitlines()[-1]
    closing = re.match(rf"{facts[0]} made the leather armchair in (\S+) s, (\S+) s with", last)
    assert closing is not None, last
    assert last.endswith(f" in {folder}")
    assert 0 < float(closing[1]) <= float(closing[2])


def test_flat_surface_is_complete() -> None:
    """Every name that `dir` shows is there, and editors see the same names."""
    source = Path(s3.__file__).read_text()
    for name in s3._MODULES:
        assert name in dir(s3)
        assert getattr(s3, name) is not None
        assert f" as {name}\n" in source
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        s3.nothing  # noqa: B018


def test_lab_opens_the_notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr("jupyterlab.labapp.main", called.append)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["lab", "--no-browser"]) == 0
    folder = tmp_path / "notebooks"
    assert called == [[f"--ServerApp.root_dir={folder}", "--no-browser"]]
    assert "01_setup.ipynb" in files(folder)
    (folder / "01_setup.ipynb").write_text("mine")
    assert cli.main(["lab"]) == 0
    assert (folder / "01_setup.ipynb").read_text() == "mine"
