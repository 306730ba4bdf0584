"""The model hub: who may download what, what there is, and fetching it piece by piece.

Everything goes through huggingface_hub. The states of gated access are told apart by what the hub
answers, each with the one thing to do next.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from sam3d_nb.errors import WeightsError
from sam3d_nb.weights.folder import check_name, hash_file
from sam3d_nb.weights.status import GATED, REPOSITORIES

SITE = "https://huggingface.co"
TOKEN_VARIABLE = "HUGGINGFACE_TOKEN"
TIMEOUT = 20.0  # seconds to wait for an answer
MAX_FILES = 2_000


class Access(Enum):
    """What the hub says about this person and a repository."""

    GRANTED = "granted"
    NO_TOKEN = "no token"
    TOKEN_INVALID = "token invalid"
    TOKEN_SCOPE = "token without the right to read gated repositories"
    TERMS_NOT_ACCEPTED = "terms not accepted"
    PENDING = "request pending"
    REFUSED = "request refused"
    NOT_FOUND = "not found"
    OFFLINE = "hub access switched off"
    NETWORK_DOWN = "network down"
    HUB_TROUBLE = "the hub has trouble"


NEXT_STEPS = {
    Access.NO_TOKEN: "make a token with read access at {site}/settings/tokens and put it into "
    "the variable HUGGINGFACE_TOKEN, or run: {hf} auth login",
    Access.TOKEN_INVALID: "make a new token with read access at {site}/settings/tokens and put it "
    "into the variable HUGGINGFACE_TOKEN, or run: {hf} auth login --force",
    Access.TOKEN_SCOPE: "allow 'read access to contents of all public gated repos you can access' "
    "for your token at {site}/settings/tokens",
    Access.TERMS_NOT_ACCEPTED: "accept the terms at {site}/{repository} with the account that the "
    "token belongs to",
    Access.PENDING: "wait for the publisher's answer, which comes by e-mail; see "
    "{site}/settings/gated-repos",
    Access.REFUSED: "ask the publisher at {site}/{repository}, or use a model that is open; see "
    "{site}/settings/gated-repos",
    Access.NOT_FOUND: "look whether {site}/{repository} exists and whether your account may see it",
    Access.OFFLINE: "unset the variable HF_HUB_OFFLINE and run this again; see {site}/{repository}",
    Access.NETWORK_DOWN: "check the connection and the proxy with {site} in a browser, then run "
    "this again: what is downloaded stays",
    Access.HUB_TROUBLE: "wait a few minutes, look at https://status.huggingface.co, then run this "
    "again: what is downloaded stays",
}


class AccessError(WeightsError):
    """A repository cannot be reached. state: which of the reasons in `Access`.

    lacks_token: whether a token will be asked for that is not there, which is told ahead.
    """

    def __init__(
        self, state: Access, repository: str, detail: str = "", *, lacks_token: bool = False
    ) -> None:
        self.state = state
        self.repository = repository
        step = NEXT_STEPS[state]
        if lacks_token and state is Access.NETWORK_DOWN:
            step += f". A token is missing, too: {NEXT_STEPS[Access.NO_TOKEN]}"
        step = step.format(site=SITE, repository=repository, hf=_hf())
        said = f" ({detail})" if detail else ""
        super().__init__(f"{repository}: {state.value}{said}; {step}")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository. sha256: empty where the hub does not tell."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Listing:
    """Files of a repository at one revision, the commit's hash."""

    repository: str
    revision: str
    files: tuple[RemoteFile, ...]


class Hub:
    """One person's view of the hub. token: default as `find_token`. endpoint: its address."""

    def __init__(self, token: str | None = None, endpoint: str | None = None) -> None:
        from huggingface_hub import HfApi

        self.token = token or find_token()
        # False: without a token, never one that some other setting provides
        self._api = HfApi(endpoint=endpoint, token=self.token or False)

    def access(self, repository: str) -> Access:
        """Return whether this person may download from `repository`, and why not otherwise."""
        try:
            self.check_access(repository)
        except AccessError as error:
            return error.state
        return Access.GRANTED

    def check_access(self, repository: str) -> None:
        """Raise AccessError unless this person may download from `repository`."""
        with self._explained(repository):
            self._api.auth_check(repository)

    def list_files(self, repository: str) -> Listing:
        """Return the files of `repository` as they are now.

        Raises AccessError, and WeightsError for a list with names that leave their folder.
        """
        with self._explained(repository):
            info = self._api.model_info(repository, files_metadata=True, timeout=TIMEOUT)
        revision, siblings = info.sha or "", info.siblings or []
        if not re.fullmatch(r"[0-9a-f]{40}", revision) or len(siblings) > MAX_FILES:
            raise WeightsError(f"{repository}: the hub's answer is no list of files of a commit")
        return Listing(repository, revision, tuple(_remote_file(s, repository) for s in siblings))

    def fetch(self, listing: Listing, file: RemoteFile, folder: Path) -> Path:
        """Download a file below `folder`, going on where an earlier try stopped; check it.

        Replaces a file that is there. Returns its path. Raises AccessError, and WeightsError where
        it cannot be written or is not what the hub announced.
        """
        path = folder / check_name(file.name)
        if not path.resolve().is_relative_to(folder.resolve()):
            raise WeightsError(f"{path} is refused: a link in it leads out of {folder}")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_path(listing, file, folder)
        self._continue(listing, file, partial)
        size = partial.stat().st_size
        if size != file.bytes or (file.sha256 and hash_file(partial) != file.sha256):
            partial.unlink()
            raise WeightsError(
                f"{listing.repository}: {file.name} arrived damaged ({size} of {file.bytes} bytes "
                "or another SHA-256) and was deleted; run this again"
            )
        os.replace(partial, path)
        return path

    def _continue(self, listing: Listing, file: RemoteFile, partial: Path) -> None:
        """Append what is missing to `partial`."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        there = partial.stat().st_size if partial.is_file() else 0
        if there > file.bytes:
            partial.unlink()
            there = 0
        if there == file.bytes:
            partial.touch()
            return
        url = hf_hub_url(
            listing.repository,
            file.name,
            revision=listing.revision,
            endpoint=self._api.endpoint,
        )
        with self._explained(listing.repository), open(partial, "ab") as output:
            http_get(
                url,
                output,
                resume_size=there,
                headers=build_hf_headers(token=self.token or False),
                expected_size=file.bytes,
                displayed_filename=file.name,
            )

    @contextmanager
    def _explained(self, repository: str) -> Iterator[None]:
        """Turn what huggingface_hub raises into AccessError or WeightsError."""
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        gated = (REPOSITORIES[name][0] for name in GATED)
        lacks_token = not self.token and repository in gated
        try:
            yield
        except OfflineModeIsEnabled as error:
            raise AccessError(Access.OFFLINE, repository) from error
        except HfHubHTTPError as error:
            state = self._state(error)
            detail = "" if error.response is None else f"HTTP {error.response.status_code}"
            raise AccessError(state, repository, detail, lacks_token=lacks_token) from error
        except (httpx2.HTTPError, ConnectionError, TimeoutError) as error:
            detail = type(error).__name__
            state = Access.NETWORK_DOWN
            raise AccessError(state, repository, detail, lacks_token=lacks_token) from error
        except OSError as error:
            raise WeightsError(
                f"{repository}: the download stopped: {error.strerror or error}; make room or "
                "choose another folder with --folder, then run this again: what is downloaded stays"
            ) from error

    def _state(self, error: Any) -> Access:
        """Tell which state an answer of the hub means."""
        response = error.response
        status = response.status_code
        code = response.headers.get("X-Error-Code", "")
        said = " ".join([response.headers.get("X-Error-Message", ""), error.server_message or ""])
        said = said.lower()
        if status >= 500 or status in (408, 429):
            return Access.HUB_TROUBLE
        if status == 401:
            return Access.TOKEN_INVALID if self.token else Access.NO_TOKEN
        if status == 403 and not code and not said.strip():
            return Access.NETWORK_DOWN  # not the hub's words: a proxy stands between
        if "fine-grained" in said or ("token" in said and "permission" in said):
            return Access.TOKEN_SCOPE
        if code == "GatedRepo" or status == 403:
            if "await" in said or "pending" in said:
                return Access.PENDING
            if "reject" in said:
                return Access.REFUSED
            return Access.TERMS_NOT_ACCEPTED
        return Access.NOT_FOUND if status == 404 else Access.HUB_TROUBLE


def _hf() -> str:
    """Return how to call the hub's own command, also where the environment is not activated."""
    beside = Path(sys.executable).with_name("hf")
    return "hf" if shutil.which("hf") or not beside.exists() else str(beside)


def find_token() -> str | None:
    """Return $HUGGINGFACE_TOKEN, else the token that `hf auth login` stored, else None."""
    from huggingface_hub import get_token

    return (os.environ.get(TOKEN_VARIABLE) or "").strip() or get_token()


def _remote_file(sibling: Any, repository: str) -> RemoteFile:
    name, size, large = sibling.rfilename, sibling.size, sibling.lfs
    sha256 = (large.sha256 if large is not None else "") or ""
    if not isinstance(name, str) or type(size) is not int or size < 0:
        raise WeightsError(f"{repository}: the hub's list has a file without a size: {name!r}")
    return RemoteFile(check_name(name), size, sha256)


def partial_path(listing: Listing, file: RemoteFile, folder: Path) -> Path:
    """Return where the bytes of an unfinished download lie; other content, another place."""
    path = folder / check_name(file.name)
    return path.with_name(f"{path.name}.{(file.sha256 or listing.revision)[:12]}.partial")
