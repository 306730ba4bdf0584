"""Weights of segmenters from a hub on loopback: states of access, download, what stays."""

from __future__ import annotations

import pytest
import torch
from fake_hub import GOOD_TOKEN, Repository
from safetensors.torch import save

from sam3d_nb.cli import main
from sam3d_nb.errors import InputError, WeightsError
from sam3d_nb.masks.sam_weights import REPOSITORIES, download_segmenter, weights_missing
from sam3d_nb.weights.hub import Access, AccessError, Hub

FILES = {
    "config.json": b"{}",
    "model.safetensors": save({"a": torch.ones(3)}),
    "tokenizer.json": b"{}",
    "model.pt": b"pickled",
    "README.md": b"card",
}


@pytest.fixture
def client(hub):
    for name in ("facebook/sam3", REPOSITORIES["sam2"]):
        hub.repositories[name] = Repository(dict(FILES), gated=name == "facebook/sam3")
    return Hub(GOOD_TOKEN, hub.endpoint)


@pytest.mark.parametrize("name", ["sam3", "sam2"])
def test_a_segmenter_is_downloaded_on_its_own(client, hub, root, name):
    said: list[str] = []
    place = download_segmenter(name, root, hub=client, say=said.append)
    kept = {"config.json", "model.safetensors", "tokenizer.json", "manifest.json"}
    assert {path.name for path in place.iterdir()} == kept, "nothing pickled"
    assert weights_missing(name, root) == ""
    assert said[0].startswith(f"Downloading {REPOSITORIES[name]}")
    before = len(hub.requests)
    assert download_segmenter(name, root, hub=client, say=said.append) == place
    assert len(hub.requests) == before
    (place / "model.safetensors").write_bytes(b"")
    assert "is damaged" in weights_missing(name, root)


@pytest.mark.parametrize(
    ("gate", "state"),
    [
        ("not accepted", Access.TERMS_NOT_ACCEPTED),
        ("pending", Access.PENDING),
        ("rejected", Access.REFUSED),
    ],
)
def test_a_closed_gate_is_told_and_leaves_nothing(client, hub, root, gate, state):
    hub.repositories["facebook/sam3"].gate = gate
    with pytest.raises(AccessError) as caught:
        download_segmenter("sam3", root, hub=client)
    assert caught.value.state is state
    assert not (root / "sam3").exists()
    assert "--segmenter sam3" in weights_missing("sam3", root)


def test_what_cannot_be_got_is_told(client, hub, root, capsys):
    with pytest.raises(InputError, match="'embedded' has no weights"):
        download_segmenter("embedded", root, hub=client)
    hub.repositories["facebook/sam3"].files["model.safetensors"] = b"\xff" * 100
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        download_segmenter("sam3", root, hub=client)
    assert not (root / "sam3").exists()
    assert main(["weights", "download", "--segmenter", "sam9", "--folder", str(root)]) == 3
    assert "sam2-large" in capsys.readouterr().err
