"""Our tensor files: written in a stream, checked before they are opened."""

from __future__ import annotations

import hashlib
import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sam3d_nb.errors import WeightsError
from sam3d_nb.weights.tensorfile import (
    Entry,
    FileTensors,
    bytes_of,
    entry_of,
    read_header,
    read_whole_header,
    write_tensors,
)

TENSORS = {
    "b": torch.arange(5, dtype=torch.float16),
    "a.weight": torch.randn(3, 4),
    "c": torch.randn(2, 2, dtype=torch.bfloat16),
    "scalar": torch.tensor(3.0),
    "strided": torch.randn(4, 6).t(),
}


def write(path, tensors=TENSORS, **options):
    entries = {name: entry_of(tensor) for name, tensor in tensors.items()}
    return write_tensors(path, entries, tensors.__getitem__, **options)


def raw(path, header, data=b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_round_trip_with_both_readers(tmp_path):
    path = tmp_path / "x.safetensors"
    sizes = []
    sha256 = write(path, on_bytes=sizes.append)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sum(sizes) == sum(tensor.nbytes for tensor in TENSORS.values())
    for tensors in (load_file(path), FileTensors(path)):
        assert tensors.keys() == TENSORS.keys()
        for name, tensor in tensors.items():
            assert tensor.dtype == TENSORS[name].dtype
            assert torch.equal(tensor, TENSORS[name])
    assert read_header(path)["c"] == Entry("BF16", (2, 2))


def read(tensors: FileTensors, name: str) -> np.ndarray:
    memory = np.full(tensors[name].nbytes, 0xEE, np.uint8)
    tensors.read_into(name, memory)
    return memory


def test_reading_gives_the_bits_of_the_map(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    many = TENSORS | {f"t{i}": torch.randn(i, 7) for i in range(30)} | {"empty": torch.zeros(0, 3)}
    write(path, many)
    tensors = FileTensors(path)
    for name, tensor in many.items():
        expected = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        np.testing.assert_array_equal(read(tensors, name), expected)
    write(tmp_path / "y", {name: t + 1 for name, t in many.items()})
    os.replace(tmp_path / "y", path)  # what was opened stays what it was
    assert read(tensors, "scalar").tobytes() == many["scalar"].numpy().tobytes()
    monkeypatch.delattr(os, "preadv")
    again = FileTensors(path)
    for name in many:
        np.testing.assert_array_equal(read(again, name), bytes_of(again[name]))


def test_a_file_that_is_cut_off_after_it_was_opened(tmp_path):
    path = tmp_path / "x.safetensors"
    write(path, {"a": torch.ones(100_000)})
    tensors = FileTensors(path)
    os.truncate(path, 200_000)
    with pytest.raises(
        WeightsError, match=r"x\.safetensors is truncated: a ends after 19\d\d\d\d of"
    ):
        read(tensors, "a")


def test_an_opened_file_is_closed_with_its_tensors(tmp_path):
    path = tmp_path / "x.safetensors"
    write(path)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    tensors = FileTensors(path)
    read(tensors, "b")
    del tensors
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before


def test_our_reader_takes_the_library_s_files(tmp_path):
    save_file({"x": torch.ones(3)}, tmp_path / "x.safetensors", {"key": "text"})
    entries, metadata, _ = read_whole_header(tmp_path / "x.safetensors")
    assert entries == {"x": Entry("F32", (3,))}
    assert metadata == {"key": "text"}


def test_writing_checks_what_it_gets(tmp_path):
    with pytest.raises(WeightsError, match="instead of"):
        write_tensors(tmp_path / "x", {"a": Entry("F16", (2,))}, lambda name: torch.ones(2))


HEAD = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def entry(**changes):
    return {"a": {**HEAD["a"], **changes}}


@pytest.mark.parametrize(
    ("header", "data", "text"),
    [
        (HEAD, bytes(7), "truncated"),
        (HEAD, bytes(9), "truncated or damaged"),
        ({}, bytes(1), "truncated or damaged"),
        (entry(data_offsets=[0, 2**62]), bytes(8), "no valid entry"),
        (entry(shape=[2**40, 2**40]), bytes(8), "no valid entry"),
        (entry(shape=[-2]), bytes(8), "no valid entry"),
        (entry(shape=[2.0]), bytes(8), "no valid entry"),
        (entry(shape=[True, 2]), bytes(8), "no valid entry"),
        (entry(shape=[1] * 9 + [2]), bytes(8), "no valid entry"),
        (entry(dtype="PICKLE"), bytes(8), "no valid entry"),
        (entry(dtype=["F32"]), bytes(8), "no valid entry"),
        (entry(data_offsets=[8, 0]), bytes(8), "no valid entry"),
        (entry(data_offsets=[4, 12]), bytes(12), "overlap or leave gaps"),
        ({**HEAD, "b": HEAD["a"]}, bytes(8), "overlap or leave gaps"),
        ({"a": 3}, b"", "no valid entry"),
        ({"__metadata__": {"x": 3}}, b"", "metadata are not texts"),
        ([1, 2], b"", "no table of tensors"),
        (b"{" * 1_000_000, b"", "no JSON"),
        (b"[" * 1_000_000, b"", "no JSON"),
        (b'{"a":1,"a":2}', b"", "occurs twice"),
        (b"\xff\xfe{}", b"", "no JSON"),
    ],
)
def test_hostile_headers(tmp_path, header, data, text):
    path = tmp_path / "x.safetensors"
    raw(path, header, data)
    with pytest.raises(WeightsError, match=text):
        FileTensors(path)


@pytest.mark.parametrize("length", [0, 1, 2**24 + 1, 2**63, 2**64 - 1])
def test_header_bombs(tmp_path, length):
    path = tmp_path / "x.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(WeightsError, match="truncated or no safetensors"):
        read_header(path)


def test_large_sparse_file_is_not_read(tmp_path):
    """A header that fills a file of 8 GB is refused by its length alone."""
    path = tmp_path / "x.safetensors"
    path.write_bytes((2**33).to_bytes(8, "little"))
    os.truncate(path, 2**33 + 8)
    with pytest.raises(WeightsError, match="no safetensors"):
        read_header(path)


def test_no_plain_file(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(WeightsError):
            read_header(path)
    with pytest.raises(WeightsError, match="no plain file"):
        read_header(type(tmp_path)("/dev/null"))
