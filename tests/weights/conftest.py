"""A hub on loopback, published files of a small model, and no way to any other network."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub, Repository, files_below, serve
from layout import state_dicts, use_small_encoders, write_published

from sam3d_nb.weights.convert import convert, find_published
from sam3d_nb.weights.folder import SAM3D


@pytest.fixture(autouse=True)
def small_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_encoders(monkeypatch)


@pytest.fixture(autouse=True)
def no_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let sockets reach loopback only, and no token or folder of the person be seen."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    resolve = socket.getaddrinfo

    def guarded(host: object, *arguments: object, **options: object) -> object:
        if host != "127.0.0.1":
            raise AssertionError(f"a test wants to reach {host}")
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", guarded)
    for name in ("HUGGINGFACE_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "SAM3D_NB_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hub-token"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _http.close_session()


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Published files of a small model with stand-in weights; not to be changed."""
    return write_published(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="session")
def other_published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with other numbers (seed 5)."""
    return write_published(tmp_path_factory.mktemp("published"), state_dicts(seed=5))


@pytest.fixture(scope="session")
def converted_model(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the converted model, in float16; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        use_small_encoders(patch)
        return convert(find_published(published), tmp_path_factory.mktemp("weights"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of weights that is not there yet."""
    return tmp_path / "weights"


@pytest.fixture
def converted(converted_model, root) -> Path:
    """The converted model in `root`, to be changed."""
    return shutil.copytree(converted_model, root / SAM3D)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serve() as hub:
        yield hub


@pytest.fixture
def model_hub(hub: FakeHub, published: Path) -> FakeHub:
    """A hub with the small model, and files beside it that nobody needs."""
    files = files_below(published)
    moge = {"model.pt": files.pop("model.pt"), "README.md": b"point maps"}
    others = {"README.md": b"card", ".gitattributes": b"", "assets/teaser.png": bytes(5_000)}
    hub.repositories["facebook/sam-3d-objects"] = Repository({**files, **others}, gated=True)
    hub.repositories["Ruicheng/moge-vitl"] = Repository(moge)
    return hub
