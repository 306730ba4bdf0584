"""From an empty disk to a model that is ready, through a hub on loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fake_hub import GOOD_TOKEN, FakeHub, Repository, files_below
from layout import CONFIG
from safetensors.torch import save

from sam3d_nb.errors import WeightsError
from sam3d_nb.weights import download as downloading
from sam3d_nb.weights.download import convert_download, download, locked, remove, verify
from sam3d_nb.weights.folder import MANIFEST, SAM3, SAM3D, hash_file, weights_folder
from sam3d_nb.weights.hub import Access, AccessError, Hub
from sam3d_nb.weights.load import load_weights
from sam3d_nb.weights.status import model_status, weights_status

REPO = "facebook/sam-3d-objects"


@pytest.fixture
def client(model_hub: FakeHub) -> Hub:
    return Hub(GOOD_TOKEN, model_hub.endpoint)


def test_download(model_hub, client, root):
    said: list[str] = []
    assert download(root, hub=client, say=said.append) == [root / SAM3D]
    store = load_weights(root)
    assert store.config == CONFIG
    assert store.origin.kind == "official"
    assert store.origin.version == f"{REPO}@0123456789ab"
    assert sorted(path.name for path in root.iterdir()) == [".lock", SAM3D]
    assert verify(SAM3D, root) == root / SAM3D
    fetched = model_hub.fetched()
    assert "teaser.png" not in fetched, "only what is needed is downloaded"
    assert "README.md" not in " ".join(r.path for r in model_hub.requests)
    assert "to download" in said[0]
    assert "are free" in said[0]
    assert said[-1].startswith(f"{SAM3D} is ready: official weights, {REPO}@0123456789ab, float16")
    data = json.loads((root / SAM3D / "config.json").read_text())
    sources = {source["file"]: source for source in data["sources"]}
    source = sources["checkpoints/ss_generator.ckpt"]
    content = model_hub.repositories[REPO].files["checkpoints/ss_generator.ckpt"]
    assert source["bytes"] == len(content)
    assert source["repository"] == REPO
    assert sources["model.pt"]["repository"] == "Ruicheng/moge-vitl"


def test_ready_models_are_left_alone(model_hub, client, root):
    download(root, hub=client)
    before = hash_file(root / SAM3D / MANIFEST)
    model_hub.requests.clear()
    said: list[str] = []
    download(root, hub=client, say=said.append)
    assert model_hub.requests == []
    assert said == [f"{SAM3D} is ready: {model_status(SAM3D, root).found}"]
    assert hash_file(root / SAM3D / MANIFEST) == before


def test_ready_in_another_dtype(client, root, converted_model):
    shutil.copytree(converted_model, root / SAM3D)
    download(root, hub=client, dtype="float16")
    with pytest.raises(WeightsError, match=r"in float16; to have it in bfloat16, .*remove"):
        download(root, hub=client, dtype="bfloat16")


def test_damaged_records_are_looked_at_anew(model_hub, client, root):
    download(root, hub=client, keep_download=True)
    for text in ("[1]", '{"a": 3}', '{"checkpoints/ss_decoder.ckpt": {"sha256": 1}}', "{"):
        for record in root.glob("downloads/*/.records.json"):
            record.write_text(text)
        with pytest.raises(WeightsError, match="no complete download"):
            convert_download(root)


def test_nothing_is_downloaded_without_access(model_hub, client, root):
    model_hub.repositories[REPO].gate = "pending"
    with pytest.raises(AccessError) as caught:
        download(root, hub=client)
    assert caught.value.state is Access.PENDING
    assert model_hub.fetched() == []
    with pytest.raises(AccessError) as caught:
        download(root, hub=Hub("", model_hub.endpoint))
    assert caught.value.state is Access.NO_TOKEN


def test_interrupted_download_goes_on(model_hub, client, root, monkeypatch):
    original = Hub.fetch
    count = 0

    def stop(self, listing, file, folder):
        nonlocal count
        count += 1
        if count == 12:
            raise AccessError(Access.NETWORK_DOWN, listing.repository)
        return original(self, listing, file, folder)

    with monkeypatch.context() as patch:
        patch.setattr(Hub, "fetch", stop)
        with pytest.raises(AccessError, match="what is downloaded stays"):
            download(root, hub=client)
    status = model_status(SAM3D, root)
    assert not status.ready
    assert "interrupted after" in status.found
    assert status.advice.startswith("resume it: sam3d-nb weights download --folder")
    first = model_hub.fetched()
    download(root, hub=client)
    assert len(model_hub.fetched()) == len(set(model_hub.fetched()))
    assert set(first) < set(model_hub.fetched())
    assert load_weights(root).config == CONFIG


def test_download_stays_until_the_conversion_is_verified(model_hub, client, root, monkeypatch):
    def fail(*arguments, **options):
        raise WeightsError("unknown field")

    with monkeypatch.context() as patch:
        patch.setattr(downloading, "convert", fail)
        with pytest.raises(WeightsError, match="unknown field"):
            download(root, hub=client)
    kept = files_below(root / "downloads")
    assert any(name.endswith("ss_generator.ckpt") for name in kept)
    model_hub.requests.clear()
    convert_download(root)  # without the hub
    assert model_hub.requests == []
    assert load_weights(root).origin.kind == "official"


def test_new_revision_in_between(model_hub, client, root, monkeypatch):
    """What an earlier revision left is used where it is the same, and replaced where it is not."""

    def fail(*arguments, **options):
        raise WeightsError("stop")

    with monkeypatch.context() as patch:
        patch.setattr(downloading, "convert_download", fail)
        with pytest.raises(WeightsError, match="stop"):
            download(root, hub=client)
    fetched = model_hub.fetched()
    repository = model_hub.repositories[REPO]
    repository.revision = "f" * 40
    settings = repository.files["checkpoints/pipeline.yaml"]
    repository.files["checkpoints/pipeline.yaml"] = settings.replace(b"v0", b"v1")
    download(root, hub=client)
    again = model_hub.fetched()[len(fetched) :]
    assert not any(name.endswith(("ckpt", "pt")) for name in again), "checkpoints are the same"
    data = json.loads((root / SAM3D / "config.json").read_text())
    assert {s["revision"] for s in data["sources"] if s["repository"] == REPO} == {"f" * 40}


def test_disk_too_small(model_hub, client, root, monkeypatch):
    monkeypatch.setattr(downloading, "free_bytes", lambda folder: 10_000_000)
    with pytest.raises(WeightsError) as caught:
        download(root, hub=client)
    text = str(caught.value)
    assert "the disk is too small" in text
    assert "10.0 MB are free" in text
    assert "--folder" in text
    assert model_hub.fetched() == []


def test_repository_without_what_is_needed(model_hub, client, root):
    files = model_hub.repositories[REPO].files
    data = files.pop("checkpoints/ss_decoder.ckpt")
    with pytest.raises(WeightsError, match=r"lacks checkpoints/ss_decoder\.ckpt; update"):
        download(root, hub=client)
    files["checkpoints/ss_decoder.safetensors"] = data  # a name that would do
    files["../../evil"] = b"x"
    with pytest.raises(WeightsError, match="no plain file name"):
        download(root, hub=client)
    assert model_hub.fetched() == []


def test_malicious_upload(model_hub, client, root, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/mark",)

    torch.save({"state_dict": {}, "x": Evil()}, tmp_path / "evil.ckpt")
    data = (tmp_path / "evil.ckpt").read_bytes()
    model_hub.repositories[REPO].files["checkpoints/slat_generator.ckpt"] = data
    with pytest.raises(WeightsError, match=r"slat_generator\.ckpt is refused, nothing in it"):
        download(root, hub=client)
    assert not (tmp_path / "mark").exists()
    assert not (root / SAM3D).exists()


def test_keep_download(client, root):
    download(root, hub=client, keep_download=True, dtype="bfloat16")
    assert (root / "downloads" / "sam-3d-objects" / "checkpoints" / "ss_decoder.ckpt").is_file()
    assert load_weights(root).dtype == torch.bfloat16
    convert_download(root, dtype="float16")
    assert load_weights(root).dtype == torch.float16
    assert remove(SAM3D, root) > 0
    assert files_below(root).keys() <= {".lock"}


def test_no_download_to_convert(root):
    with pytest.raises(WeightsError, match="no complete download"):
        convert_download(root)


@pytest.fixture
def sam3_hub(model_hub: FakeHub) -> FakeHub:
    model_hub.repositories["facebook/sam3"] = Repository(
        {
            "config.json": b"{}",
            "model.safetensors": save({"x": torch.ones(2_000)}),
            "merges.txt": b"a b",
            "sam3.pt": bytes(9_000),
            "LICENSE": b"terms",
            "onnx/model.safetensors": bytes(9_000),
        },
        gated=True,
    )
    return model_hub


def test_sam3(sam3_hub, client, root):
    assert download(root, hub=client, sam3=True) == [root / SAM3D, root / SAM3]
    files = {"config.json", "model.safetensors", "merges.txt", "LICENSE", MANIFEST}
    assert {path.name for path in (root / SAM3).iterdir()} == files
    assert all(status.ready for status in weights_status(root))
    assert verify(SAM3, root) == root / SAM3
    assert sorted(path.name for path in root.iterdir()) == [".lock", SAM3D, SAM3]
    (root / SAM3 / "merges.txt").write_bytes(b"a c")
    with pytest.raises(WeightsError, match="has changed"):
        verify(SAM3, root)
    remove(SAM3, root)
    assert not (root / SAM3).exists()


def test_sam3_with_a_hostile_file(sam3_hub, client, root, converted_model):
    shutil.copytree(converted_model, root / SAM3D)
    bomb = (2**40).to_bytes(8, "little") + bytes(2_000)
    sam3_hub.repositories["facebook/sam3"].files["model.safetensors"] = bomb
    with pytest.raises(WeightsError, match="truncated or no safetensors"):
        download(root, hub=client, sam3=True)
    assert not (root / SAM3).exists()


# --- Status, removal, the folder ----------------------------------------------------------------


def test_status_without_weights(root):
    first, second = weights_status(root)
    assert (first.name, first.ready, first.found) == (SAM3D, False, "no weights")
    assert first.advice == (
        "accept the terms at https://huggingface.co/facebook/sam-3d-objects, "
        "have a read token in HUGGINGFACE_TOKEN or by hf auth login, then run: "
        f"sam3d-nb weights download --folder {root}"
    )
    assert second.advice.endswith(f"sam3d-nb weights download --segmenter sam3 --folder {root}")
    assert "--folder" not in weights_status()[0].advice
    assert not root.exists(), "looking changes nothing"


def test_status_of_damaged_weights(root, converted_model):
    shutil.copytree(converted_model, root / SAM3D)
    assert model_status(SAM3D, root).ready
    (root / SAM3D / "moge.safetensors").unlink()
    status = model_status(SAM3D, root)
    assert not status.ready
    assert "moge.safetensors is missing" in status.found
    assert "weights remove --model sam-3d-objects" in status.advice


def test_remove_takes_only_what_is_ours(root, tmp_path, converted_model):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    folder = shutil.copytree(converted_model, root / SAM3D)
    (folder / "link").symlink_to(outside)
    assert remove(SAM3D, root) > 1_000_000
    assert (outside / "precious").exists()
    (root / SAM3D).symlink_to(outside)
    (outside / MANIFEST).write_text("{}")
    with pytest.raises(WeightsError, match="is a link"):
        remove(SAM3D, root)
    (root / SAM3D).unlink()
    (root / SAM3D).mkdir()
    (root / SAM3D / "thesis.doc").write_text("x")
    with pytest.raises(WeightsError, match="no manifest of this package; delete it yourself"):
        remove(SAM3D, root)
    assert (root / SAM3D / "thesis.doc").exists()
    assert remove(SAM3, root) == 0


def test_one_at_a_time(root):
    root.mkdir()
    code = (
        "import sys; from filelock import FileLock\n"
        f"with FileLock({str(root / '.lock')!r}): print('in', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout.readline() == b"in\n"
        with pytest.raises(WeightsError, match="another process"), locked(root):
            pass
    finally:
        process.communicate(timeout=20)
    with locked(root):
        pass


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(WeightsError, match="choose another folder"),
        locked(tmp_path / "file" / "x"),
    ):
        pass


def test_where_weights_lie(monkeypatch, tmp_path):
    assert weights_folder("~/x") == Path.home() / "x"
    assert weights_folder() == tmp_path / "cache" / "sam3d_nb"
    monkeypatch.setenv("SAM3D_NB_WEIGHTS", str(tmp_path / "mine"))
    assert weights_folder() == tmp_path / "mine"
    assert weights_folder(tmp_path / "given") == tmp_path / "given"
    monkeypatch.delenv("SAM3D_NB_WEIGHTS")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert weights_folder() == Path.home() / "Library" / "Caches" / "sam3d_nb"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert weights_folder() == tmp_path / "local" / "sam3d_nb"
