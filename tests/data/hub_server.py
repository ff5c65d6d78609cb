"""A server on this machine that speaks as much of the Hugging Face Hub's API as data sets need, and fails on demand.

As on the Hub: `/api/datasets/NAME/revision/COMMIT` lists a commit's files with their checksums, `resolve` redirects to
another address for the content, which answers ranges, and which refuses a request that brings a token along. Errors
carry the Hub's headers (`X-Error-Code`). The log says what was asked and how many bytes were sent.
"""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = hashlib.sha1(b"first").hexdigest()
_SMALL = 1 << 10


@dataclass
class Request:
    """A line of the log."""

    method: str
    path: str
    start: int
    """First byte that was asked for."""
    authorization: str | None
    status: int = 0
    sent: int = 0
    """Bytes of content."""


@dataclass
class Hub:
    """What the server has, and how it misbehaves."""

    url: str = ""
    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    """Name, commit, path, content; the last commit is `main`."""
    log: list[Request] = field(default_factory=list)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Status and `X-Error-Code` for a repository, or for a file of one."""
    token: str | None = None
    """What the API asks for."""
    break_after: list[int] = field(default_factory=list)
    """Bytes after which the next answers with content end, one entry each."""
    stall: list[float] = field(default_factory=list)
    """Seconds for which the next answers with content wait before their first byte, one entry each."""
    failing: list[int] = field(default_factory=list)
    """Statuses of the next answers with content, one entry each."""
    ignores_ranges: bool = False
    pace: float = 0.0
    """Seconds between two kilobytes of content."""
    corrupt: set[str] = field(default_factory=set)
    """Names of files whose first byte comes out wrong."""

    def publish(self, name: str, files: dict[str, bytes], commit: str = COMMIT) -> None:
        """Add a commit, the new `main`."""
        self.repositories.setdefault(name, {})[commit] = files

    def contents(self) -> list[Request]:
        """The requests for content."""
        return [request for request in self.log if request.path.startswith("/content/")]


@contextmanager
def serving() -> Iterator[Hub]:
    """A server in a thread."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.request_line = Request(self.command, path, start, self.headers.get("Authorization"))
        self.hub.log.append(self.request_line)
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            self._info("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
        elif parts[0] == "datasets":
            self._resolve("/".join(parts[1:3]), parts[4], "/".join(parts[5:]))
        else:
            self._content("/".join(parts[1:3]), parts[3], "/".join(parts[4:]))

    def _commit(self, name: str, revision: str) -> str | None:
        """The commit, or None after an answer that says why not."""
        if self.hub.token and self.request_line.authorization != f"Bearer {self.hub.token}":
            return self._error(401, "RepoNotFound")
        if name in self.hub.refused:
            return self._error(*self.hub.refused[name])
        if name not in self.hub.repositories:
            return self._error(404, "RepoNotFound")
        commits = self.hub.repositories[name]
        commit = list(commits)[-1] if revision == "main" else revision
        return commit if commit in commits else self._error(404, "RevisionNotFound")

    def _info(self, name: str, revision: str) -> None:
        commit = self._commit(name, revision)
        if commit is None:
            return
        siblings = []
        for path, content in self.hub.repositories[name][commit].items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            sibling: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": blob}
            if len(content) > _SMALL:
                digest = hashlib.sha256(content).hexdigest()
                sibling |= {"blobId": "0" * 40, "lfs": {"sha256": digest, "size": len(content), "pointerSize": 130}}
            siblings.append(sibling)
        body = {"id": name, "sha": commit, "private": False, "gated": False, "disabled": False, "siblings": siblings}
        self._answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _resolve(self, name: str, revision: str, path: str) -> None:
        commit = self._commit(name, revision)
        if commit is None:
            return
        if f"{name}/{path}" in self.hub.refused:
            return self._error(*self.hub.refused[f"{name}/{path}"])
        content = self.hub.repositories[name][commit].get(path)
        if content is None:
            return self._error(404, "EntryNotFound")
        headers = {
            "Location": f"{self.hub.url.replace('127.0.0.1', 'localhost')}/content/{name}/{commit}/{path}",
            "X-Repo-Commit": commit,
            "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Linked-Size": str(len(content)),
            "ETag": f'"{commit}"',
        }
        self._answer(302, b"", headers)

    def _content(self, name: str, commit: str, path: str) -> None:
        hub, start = self.hub, self.request_line.start
        if self.request_line.authorization:
            return self._error(400, "TokenNotWanted")
        if hub.failing:
            return self._error(hub.failing.pop(0), "")
        content = hub.repositories[name][commit][path]
        if path in hub.corrupt:
            content = bytes([content[0] ^ 1]) + content[1:]
        ranged = "Range" in self.headers and not hub.ignores_ranges
        if ranged and start >= len(content):
            return self._error(416, "")
        body = content[start:] if ranged else content
        headers = {"ETag": '"x"', "Accept-Ranges": "bytes"}
        if ranged:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._answer(206 if ranged else 200, body, headers, slowly=True)

    def _error(self, status: int, code: str) -> None:
        self._answer(status, b"{}", {"X-Error-Code": code} if code else {})

    def _answer(self, status: int, body: bytes, headers: dict[str, str], slowly: bool = False) -> None:
        hub = self.hub
        self.request_line.status = status
        time.sleep(hub.stall.pop(0) if slowly and hub.stall else 0)
        end = hub.break_after.pop(0) if slowly and hub.break_after else len(body)
        try:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            for at in range(0, 0 if self.command == "HEAD" else min(end, len(body)), _SMALL if slowly else 1 << 20):
                piece = body[at : min(at + (_SMALL if slowly else 1 << 20), end)]
                self.wfile.write(piece)
                self.wfile.flush()
                self.request_line.sent += len(piece)
                time.sleep(hub.pace if slowly else 0)
        except OSError:
            self.close_connection = True  # the client has gone
        if end < len(body):
            self.close_connection = True
