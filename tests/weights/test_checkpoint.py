"""Published checkpoints are read whole, and hostile ones are refused before anything happens."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import sys
import types
import zipfile
from pathlib import Path

import pytest
import torch
from layout import MOGE_SETTINGS
from safetensors.torch import save_file

from sam3d_nb.errors import WeightsError
from sam3d_nb.weights.checkpoint import Checkpoint, check_tensors

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.float16)}


def test_pickled_with_container(tmp_path):
    torch.save({"state_dict": STATE, "epoch": 7, "note": "text"}, tmp_path / "x.ckpt")
    tensors = Checkpoint(tmp_path / "x.ckpt").tensors("state_dict")
    assert tensors.keys() == STATE.keys()
    assert all(torch.equal(tensors[name], STATE[name]) for name in STATE)


def test_bare_state_dict_and_parameters(tmp_path):
    module = torch.nn.Linear(3, 2)
    torch.save(module.state_dict(), tmp_path / "x.ckpt")
    assert Checkpoint(tmp_path / "x.ckpt").tensors(None).keys() == {"weight", "bias"}
    torch.save({"p": torch.nn.Parameter(torch.ones(2))}, tmp_path / "p.ckpt")
    assert torch.equal(Checkpoint(tmp_path / "p.ckpt").tensors(None)["p"], torch.ones(2))


def test_safetensors(tmp_path):
    save_file(STATE, tmp_path / "x.safetensors", {"model_config": json.dumps({"a": 1})})
    checkpoint = Checkpoint(tmp_path / "x.safetensors")
    assert torch.equal(checkpoint.tensors("state_dict")["b"], STATE["b"])
    assert checkpoint.config("model_config") == {"a": 1}


def test_settings(tmp_path):
    torch.save({"model": STATE, "model_config": MOGE_SETTINGS}, tmp_path / "model.pt")
    assert Checkpoint(tmp_path / "model.pt").config("model_config") == MOGE_SETTINGS
    with pytest.raises(WeightsError, match="no settings under 'other'"):
        Checkpoint(tmp_path / "model.pt").config("other")
    with pytest.raises(WeightsError, match=r"no state dict under 'state_dict'.*\['model', "):
        Checkpoint(tmp_path / "model.pt").tensors("state_dict")


def test_tensors_are_not_read_before_use(tmp_path):
    import psutil

    torch.save({"big": torch.ones(64, 2**20 // 4)}, tmp_path / "big.ckpt")  # 64 MB
    before = psutil.Process().memory_info().rss
    tensors = Checkpoint(tmp_path / "big.ckpt").tensors(None)
    assert psutil.Process().memory_info().rss - before < 16e6
    assert tensors["big"][-1, -1] == 1


def test_leftovers_of_training_are_placeholders(tmp_path, monkeypatch):
    """Settings objects of a training framework are neither imported nor called."""
    package, module = types.ModuleType("omegaconf"), types.ModuleType("omegaconf.dictconfig")
    called = []

    class DictConfig:
        def __reduce__(self):
            return (DictConfig, (), {"content": 1})

        def __init__(self):
            called.append(self)

    DictConfig.__module__, DictConfig.__qualname__ = module.__name__, "DictConfig"
    module.DictConfig = DictConfig
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "omegaconf", package)
        patch.setitem(sys.modules, "omegaconf.dictconfig", module)
        torch.save({"state_dict": STATE, "hyper": DictConfig()}, tmp_path / "x.ckpt")
        called.clear()
        tensors = Checkpoint(tmp_path / "x.ckpt").tensors("state_dict")
    assert tensors.keys() == STATE.keys()
    assert called == []


# --- Hostile files ------------------------------------------------------------------------------


class Evil:
    """Runs a command when it is unpickled by a reader that trusts it."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch {mark}",)),
        (eval, ("open({mark!r}, 'w')",)),
        (exec, ("open({mark!r}, 'w')",)),
        (getattr, ("x", "upper")),
        (shutil.rmtree, ("{mark}",)),
        (torch.load, ("{mark}",)),
        (Path.write_text, (Path("x"), "{mark}")),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_malicious_pickle(tmp_path, function, arguments, protocol):
    mark = tmp_path / "mark"
    filled = [a.format(mark=str(mark)) if isinstance(a, str) else a for a in arguments]
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": STATE, "x": Evil(function, *filled)}, path, pickle_protocol=protocol)
    with pytest.raises(WeightsError, match=r"evil\.ckpt is (refused|damaged)"):
        Checkpoint(path)
    assert not mark.exists()


def test_the_refusal_names_what_is_asked_for_and_what_to_do(tmp_path):
    torch.save({"x": Evil(os.system, "true")}, tmp_path / "evil.ckpt")
    with pytest.raises(WeightsError, match=r"asks for posix.system.*Delete it.*download it again"):
        Checkpoint(tmp_path / "evil.ckpt")


def test_an_environment_variable_cannot_switch_the_reader(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"x": Evil(os.system, f"touch {tmp_path}/mark")}, tmp_path / "evil.ckpt")
    with pytest.raises(WeightsError):
        Checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "mark").exists()


def test_plain_pickle_and_other_files(tmp_path):
    for name, data in {
        "plain.ckpt": pickle.dumps({"x": Evil(os.system, f"touch {tmp_path}/mark")}),
        "empty.ckpt": b"",
        "text.ckpt": b"<html>not found</html>",
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(WeightsError, match="truncated or no PyTorch checkpoint"):
            Checkpoint(tmp_path / name)
    assert not (tmp_path / "mark").exists()
    with pytest.raises(WeightsError):
        Checkpoint(tmp_path / "missing.ckpt")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_truncated(tmp_path, part):
    torch.save(STATE, tmp_path / "x.ckpt")
    data = (tmp_path / "x.ckpt").read_bytes()
    (tmp_path / "x.ckpt").write_bytes(data[: int(len(data) * part)])
    with pytest.raises(WeightsError, match="truncated"):
        Checkpoint(tmp_path / "x.ckpt")


def rewrite(path: Path, change) -> None:
    """Write the archive again with `change(name, data)` giving name, data and compression."""
    with zipfile.ZipFile(path) as archive:
        records = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records:
            new = change(name, data)
            if new is not None:
                archive.writestr(new[0], new[1], new[2])


def test_zip_bomb(tmp_path):
    torch.save({"a": torch.zeros(2**20)}, tmp_path / "x.ckpt")
    rewrite(tmp_path / "x.ckpt", lambda name, data: (name, data, zipfile.ZIP_DEFLATED))
    with pytest.raises(WeightsError, match="compressed"):
        Checkpoint(tmp_path / "x.ckpt")


def test_overlapping_records(tmp_path):
    path = tmp_path / "x.ckpt"
    torch.save({"a": torch.zeros(500), "b": torch.ones(500)}, path)
    data = bytearray(path.read_bytes())
    # Two entries of the central directory point to one record.
    places, at = [], data.find(b"PK\x01\x02")
    while at >= 0:
        places.append(at)
        at = data.find(b"PK\x01\x02", at + 4)
    first, second = places[-4:-2]
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="overlap"):
        Checkpoint(path)


def test_missing_or_double_pickle(tmp_path):
    torch.save(STATE, tmp_path / "x.ckpt")
    drop = (tmp_path / "x.ckpt").read_bytes()
    rewrite(
        tmp_path / "x.ckpt",
        lambda name, data: None if name.endswith("data.pkl") else (name, data, 0),
    )
    with pytest.raises(WeightsError, match=r"no single data\.pkl"):
        Checkpoint(tmp_path / "x.ckpt")
    (tmp_path / "y.ckpt").write_bytes(drop)
    with zipfile.ZipFile(tmp_path / "y.ckpt", "a") as archive:
        archive.writestr("other/data.pkl", b"\x80\x02N.")
    with pytest.raises(WeightsError, match=r"no single data\.pkl"):
        Checkpoint(tmp_path / "y.ckpt")


@pytest.mark.parametrize("record", ["data.pkl", "byteorder", "version"])
def test_large_records_that_are_no_tensors(tmp_path, monkeypatch, record):
    monkeypatch.setattr("sam3d_nb.weights.checkpoint.MAX_PICKLE", 1_000)
    torch.save({"x": torch.ones(5_000)}, tmp_path / "x.ckpt")
    Checkpoint(tmp_path / "x.ckpt")

    def grow(name: str, data: bytes):
        return name, data + bytes(2_000) * name.endswith(record), 0

    rewrite(tmp_path / "x.ckpt", grow)
    with pytest.raises(WeightsError, match="that is no tensor"):
        Checkpoint(tmp_path / "x.ckpt")


def test_names_cannot_write_on_the_terminal():
    with pytest.raises(WeightsError) as caught:
        check_tensors({"\x1b[2Jevil": torch.ones(1), "x" * 10_000: torch.ones(1)}, {}, "x")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_storage_that_lies_about_its_size(tmp_path):
    """A tensor of more bytes than the archive has must not be made."""
    torch.save({"a": torch.zeros(10)}, tmp_path / "x.ckpt")

    def change(name: str, data: bytes):
        if name.endswith("data.pkl"):
            # BININT1 10 occurs as the number of elements and as the shape.
            assert data.count(b"K\x0a") == 2
            data = data.replace(b"K\x0a", b"J" + struct.pack("<i", 10**9))
        return name, data, 0

    rewrite(tmp_path / "x.ckpt", change)
    with pytest.raises(WeightsError, match="damaged"):
        Checkpoint(tmp_path / "x.ckpt")


def test_deeply_nested(tmp_path):
    data = b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b"."
    torch.save({"a": torch.ones(1)}, tmp_path / "x.ckpt")
    rewrite(
        tmp_path / "x.ckpt",
        lambda name, old: (name, data if name.endswith("data.pkl") else old, 0),
    )
    with pytest.raises(WeightsError):
        Checkpoint(tmp_path / "x.ckpt").tensors(None)


# --- Names, shapes, types -----------------------------------------------------------------------


def test_check_tensors():
    good = {"a": torch.ones(2, 3), "b": torch.ones(2)}
    shapes = {"a": (2, 3), "b": (2,)}
    check_tensors(good, shapes, "x")
    for found, text in [
        ({"a": good["a"]}, "missing: b"),
        ({**good, "c": torch.ones(1)}, "unknown: c"),
        ({**good, "a": torch.ones(3, 2)}, r"a is \(3, 2\) instead of \(2, 3\)"),
        ({**good, "b": torch.ones(2, dtype=torch.int64)}, "b is torch.int64"),
        ({**good, "b": torch.ones(2, dtype=torch.float64)}, "b is torch.float64"),
        ({**good, "b": torch.ones(2).to_sparse()}, "not a plain floating-point tensor"),
    ]:
        with pytest.raises(WeightsError, match=text):
            check_tensors(found, shapes, "x")


def test_many_differences_are_counted():
    with pytest.raises(WeightsError, match="and 15 more"):
        check_tensors({}, {f"n{i:02}": (1,) for i in range(20)}, "x")
