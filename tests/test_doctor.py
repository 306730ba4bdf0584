"""The table of what is installed and ready: complete, and there even when something is broken."""

from pathlib import Path

import pytest

from sam3d_nb import diagnosis
from sam3d_nb.devices import choose_device, list_devices
from sam3d_nb.errors import InputError
from sam3d_nb.masks.segmenter import SEGMENTERS
from sam3d_nb.zoo import MODELS


def test_every_topic_has_a_row() -> None:
    result = diagnosis.doctor()
    topics = [finding.topic for finding in result.findings]
    for topic in ("Python", "torch", "disk", "packages", "JupyterLab", "3D view", "examples"):
        assert topic in topics
    assert "device cpu" in topics
    assert [t for t in topics if t.startswith("model ")][: len(MODELS)] == [
        f"model {name}" for name in MODELS
    ]
    assert [t for t in topics if t.startswith("segmenter ")] == [
        f"segmenter {name}" for name in SEGMENTERS
    ]
    assert not any("could not be checked" in finding.found for finding in result.findings)
    assert list(result.table().columns) == ["topic", "found", "advice"]
    assert len(str(result).splitlines()) >= len(result.findings)


def test_segmenters_are_ready_or_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SAM3D_NB_WEIGHTS", str(tmp_path))
    rows = {finding.topic: finding for finding in diagnosis._segmenters()}
    assert rows["segmenter embedded"].found.startswith("ready: ")
    assert not rows["segmenter embedded"].advice
    for name in ("sam2", "sam3"):
        row = rows[f"segmenter {name}"]
        assert row.found.startswith("not ready: SAM")
        assert row.advice.endswith(f"run: sam3d-nb weights download --segmenter {name}")


def test_html_escapes_and_keeps_long_text() -> None:
    finding = diagnosis.Finding("disk", "<b>" + "x" * 200)
    html = diagnosis.Diagnosis((finding,))._repr_html_()
    assert "&lt;b&gt;" + "x" * 200 in html


def test_a_broken_part_is_a_row_and_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError("no driver")

    monkeypatch.setattr("sam3d_nb.devices.list_devices", broken)
    findings = {f.topic: f for f in diagnosis.doctor().findings}
    assert findings["device"].found == "could not be checked: OSError: no driver"
    assert findings["device"].advice
    assert "model silhouette" in findings


def test_other_versions_than_locked_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"numpy": "1.0", "torch": None}
    installed = diagnosis._installed
    monkeypatch.setattr(diagnosis, "_installed", lambda n: versions.get(n, installed(n)))
    (row,) = diagnosis._packages()
    locked = diagnosis._locked()
    assert f"numpy 1.0 instead of {locked['numpy']}" in row.found
    assert f"torch missing instead of {locked['torch']}" in row.found
    assert "pip install" in row.advice


def test_cpu_build_is_the_locked_version(monkeypatch: pytest.MonkeyPatch) -> None:
    locked = diagnosis._locked()
    monkeypatch.setattr(diagnosis, "_installed", lambda n: locked[diagnosis._plain(n)] + "+cpu")
    (row,) = diagnosis._packages()
    assert row.found.endswith("all as locked")


def test_driver_without_cuda_gets_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (row,) = diagnosis._torch()
    assert "NVIDIA" in row.advice


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list_devices()[-1].name == "cpu"
    assert choose_device("cpu") == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    assert choose_device() == "cpu"
    with pytest.raises(InputError, match="no device 'cuda' that torch can use; it has cpu"):
        choose_device("cuda")
    with pytest.raises(InputError, match="no device 'tpu'; choose from auto, cuda, mps, cpu"):
        choose_device("tpu")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert choose_device() == "cuda"
