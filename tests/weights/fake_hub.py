"""A model hub on loopback that answers as the real one does: gates, listings, redirects, ranges.

Two servers: the hub itself, and the content network to which it redirects for large files, on
another port and thus another origin.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

GOOD_TOKEN = "hf_good"
LARGE = 1_000  # bytes from which a file is stored on the content network

# Status, X-Error-Code and X-Error-Message as the hub sends them for a gated repository.
GATES = {
    "no token": (
        401,
        "GatedRepo",
        "Access to model {repo} is restricted. You must have access to it and be authenticated to "
        "access it. Please log in.",
    ),
    "invalid": (401, "", "Invalid credentials in Authorization header"),
    "not accepted": (
        403,
        "GatedRepo",
        "Access to model {repo} is restricted and you are not in the authorized list. Visit "
        "https://huggingface.co/{repo} to ask for access.",
    ),
    "pending": (
        403,
        "GatedRepo",
        "Your request to access model {repo} is awaiting a review from the repo authors.",
    ),
    "rejected": (
        403,
        "GatedRepo",
        "Your request to access model {repo} has been rejected by the repo's authors.",
    ),
    "scope": (
        403,
        "",
        "Please enable access to public gated repositories in your fine-grained token settings to "
        "view this repository.",
    ),
    "missing": (404, "RepoNotFound", "Repository not found"),
    "trouble": (503, "", ""),
    "proxy": (403, "", ""),
}


@dataclass
class Repository:
    """Files by name; gate: a key of GATES, or empty for access. revision: the commit."""

    files: dict[str, bytes]
    gated: bool = False
    gate: str = ""
    revision: str = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Request:
    server: str
    method: str
    path: str
    token: str
    range: str


@dataclass
class FakeHub:
    """What the servers know and what they were asked."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    endpoint: str = ""
    content: str = ""
    ranges: bool = True  # whether the content network honors Range
    break_after: list[int] = field(default_factory=list)  # bytes after which transfers break off
    wrong_content: bool = False

    def gate(self, repository: Repository, token: str) -> str:
        """Return the key in GATES that applies, or empty."""
        if token and token != GOOD_TOKEN:
            return "invalid"
        if repository.gate in ("missing", "trouble", "proxy"):
            return repository.gate
        if repository.gated and not token:
            return "no token"
        return repository.gate

    def fetched(self) -> list[str]:
        """Return the names of the files whose content was sent."""
        return [r.path.rpartition("/")[2] for r in self.requests if r.server == "content"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub
    name: str

    def log_message(self, *arguments: Any) -> None: ...

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        asked = self.headers.get("Range", "")
        self.hub.requests.append(Request(self.name, self.command, path, token, asked))
        for pattern, answer in self.routes:
            if match := re.fullmatch(pattern, path):
                answer(self, token, *match.groups())
                return
        self._send(404, {"X-Error-Code": "EntryNotFound"}, b"")

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _open(self, repo: str, token: str) -> Repository | None:
        """Return the repository, or answer why not."""
        repository = self.hub.repositories.get(repo, Repository({}, gate="missing"))
        gate = self.hub.gate(repository, token)
        if not gate:
            return repository
        status, code, text = GATES[gate]
        headers = {"X-Error-Code": code, "X-Error-Message": text.format(repo=repo)}
        body = json.dumps({"error": text.format(repo=repo)}).encode() if text else b""
        self._send(status, {k: v for k, v in headers.items() if v}, body)
        return None

    def auth_check(self, token: str, repo: str) -> None:
        if self._open(repo, token):
            self._send(200, {"Content-Type": "application/json"}, b'"OK"')

    def model_info(self, token: str, repo: str) -> None:
        repository = self._open(repo, token)
        if repository is None:
            return
        siblings = []
        for name, data in repository.files.items():
            sibling: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": "0" * 40}
            if len(data) >= LARGE:
                sha256 = hashlib.sha256(data).hexdigest()
                sibling["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 135}
            siblings.append(sibling)
        info = {"_id": "1", "id": repo, "modelId": repo, "sha": repository.revision}
        info |= {"private": False, "gated": "manual" if repository.gated else False}
        info |= {"tags": [], "downloads": 1, "likes": 1, "siblings": siblings}
        self._send(200, {"Content-Type": "application/json"}, json.dumps(info).encode())

    def resolve(self, token: str, repo: str, revision: str, name: str) -> None:
        repository = self._open(repo, token)
        if repository is None:
            return
        data = repository.files.get(name)
        if data is None or revision != repository.revision:
            self._send(404, {"X-Error-Code": "EntryNotFound"}, b"")
            return
        commit = {"X-Repo-Commit": repository.revision}
        if len(data) < LARGE:
            self._send(200, {**commit, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}, data)
            return
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        headers = {"X-Linked-Etag": etag, "X-Linked-Size": str(len(data))}
        location = f"{self.hub.content}/{repo}/{name}"
        self._send(302, {**commit, **headers, "Location": location}, b"")

    def send_content(self, token: str, repo: str, name: str) -> None:
        data = self.hub.repositories[repo].files[name]
        if self.hub.wrong_content:
            data = bytes(len(data))
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and self.hub.ranges:
            start = int(asked[1])
        headers = {"Content-Length": str(len(data) - start), "ETag": '"content"'}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if self.hub.break_after:
            self._send(206 if start else 200, headers, b"")
            self.wfile.write(data[start : start + self.hub.break_after.pop(0)])
            self.wfile.flush()
            self.connection.shutdown(2)
            self.close_connection = True
            return
        self._send(206 if start else 200, headers, data[start:])

    routes: Any = ()


class _Hub(_Handler):
    name = "hub"
    routes = (
        (r"/api/models/([^/]+/[^/]+)/auth-check", _Handler.auth_check),
        (r"/api/models/([^/]+/[^/]+)", _Handler.model_info),
        (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _Handler.resolve),
    )


class _Content(_Handler):
    name = "content"
    routes = ((r"/([^/]+/[^/]+)/(.+)", _Handler.send_content),)


@contextmanager
def serve() -> Iterator[FakeHub]:
    """Run both servers for the time of a `with` block."""
    hub = FakeHub()
    servers = []
    for handler in (_Hub, _Content):
        bound = type(handler.__name__, (handler,), {"hub": hub})
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), bound))
    hub.endpoint, hub.content = (f"http://127.0.0.1:{s.server_port}" for s in servers)
    threads = [threading.Thread(target=s.serve_forever, args=(0.02,)) for s in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


def files_below(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder by their path in it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
