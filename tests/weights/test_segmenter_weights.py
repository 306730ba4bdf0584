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


def test_the_commands_know_every_segmenter_that_is_there(client, root, capsys):
    def run(*words):
        return main(["weights", *words, "--folder", str(root)]), capsys.readouterr()

    assert "sam2" not in run("status")[1].out, "nothing of it is there"
    place = download_segmenter("sam2", root, hub=client)
    interrupted = root / "downloads" / "sam2.1-hiera-tiny"
    interrupted.mkdir(parents=True)
    (interrupted / "model.safetensors").write_bytes(b"half")
    code, printed = run("status")
    assert code == 0
    assert run("status", "--model", "sam2")[0] == 0
    assert run("status", "--model", "sam2-tiny")[0] == 5
    assert "sam2: ready" in printed.out
    assert "sam2-tiny: not ready, the download was interrupted" in printed.out
    assert f"resume it: sam3d-nb weights download --segmenter sam2-tiny --folder {root}" in (
        printed.out
    )
    assert run("verify")[1].out == f"sam2: all files as recorded in {place}\n"
    assert run("verify", "--model", "sam2")[0] == 0
    (place / "config.json").write_bytes(b"{ }")
    assert "config.json" in run("status")[1].out, "damaged"
    code, printed = run("verify", "--model", "sam2")
    assert code == 5
    assert "sam3d-nb weights remove --model sam2" in printed.err
    assert "sam2-tiny: 0.0 MB freed" in run("remove", "--model", "sam2-tiny")[1].out
    code, printed = run("remove", "--all")
    assert code == 0
    assert "sam2: " in printed.out
    assert [path.name for path in root.iterdir()] == [".lock"]
