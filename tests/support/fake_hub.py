"""A stand-in for a hub: the few addresses of its API that ``paraedge push`` and ``pull`` use, on this machine."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "secret" * 5
COMMIT = "c" * 40


class FakeHub(ThreadingHTTPServer):
    """Repositories by name, each a dict of files; writing needs :data:`TOKEN`.

    Attributes:
        repositories: ``user/name`` -> path -> bytes.
        private: names that only the token may read.
        answers: path of a file -> (status, chunks) sent in place of it.
        seen: method, path and Authorization of every request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.answers: dict[str, tuple[int, Iterator[bytes]]] = {}
        self.seen: list[tuple[str, str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self._path()
        repo = self._repository(path)
        if repo is None:
            return
        files = self.server.repositories[repo]
        if path.startswith("/api/models/"):
            if "/revision/" in path and path.rpartition("/")[2] not in ("main", COMMIT):
                self._json({"error": "no"}, 404, {"X-Error-Code": "RevisionNotFound"})
                return
            siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
            self._json({"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "tags": [], "downloads": 0})
            return
        name = path.partition(f"/resolve/{COMMIT}/")[2]
        if name in self.server.answers:
            status, chunks = self.server.answers[name]
            self.send_response(status)
            self.end_headers()
            with contextlib.suppress(OSError):
                for chunk in chunks:
                    self.wfile.write(chunk)
        elif name in files:
            self._send(200, files[name], "application/octet-stream")
        else:
            self._json({"error": "no"}, 404, {"X-Error-Code": "EntryNotFound"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        path = self._path()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._json({"error": "who are you"}, 401)
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            if name in self.server.repositories:
                self._json({"error": "there", "url": f"{self.server.address}/{name}"}, 409)
                return
            self.server.repositories[name] = {".gitattributes": b""}
            if asked.get("private") or asked.get("visibility") == "private":
                self.server.private.add(name)
            self._json({"url": f"{self.server.address}/{name}", "id": name, "name": name})
        elif path.endswith("/preupload/main"):
            asked = json.loads(body)["files"]
            self._json({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]})
        elif path.endswith("/commit/main"):
            self._commit(self.server.repositories["/".join(path.split("/")[3:5])], body)
            url = f"{self.server.address}{path.replace('/api/models', '')}/{COMMIT}"
            self._json({"commitUrl": url.replace("/commit/main", "/commit"), "commitOid": COMMIT})
        else:  # /api/validate-yaml
            self._json({"errors": [], "warnings": []})

    def _commit(self, files: dict[str, bytes], body: bytes) -> None:
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "deletedFile":
                del files[value["path"]]

    def _path(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.server.seen.append((self.command, path, self.headers.get("Authorization")))
        return path

    def _repository(self, path: str) -> str | None:
        parts = path.removeprefix("/api/models").split("/")
        name = "/".join(parts[1:3])
        is_known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if name in self.server.repositories and (is_known or name not in self.server.private):
            return name
        self._json({"error": "no"}, 404 if is_known else 401, {"X-Error-Code": "RepoNotFound"})
        return None

    def _json(self, document: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(document).encode(), "application/json", headers)

    def _send(self, status: int, data: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextlib.contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A hub that runs while the block does."""
    with FakeHub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
