"""The hub: states of gated access, listings, downloads that go on where they stopped."""

from __future__ import annotations

import re

import pytest
from fake_hub import GOOD_TOKEN, FakeHub, Repository

from sam3d_nb.errors import WeightsError
from sam3d_nb.weights.hub import Access, AccessError, Hub, Listing, RemoteFile, find_token

REPO = "facebook/sam-3d-objects"
DATA = bytes(range(256)) * 40  # 10 kB: stored on the content network


@pytest.fixture
def client(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 500)
    hub.repositories[REPO] = Repository({"big.bin": DATA, "small.txt": b"few"}, gated=True)
    return Hub(GOOD_TOKEN, hub.endpoint)


def only(listing: Listing, name: str) -> RemoteFile:
    return next(file for file in listing.files if file.name == name)


# --- Access ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "gate", "state", "step"),
    [
        ("", "", Access.NO_TOKEN, "https://huggingface.co/settings/tokens"),
        ("hf_bad", "", Access.TOKEN_INVALID, "https://huggingface.co/settings/tokens"),
        (GOOD_TOKEN, "scope", Access.TOKEN_SCOPE, "https://huggingface.co/settings/tokens"),
        (GOOD_TOKEN, "not accepted", Access.TERMS_NOT_ACCEPTED, f"https://huggingface.co/{REPO}"),
        (GOOD_TOKEN, "pending", Access.PENDING, "https://huggingface.co/settings/gated-repos"),
        (GOOD_TOKEN, "rejected", Access.REFUSED, f"https://huggingface.co/{REPO}"),
        (GOOD_TOKEN, "missing", Access.NOT_FOUND, f"https://huggingface.co/{REPO}"),
        (GOOD_TOKEN, "trouble", Access.HUB_TROUBLE, "https://status.huggingface.co"),
        (GOOD_TOKEN, "proxy", Access.NETWORK_DOWN, "the proxy"),
        (GOOD_TOKEN, "", Access.GRANTED, ""),
    ],
)
def test_states_of_access(hub, client, token, gate, state, step):
    hub.repositories[REPO].gate = gate
    client = Hub(token, hub.endpoint)
    assert client.access(REPO) is state
    if state is Access.GRANTED:
        client.check_access(REPO)
        return
    with pytest.raises(AccessError) as caught:
        client.check_access(REPO)
    text = str(caught.value)
    assert text.startswith(f"{REPO}: {state.value}")
    assert step in text
    assert "hf_" not in text, "a token is never shown"
    # The same state where the hub lets the listing pass and closes at the file itself.
    with pytest.raises(AccessError) as late:
        client.list_files(REPO)
    assert late.value.state is state


def test_gate_at_the_file(hub, client, tmp_path):
    listing = client.list_files(REPO)
    hub.repositories[REPO].gate = "pending"
    with pytest.raises(AccessError) as caught:
        client.fetch(listing, only(listing, "big.bin"), tmp_path)
    assert caught.value.state is Access.PENDING


def test_each_state_has_its_own_next_step(hub, client):
    texts = set()
    for state in Access:
        if state is not Access.GRANTED:
            texts.add(str(AccessError(state, REPO)).partition("; ")[2])
    assert len(texts) == len(Access) - 1


def test_network_down():
    client = Hub(GOOD_TOKEN, "http://127.0.0.1:9")  # nobody listens there
    assert client.access(REPO) is Access.NETWORK_DOWN
    with pytest.raises(AccessError, match=r"what is downloaded stays$"):
        client.list_files(REPO)
    with pytest.raises(AccessError, match=r"A token is missing, too: make a token .* auth login$"):
        Hub("", "http://127.0.0.1:9").list_files(REPO)
    with pytest.raises(AccessError, match=r"what is downloaded stays$"):
        Hub("", "http://127.0.0.1:9").list_files("facebook/sam2.1-hiera-small")


def test_the_hub_s_own_command_is_named_as_it_can_be_called(monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    (tmp_path / "hf").touch()
    assert f"or run: {tmp_path}/hf auth login" in str(AccessError(Access.NO_TOKEN, REPO))
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert "or run: hf auth login" in str(AccessError(Access.NO_TOKEN, REPO))


def test_these_tests_reach_no_other_network():
    with pytest.raises(AssertionError, match=r"wants to reach huggingface\.co"):
        Hub(GOOD_TOKEN).access(REPO)


def test_offline_mode(hub, client, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert client.access(REPO) is Access.OFFLINE
    assert hub.requests == []


def test_open_repository_needs_no_token(hub):
    hub.repositories["a/open"] = Repository({"x": b"1"})
    assert Hub("", hub.endpoint).access("a/open") is Access.GRANTED
    assert {request.token for request in hub.requests} == {""}


def test_token_from_the_variable_or_the_login(monkeypatch, tmp_path):
    assert find_token() is None
    (tmp_path / "hub-token").write_text("hf_login\n")
    assert find_token() == "hf_login"
    monkeypatch.setenv("HUGGINGFACE_TOKEN", "  hf_variable ")
    assert find_token() == "hf_variable"
    monkeypatch.setenv("HUGGINGFACE_TOKEN", " ")
    assert find_token() == "hf_login"


# --- Listing ---------------------------------------------------------------------------------


def test_listing(hub, client):
    listing = client.list_files(REPO)
    assert listing.revision == hub.repositories[REPO].revision
    assert {file.name: file.bytes for file in listing.files} == {"big.bin": 10_240, "small.txt": 3}
    assert len(only(listing, "big.bin").sha256) == 64
    assert only(listing, "small.txt").sha256 == ""


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/../../evil",
        "/etc/evil",
        "a//b",
        "C:evil",
        "a\\..\\evil",
        "..",
        "a/\x00b",
        "./a",
    ],
)
def test_names_that_leave_the_folder(hub, client, name):
    hub.repositories[REPO].files[name] = b"evil"
    with pytest.raises(WeightsError, match="no plain file name below its folder"):
        client.list_files(REPO)


def test_fetch_checks_the_name_itself(client, tmp_path):
    listing = client.list_files(REPO)
    with pytest.raises(WeightsError, match="no plain file name"):
        client.fetch(listing, RemoteFile("../big.bin", 10, ""), tmp_path / "inner")
    assert list(tmp_path.iterdir()) == []


def test_answer_that_is_no_listing(hub, client):
    hub.repositories[REPO].revision = "main; rm"
    with pytest.raises(WeightsError, match="no list of files of a commit"):
        client.list_files(REPO)


# --- Content ---------------------------------------------------------------------------------


def test_fetch(hub, client, tmp_path):
    listing = client.list_files(REPO)
    for file in listing.files:
        path = client.fetch(listing, file, tmp_path)
        assert path.read_bytes() == hub.repositories[REPO].files[file.name]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.bin", "small.txt"]
    content = [request for request in hub.requests if request.server == "content"]
    assert [request.token for request in content] == [""], "the token stays with the hub"


def test_fetch_goes_on_where_it_stopped(hub, client, tmp_path):
    listing = client.list_files(REPO)
    file = only(listing, "big.bin")
    (tmp_path / f"big.bin.{file.sha256[:12]}.partial").write_bytes(DATA[:4_000])
    assert client.fetch(listing, file, tmp_path).read_bytes() == DATA
    content = [request for request in hub.requests if request.server == "content"]
    assert [request.range for request in content] == ["bytes=4000-"]


def test_interrupted_fetch_keeps_what_came(hub, client, tmp_path, monkeypatch):
    listing = client.list_files(REPO)
    file = only(listing, "big.bin")
    hub.break_after = [3_000]

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        client.fetch(listing, file, tmp_path)
    (partial,) = tmp_path.iterdir()
    assert partial.read_bytes() == DATA[:3_000]
    assert client.fetch(listing, file, tmp_path).read_bytes() == DATA
    assert hub.requests[-1].range == "bytes=3000-"
    assert [path.name for path in tmp_path.iterdir()] == ["big.bin"]


def test_broken_connection_is_taken_up_again(hub, client, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    listing = client.list_files(REPO)
    hub.break_after = [2_000, 2_000]
    path = client.fetch(listing, only(listing, "big.bin"), tmp_path)
    assert path.read_bytes() == DATA
    ranges = [request.range for request in hub.requests if request.server == "content"]
    assert ranges == ["", "bytes=2000-", "bytes=4000-"]


def test_server_without_ranges(hub, client, tmp_path):
    hub.ranges = False
    listing = client.list_files(REPO)
    file = only(listing, "big.bin")
    (tmp_path / f"big.bin.{file.sha256[:12]}.partial").write_bytes(DATA[:4_000])
    assert client.fetch(listing, file, tmp_path).read_bytes() == DATA


def test_damaged_content_is_deleted(hub, client, tmp_path):
    hub.wrong_content = True
    listing = client.list_files(REPO)
    with pytest.raises(WeightsError, match="arrived damaged"):
        client.fetch(listing, only(listing, "big.bin"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_partial_of_other_content_is_not_continued(hub, client, tmp_path):
    (tmp_path / "big.bin.0123456789ab.partial").write_bytes(b"old" * 100)
    listing = client.list_files(REPO)
    assert client.fetch(listing, only(listing, "big.bin"), tmp_path).read_bytes() == DATA


def test_link_out_of_the_folder(hub, client, tmp_path):
    hub.repositories[REPO].files = {"sub/big.bin": DATA}
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    folder.mkdir()
    (folder / "sub").symlink_to(outside)
    listing = client.list_files(REPO)
    with pytest.raises(WeightsError, match="leads out of"):
        client.fetch(listing, listing.files[0], folder)
    assert list(outside.iterdir()) == []


def test_full_disk(hub, client, tmp_path, monkeypatch):
    listing = client.list_files(REPO)

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(WeightsError, match=re.escape("No space left on device; make room")):
        client.fetch(listing, only(listing, "big.bin"), tmp_path)
