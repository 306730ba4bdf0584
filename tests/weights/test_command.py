"""`sam3d-nb weights` and `setup_b.sh`: what they print, and the exit codes that scripts rely on."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from fake_hub import GOOD_TOKEN, FakeHub
from layout import settings
from test_download import REPO

from sam3d_nb.cli import main
from sam3d_nb.tiny import shipped
from sam3d_nb.weights.folder import SAM3D
from sam3d_nb.weights.hub import Hub
from sam3d_nb.weights.status import model_status

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture
def online(model_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """Let the command reach the hub on loopback, with a good token."""
    original = Hub.__init__
    monkeypatch.setattr(Hub, "__init__", lambda self: original(self, endpoint=model_hub.endpoint))
    monkeypatch.setenv("HUGGINGFACE_TOKEN", GOOD_TOKEN)
    return model_hub


def run(*arguments: object) -> int:
    return main(["weights", *map(str, arguments)])


def test_from_nothing_to_nothing(online, root, capsys):
    assert run("status", "--model", SAM3D, "--folder", root) == 5
    assert "sam-3d-objects: not ready, no weights" in capsys.readouterr().out
    assert run("download", "--folder", root) == 0
    out = capsys.readouterr().out
    assert "are free in" in out
    assert f"{SAM3D} is ready" in out
    assert run("status", "--model", SAM3D, "--folder", root) == 0
    assert f"{SAM3D}: ready, official weights, {REPO}@0123456789ab" in capsys.readouterr().out
    assert run("verify", "--folder", root) == 0
    assert "all files as recorded" in capsys.readouterr().out
    assert run("remove", "--model", SAM3D, "--folder", root) == 0
    assert "MB freed" in capsys.readouterr().out
    assert run("status", "--model", SAM3D, "--folder", root) == 5
    assert run("verify", "--folder", root) == 5
    assert "sam3d-nb weights download" in capsys.readouterr().err


def test_status_without_an_account(root, capsys):
    assert run("status", "--folder", root) == 0
    tiny, official, advice = capsys.readouterr().out.splitlines()[:3]
    assert tiny == "tiny: ready, comes with the package, nothing to download"
    assert official == f"{SAM3D}: not ready, no weights"
    assert advice.startswith("  -> accept the terms at")
    assert run("status", "--online", "--model", "tiny") == 0
    assert capsys.readouterr().out == f"{tiny}\n"


def test_status_of_a_package_without_its_weights(root, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    assert run("status", "--folder", root) == 0
    assert capsys.readouterr().out.startswith("tiny: not ready, damaged: cannot read ")
    assert run("status", "--model", "tiny") == 5
    assert f"-> {shipped.ADVICE}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("gate", "text"),
    [
        ("not accepted", f"accept the terms at https://huggingface.co/{REPO}"),
        ("pending", "wait for the publisher's answer"),
        ("rejected", "request refused"),
    ],
)
def test_gates(online, root, capsys, gate, text):
    online.repositories[REPO].gate = gate
    assert run("download", "--folder", root) == 5
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1, "one line"
    assert GOOD_TOKEN not in error
    assert run("status", "--online", "--folder", root) == 0
    out = capsys.readouterr().out
    assert text in out
    assert "Ruicheng/moge-vitl: access granted" in out


def test_token_missing_or_wrong(online, root, capsys, monkeypatch):
    monkeypatch.setenv("HUGGINGFACE_TOKEN", "hf_wrong")
    assert run("download", "--folder", root) == 5
    assert "token invalid" in capsys.readouterr().err
    monkeypatch.delenv("HUGGINGFACE_TOKEN")
    assert run("download", "--folder", root) == 5
    assert "no token (HTTP 401); make a token" in capsys.readouterr().err


def test_verbose_shows_no_token(online, root, capsys):
    online.repositories[REPO].gate = "pending"
    assert main(["--verbose", "weights", "download", "--folder", str(root)]) == 5
    assert GOOD_TOKEN not in capsys.readouterr().err


def test_convert_files_of_one_s_own(published, root, capsys, tmp_path):
    moge = shutil.copy(published / "model.pt", tmp_path / "point_maps.pt")
    source = shutil.copytree(published, tmp_path / "files")
    (source / "model.pt").unlink()
    assert run("convert", "--source", source, "--folder", root) == 5
    assert "--moge" in capsys.readouterr().err
    arguments = ("--source", source, "--moge", moge, "--dtype", "bfloat16", "--folder", root)
    assert run("convert", *arguments) == 0
    assert model_status(SAM3D, root).found.startswith("local weights, ss_generator ")
    assert (source / "checkpoints" / "ss_generator.ckpt").is_file(), "the source is not ours"
    assert run("convert", "--folder", tmp_path / "empty") == 5
    assert run("convert", "--moge", moge, "--folder", root) == 3


def test_unknown_settings_can_be_accepted(published, root, tmp_path, capsys):
    import yaml

    source = shutil.copytree(published, tmp_path / "files")
    data = settings()["ss_decoder"] | {"rope": True}
    (source / "checkpoints" / "ss_decoder.yaml").write_text(yaml.safe_dump(data))
    assert run("convert", "--source", source, "--folder", root) == 5
    assert "--accept ss_decoder.rope" in capsys.readouterr().err
    options = ("--accept", "ss_decoder.rope", "--source", source, "--folder", root)
    assert run("convert", *options) == 0


@pytest.mark.parametrize(
    "arguments",
    [[], ["remove"], ["remove", "--all", "--model", SAM3D], ["verify", "--model", "x"], ["fetch"]],
)
def test_wrong_command_lines(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


# --- setup_b.sh ---------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "a checkout"
    folder.mkdir()
    shutil.copy(REPOSITORY / "setup_b.sh", folder)
    return folder


def bash(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(folder / "setup_b.sh"), *arguments],
        capture_output=True,
        text=True,
        cwd=folder.parent,
        timeout=60,
    )


def test_setup_b_before_setup_a(checkout):
    result = bash(checkout)
    assert result.returncode == 1
    assert result.stderr.strip().endswith("run first: bash setup_a.sh")


def test_setup_b_passes_its_options_on(checkout):
    command = checkout / ".venv" / "bin" / "sam3d-nb"
    command.parent.mkdir(parents=True)
    command.write_text('#!/bin/sh\nprintf "%s|" "$@"\nexit 5\n')
    command.chmod(0o755)
    result = bash(checkout, "--sam3", "--folder", "my weights")
    assert result.stdout == "weights|download|--sam3|--folder|my weights|"
    assert result.returncode == 5


def test_setup_b_help(checkout):
    result = bash(checkout, "--help")
    assert result.returncode == 0
    assert "HUGGINGFACE_TOKEN" in result.stdout
    assert "--segmenter sam2" in result.stdout
    assert os.access(REPOSITORY / "setup_b.sh", os.X_OK)
