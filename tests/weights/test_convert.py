"""Conversion: the same numbers, stored once, all or nothing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from layout import CONFIG, content, settings, state_dicts, write_published

from sam3d_nb.errors import WeightsError
from sam3d_nb.weights import write as writing
from sam3d_nb.weights.convert import convert, find_published
from sam3d_nb.weights.folder import MANIFEST, SAM3D, hash_file, read_manifest
from sam3d_nb.weights.load import load_weights
from sam3d_nb.weights.parts import PARTS
from sam3d_nb.weights.status import PARTIAL, model_status
from sam3d_nb.weights.store import StandInStore
from sam3d_nb.weights.write import verify_model


@pytest.fixture(scope="module")
def originals() -> dict[str, dict[str, torch.Tensor]]:
    return state_dicts()


def change_checkpoint(published: Path, tmp_path: Path, file: str, change) -> Path:
    """Return a copy of the published files in which the content of one is changed."""
    folder = tmp_path / "changed"
    shutil.copytree(published, folder)
    path = folder / ("" if file == "model.pt" else "checkpoints") / file
    data = torch.load(path)
    change(data)
    torch.save(data, path)
    return folder


# --- The numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_tensor(published, root, originals, dtype):
    folder = convert(find_published(published), root, dtype=dtype)
    assert folder == root / SAM3D
    store = load_weights(root)
    assert store.config == CONFIG
    half = getattr(torch, dtype)
    assert store.dtype == half
    dtypes = set()
    for name, part in PARTS.items():
        state = store.get(name).state_dict()
        reference = StandInStore(CONFIG, half).get(name).state_dict()
        for key, tensor in state.items():
            original = originals[part.checkpoint][part.prefix + part.inner + key]
            assert tensor.dtype == reference[key].dtype, key
            assert torch.equal(tensor, original.to(tensor.dtype)), key
            dtypes.add(tensor.dtype)
    assert dtypes == {half, torch.float32}, "norms, embedders and ends stay in float32"


def test_files_of_a_converted_model(converted, root):
    folder = converted
    files = {path.name for path in folder.iterdir()}
    pieces = {f"{name}.safetensors" for name in (*PARTS, "vision_0", "vision_1")}
    assert files == {*pieces, "config.json", MANIFEST, "LICENSE"}
    manifest = read_manifest(folder, SAM3D)
    assert set(manifest.files) == files - {MANIFEST}
    for name, record in manifest.files.items():
        assert record.sha256 == hash_file(folder / name)
    data = json.loads((folder / "config.json").read_text())
    assert data["kind"] == "local"
    assert {source["file"] for source in data["sources"]} >= {"ss_generator.ckpt", "model.pt"}
    assert not any(path.name.endswith("partial") for path in root.iterdir())


def test_safetensors_checkpoints_give_the_same(converted, root, tmp_path):
    write_published(tmp_path / "other", safetensors=True)
    convert(find_published(tmp_path / "other"), tmp_path / "root2")
    for path in (root / SAM3D).glob("*.safetensors"):
        assert hash_file(path) == hash_file(tmp_path / "root2" / SAM3D / path.name)


@pytest.mark.parametrize(
    ("equal", "count"),
    [("all", 1), ("images", 2), ("none", 4), ("all but one number", 2)],
)
def test_equal_dinov2_networks_are_stored_once(tmp_path, root, originals, equal, count):
    files = {name: dict(state) for name, state in originals.items()}
    places = [
        (stage, f"_base_models.condition_embedder.module_list.{i}.backbone.")
        for stage in ("ss_generator", "slat_generator")
        for i in (0, 1)
    ]
    names = [key.removeprefix(places[0][1]) for key in files["ss_generator"] if places[0][1] in key]
    for index, (stage, start) in enumerate(places):
        for name in names:
            source = files["ss_generator"][places[0][1] + name]
            if equal.startswith("all") or (equal == "images" and index % 2 == 0):
                files[stage][start + name] = source.clone()
            elif equal == "none":
                files[stage][start + name] = source + index
    if equal == "all but one number":
        files["slat_generator"][places[3][1] + "mask_token"][0, 5] += 1
    write_published(tmp_path / "files", files)
    folder = convert(find_published(tmp_path / "files"), root)
    assert len(list(folder.glob("vision_*.safetensors"))) == count
    store = load_weights(root)
    first, second = store.get("condition_stage1"), store.get("condition_stage2")
    networks = [e.module_list[i].backbone for e in (first, second) for i in (0, 1)]
    assert len({id(network) for network in networks}) == count
    for (stage, start), network in zip(places, networks, strict=True):
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, files[stage][start + name].to(tensor.dtype))


def test_outputs_are_those_of_the_published_weights(converted, root):
    """A network loaded from the converted file gives what the published tensors give."""
    loaded = load_weights(root).get("structure_decoder")
    direct = StandInStore(CONFIG, torch.float16).get("structure_decoder")
    latent = torch.randn(1, 8, 4, 4, 4)
    assert torch.equal(loaded(latent), direct(latent))


# --- What is wrong with the checkpoints ---------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "change", "text"),
    [
        (
            "ss_generator.ckpt",
            lambda d: d["state_dict"].pop(
                "_base_models.generator.reverse_fn.backbone.blocks.0.adaLN_modulation.1.bias"
            ),
            r"ss_generator.ckpt, structure_flow: .*missing: reverse_fn.backbone.blocks.0.adaLN",
        ),
        (
            "slat_generator.ckpt",
            lambda d: d["state_dict"].update({"_base_models.generator.extra": torch.ones(1)}),
            "slat_generator.ckpt, latent_flow: .*unknown: extra",
        ),
        (
            "slat_decoder_mesh.ckpt",
            lambda d: d.update({"out_layer.weight": d["out_layer.weight"].T.clone()}),
            r"slat_decoder_mesh.ckpt, mesh_decoder: .*out_layer.weight is \(32, 101\) instead of",
        ),
        (
            "ss_decoder.ckpt",
            lambda d: d.update({"input_layer.bias": d["input_layer.bias"].to(torch.int32)}),
            "ss_decoder.ckpt, structure_decoder: .*input_layer.bias is torch.int32",
        ),
        (
            "model.pt",
            lambda d: d.pop("model"),
            "model.pt has no state dict under 'model'",
        ),
        (
            "slat_decoder_gs.ckpt",
            lambda d: d["out_layer.bias"].fill_(float("nan")),
            "splat_decoder: out_layer.bias has values that are not finite",
        ),
        (
            "slat_decoder_gs.ckpt",
            lambda d: d["blocks.0.attn.to_qkv.bias"].fill_(1e6),
            "blocks.0.attn.to_qkv.bias has values that F16 cannot hold; use --dtype bfloat16",
        ),
    ],
)
def test_wrong_tensors(published, tmp_path, root, file, change, text):
    folder = change_checkpoint(published, tmp_path, file, change)
    with pytest.raises(WeightsError, match=text):
        convert(find_published(folder), root)
    assert not (root / SAM3D).exists()
    assert not model_status(SAM3D, root).ready


def test_bfloat16_holds_what_float16_cannot(published, tmp_path, root):
    folder = change_checkpoint(
        published,
        tmp_path,
        "slat_decoder_gs.ckpt",
        lambda d: d["blocks.0.attn.to_qkv.bias"].fill_(1e6),
    )
    convert(find_published(folder), root, dtype="bfloat16")
    bias = load_weights(root).get("splat_decoder").state_dict()["blocks.0.attn.to_qkv.bias"]
    assert torch.allclose(bias.float(), torch.tensor(1e6), rtol=0.01)


def test_truncated_checkpoint(published, tmp_path, root):
    shutil.copytree(published, tmp_path / "cut")
    path = tmp_path / "cut" / "checkpoints" / "slat_generator.ckpt"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match=r"slat_generator\.ckpt is truncated"):
        convert(find_published(tmp_path / "cut"), root)


def test_malicious_checkpoint(published, tmp_path, root):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/mark",)

    shutil.copytree(published, tmp_path / "evil")
    state = content(state_dicts())["slat_decoder_gs_4"]
    path = tmp_path / "evil" / "checkpoints" / "slat_decoder_gs_4.ckpt"
    torch.save({**state, "extra": Evil()}, path)
    with pytest.raises(WeightsError, match=r"asks for posix\.system"):
        convert(find_published(tmp_path / "evil"), root)
    assert not (tmp_path / "mark").exists()


def test_missing_files(published, tmp_path):
    with pytest.raises(WeightsError, match=r"has no pipeline\.yaml"):
        find_published(tmp_path)
    shutil.copytree(published, tmp_path / "part")
    (tmp_path / "part" / "checkpoints" / "ss_decoder.yaml").unlink()
    with pytest.raises(WeightsError, match=r"lacks ss_decoder\.yaml"):
        find_published(tmp_path / "part")
    (tmp_path / "part" / "model.pt").unlink()
    with pytest.raises(WeightsError, match="--moge"):
        find_published(tmp_path / "part")
    shutil.copytree(published, tmp_path / "part2")
    (tmp_path / "part2" / "checkpoints" / "ss_decoder.ckpt").unlink()
    with pytest.raises(WeightsError, match=r"ss_decoder\.ckpt is missing"):
        find_published(tmp_path / "part2")


def test_unknown_setting_stops_before_anything_is_written(published, tmp_path, root):
    shutil.copytree(published, tmp_path / "new")
    data = settings()["slat_decoder_mesh"] | {"rope": True}
    (tmp_path / "new" / "checkpoints" / "slat_decoder_mesh.yaml").write_text(yaml.safe_dump(data))
    files = find_published(tmp_path / "new")
    with pytest.raises(WeightsError, match=r"--accept slat_decoder_mesh\.rope"):
        convert(files, root)
    assert not root.exists()
    convert(files, root, accept=("slat_decoder_mesh.rope",))
    data = json.loads((root / SAM3D / "config.json").read_text())
    assert data["accepted"] == ["slat_decoder_mesh.rope"]


# --- All or nothing -----------------------------------------------------------------------------


def stop_at(monkeypatch, piece: str) -> None:
    original = writing._write_piece

    def write(path, *arguments):
        if path.stem == piece:
            path.write_bytes(b"half a file")
            raise KeyboardInterrupt
        return original(path, *arguments)

    monkeypatch.setattr(writing, "_write_piece", write)


def test_interrupted_conversion_goes_on(published, root, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, "latent_flow")
        with pytest.raises(KeyboardInterrupt):
            convert(find_published(published), root)
    assert not (root / SAM3D).exists()
    assert "interrupted" in model_status(SAM3D, root).found
    kept = {p.name: p.stat().st_ino for p in (root / PARTIAL).glob("*.safetensors")}
    assert len(kept) > 4
    convert(find_published(published), root)
    verify_model(root / SAM3D)
    same = [name for name, inode in kept.items() if (root / SAM3D / name).stat().st_ino == inode]
    # write() opens the unfinished file again, so its inode stays: compare what was finished
    assert set(same) >= set(kept) - {"latent_flow.safetensors"}


def test_interrupted_conversion_of_other_files_begins_anew(
    published, other_published, root, monkeypatch
):
    with monkeypatch.context() as patch:
        stop_at(patch, "latent_flow")
        with pytest.raises(KeyboardInterrupt):
            convert(find_published(published), root)
    convert(find_published(other_published), root)
    expected = StandInStore(CONFIG, torch.float16, seed=5)
    for name in PARTS:
        state = expected.get(name).state_dict()
        for key, tensor in load_weights(root).get(name).state_dict().items():
            assert torch.equal(tensor, state[key])


def test_a_failed_conversion_leaves_the_old_model(converted, other_published, root, monkeypatch):
    folder = converted
    before = hash_file(folder / MANIFEST)
    with monkeypatch.context() as patch:
        stop_at(patch, "mesh_decoder")
        with pytest.raises(KeyboardInterrupt):
            convert(find_published(other_published), root)
    assert hash_file(folder / MANIFEST) == before
    verify_model(folder)
    convert(find_published(other_published), root)
    assert hash_file(folder / MANIFEST) != before
    assert sorted(path.name for path in root.iterdir()) == [SAM3D]


def test_what_the_disk_does_not_return_is_not_kept(published, root, monkeypatch):
    original = writing.write_tensors

    def flip(path, *arguments):
        sha256 = original(path, *arguments)
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        return sha256

    with monkeypatch.context() as patch:
        patch.setattr(writing, "write_tensors", flip)
        with pytest.raises(WeightsError, match="has changed: its SHA-256"):
            convert(find_published(published), root)
    assert list(root.iterdir()) == []
    convert(find_published(published), root)


def test_full_disk(published, root, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "write_tensors", full)
    with pytest.raises(WeightsError, match="No space left on device; make room"):
        convert(find_published(published), root)


def test_a_link_is_not_written_through(published, root, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    root.mkdir()
    (root / SAM3D).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WeightsError, match="is a link; delete it"):
        convert(find_published(published), root)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_unknown_dtype(published, root):
    with pytest.raises(WeightsError, match="no dtype 'int8'"):
        convert(find_published(published), root, dtype="int8")
