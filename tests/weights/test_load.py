"""Converted weights: loaded once, mapped, checked; damaged folders say what to do."""

from __future__ import annotations

import gc
import json
import os
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from layout import CONFIG
from safetensors.torch import load_file, save_file

from sam3d_nb.errors import WeightsError
from sam3d_nb.weights.convert import convert, find_published
from sam3d_nb.weights.converted import read_converted
from sam3d_nb.weights.folder import MANIFEST, SAM3D, hash_file
from sam3d_nb.weights.load import load_weights
from sam3d_nb.weights.parts import PARTS
from sam3d_nb.weights.status import model_status
from sam3d_nb.weights.store import StandInStore
from sam3d_nb.weights.write import verify_model, write_stand_in


def test_second_load_is_the_same_object(converted, root):
    store = load_weights(root)
    module = store.get("structure_flow")
    assert load_weights(root) is store
    assert load_weights(str(root)).get("structure_flow") is module
    assert load_weights(root, dtype=torch.float32) is not store
    assert load_weights(root, device="meta") is not store
    seen = weakref.ref(store)
    del store, module
    gc.collect()
    assert seen() is None, "what nobody holds is not kept in memory"


def test_new_files_are_a_new_object(converted, root, other_published):
    store = load_weights(root)
    convert(find_published(other_published), root)
    assert load_weights(root) is not store


def test_loading_maps_files(converted, root):
    store = load_weights(root)
    tensor = store.get("mesh_decoder").state_dict()["blocks.0.mlp.mlp.0.weight"]
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert "mesh_decoder.safetensors" in maps.read_text()
    assert tensor.dtype == torch.float16


def test_other_dtype(converted, root):
    half, full = load_weights(root), load_weights(root, dtype=torch.float32)
    a = half.get("latent_flow").state_dict()
    b = full.get("latent_flow").state_dict()
    assert {tensor.dtype for tensor in b.values()} == {torch.float32}
    assert all(torch.equal(tensor.float(), b[name]) for name, tensor in a.items())


def test_provenance(converted, root):
    store = load_weights(root)
    assert store.origin.kind == "local"
    assert store.origin.version.startswith("ss_generator ")
    assert store.origin.sha256 == hash_file(converted / MANIFEST)


def test_no_weights_says_how_to_get_them(root):
    with pytest.raises(
        WeightsError,
        match=r"not ready: no weights; accept the terms at https://.*"
        r"sam3d-nb weights download",
    ):
        load_weights(root)


def swap_tensor(path: Path) -> None:
    tensors = load_file(path)
    tensors["surprise"] = tensors.pop(next(iter(tensors)))
    save_file(tensors, path)


def to_double(path: Path) -> None:
    save_file({name: t.double() for name, t in load_file(path).items()}, path)


def fix_manifest(folder: Path, name: str) -> None:
    data = json.loads((folder / MANIFEST).read_text())
    path = folder / name
    data["files"][name] = {"bytes": path.stat().st_size, "sha256": hash_file(path)}
    (folder / MANIFEST).write_text(json.dumps(data))


@pytest.mark.parametrize("change", [swap_tensor, to_double])
def test_tensors_that_the_configuration_does_not_know(converted, root, change):
    change(converted / "structure_flow.safetensors")
    fix_manifest(converted, "structure_flow.safetensors")
    with pytest.raises(WeightsError, match="does not fit its configuration"):
        load_weights(root).get("structure_flow")
    with pytest.raises(WeightsError, match="does not fit its configuration"):
        verify_model(converted)


def test_one_flipped_bit_is_found_by_verify(converted):
    verify_model(converted)
    path = converted / "moge.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"moge\.safetensors has changed"):
        verify_model(converted)


def truncate(folder: Path) -> None:
    os.truncate(folder / "latent_flow.safetensors", 100)


def delete(folder: Path) -> None:
    (folder / "vision_0.safetensors").unlink()


def link(folder: Path) -> None:
    path = folder / "moge.safetensors"
    path.rename(folder.parent / "outside")
    path.symlink_to(folder.parent / "outside")


def name_outside(folder: Path) -> None:
    data = json.loads((folder / MANIFEST).read_text())
    data["files"]["../outside"] = data["files"].pop("moge.safetensors")
    (folder / MANIFEST).write_text(json.dumps(data))


def drop_file(folder: Path) -> None:
    data = json.loads((folder / MANIFEST).read_text())
    del data["files"]["moge.safetensors"]
    (folder / MANIFEST).write_text(json.dumps(data))


def no_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text("[1, 2]")


def nested_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text("[" * 100_000)


def other_model(folder: Path) -> None:
    data = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(data | {"model": "other"}))


def huge_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text(" " * (2**20 + 1))


def piece_outside(folder: Path) -> None:
    data = json.loads((folder / "config.json").read_text())
    data["vision"]["condition_stage1"]["module_list.0.backbone"] = "../../outside"
    (folder / "config.json").write_text(json.dumps(data))
    fix_manifest(folder, "config.json")


def damaged_config(folder: Path) -> None:
    data = json.loads((folder / "config.json").read_text())
    del data["vision"]
    (folder / "config.json").write_text(json.dumps(data))
    fix_manifest(folder, "config.json")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (truncate, "has 100 bytes instead of"),
        (delete, "is missing"),
        (link, "it is a link"),
        (name_outside, "no plain file name"),
        (drop_file, "not in the manifest"),
        (no_manifest, "no manifest"),
        (nested_manifest, "damaged"),
        (other_model, "model 'other'"),
        (huge_manifest, "refused"),
        (piece_outside, "not in the manifest"),
        (damaged_config, "damaged"),
    ],
)
def test_damaged_folders(converted, root, change, text):
    change(converted)
    with pytest.raises(WeightsError, match=text):
        read_converted(converted)
    with pytest.raises(WeightsError, match="sam3d-nb weights remove --model sam-3d-objects"):
        load_weights(root)


def test_stand_ins_are_marked(root):
    store = StandInStore(CONFIG, torch.float16, seed=3)
    write_stand_in(store, root)
    verify_model(root / SAM3D)
    loaded = load_weights(root)
    assert loaded.origin.kind == "stand-in"
    assert "stand-in seed 3" in loaded.origin.version
    assert model_status(SAM3D, root).found.startswith("stand-in weights")
    for name in PARTS:
        expected = store.get(name).state_dict()
        for key, tensor in loaded.get(name).state_dict().items():
            assert torch.equal(tensor, expected[key])


def test_config_without_released_sizes_is_kept(root):
    """What the folder says counts, not what this version would build by itself."""
    small = replace(CONFIG, structure_flow=replace(CONFIG.structure_flow, depth=1))
    write_stand_in(StandInStore(small), root)
    assert len(load_weights(root).get("structure_flow").blocks) == 1
