"""An HTTP server with every bad habit that a download meets."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class Behaviour:
    """How one path is served. cuts: bytes sent before the line is cut, one entry a request, then no more cuts."""

    content: bytes
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    length: int | None = None
    status: int | None = None
    content_range: str | None = None
    fail_first: int = 0


class BadServer:
    """Serves `paths`; remembers each request's path and Range in `requests`."""

    def __init__(self):
        self.paths: dict[str, Behaviour] = {}
        self.requests: list[tuple[str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append((self.path, self.headers.get("Range")))
                outer.serve(self)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def serves(self, path, content, **behaviour):
        """Serve `content` at `path` in the manner of `Behaviour`; returns the address."""
        self.paths[path] = Behaviour(content, **behaviour)
        return self.url(path)

    def url(self, path):
        return f"http://127.0.0.1:{self.server.server_port}{path}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def serve(self, request):
        behaviour = self.paths.get(request.path)
        if behaviour is None:
            request.send_error(404)
            return
        if behaviour.fail_first:
            behaviour.fail_first -= 1
            request.send_error(503)
            return
        if behaviour.status:
            request.send_error(behaviour.status)
            return
        content, asked = behaviour.content, request.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and behaviour.ranges else 0
        if start >= len(content):
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        body = content[start:]
        if start:
            default = f"bytes {start}-{len(content) - 1}/{len(content)}"
            request.send_header("Content-Range", behaviour.content_range or default)
        request.send_header("Content-Length", str(behaviour.length or len(body)))
        request.end_headers()
        request.wfile.write(body[: behaviour.cuts.pop(0)] if behaviour.cuts else body)
        request.wfile.flush()
        request.close_connection = True


@pytest.fixture
def bad_server():
    """A local HTTP server that misbehaves as a test asks: `server.serves(path, content, cuts=[100])`."""
    server = BadServer()
    yield server
    server.close()
