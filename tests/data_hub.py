"""A model hub on loopback with one data set: as much of the hub's HTTP interface as `datasets` asks for."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

REVISION = "a" * 40


@dataclass(frozen=True)
class Hub:
    """What a process must be told to use it, with a cache of its own."""

    address: str
    cache: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"HF_ENDPOINT": self.address, "HF_HOME": str(self.cache), "HF_HUB_DISABLE_TELEMETRY": "1"}


@contextmanager
def serving(name: str, files: Mapping[str, bytes], cache: Path) -> Iterator[Hub]:
    """A hub that has the data set `name`, for as long as the block runs."""
    tree = [
        {"type": "file", "path": path, "size": len(content), "oid": sha1(content).hexdigest()}
        for path, content in files.items()
    ]
    about = {"id": name, "sha": REVISION, "siblings": [{"rfilename": path} for path in files]}

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            file = path.removeprefix(f"/datasets/{name}/resolve/").partition("/")[2]
            if path in {f"/api/datasets/{name}{each}" for each in ("", "/revision/main", f"/revision/{REVISION}")}:
                self._send(200, json.dumps(about).encode())
            elif path.startswith(f"/api/datasets/{name}/tree/"):
                self._send(200, json.dumps(tree if path.endswith(REVISION) else []).encode())
            elif path.startswith(f"/datasets/{name}/resolve/") and file in files:
                named = {"X-Repo-Commit": REVISION, "ETag": f'"{sha1(files[file]).hexdigest()}"'}
                self._send(200, files[file], **named)
            else:
                mine = path.startswith((f"/datasets/{name}/", f"/api/datasets/{name}/"))
                self._send(404, b"{}", **{"X-Error-Code": "EntryNotFound" if mine else "RepoNotFound"})

        def do_HEAD(self) -> None:
            self.do_GET()

        def _send(self, code: int, content: bytes, **headers: str) -> None:
            self.send_response(code)
            for key, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        Thread(target=server.serve_forever, name="hub", daemon=True).start()
        try:
            yield Hub(f"http://127.0.0.1:{server.server_port}", cache)
        finally:
            server.shutdown()
