"""A COCO folder with every kind of JPEG a loader meets, and an HTTP server with every bad habit a download meets."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

KINDS = ("rgb", "grey", "cmyk", "portrait", "square")


def picture(rng, width, height, mode="RGB"):
    """A smooth random image: JPEG keeps it well, so that pixels can be compared."""
    channels = {"RGB": 3, "L": 1, "CMYK": 4}[mode]
    coarse = rng.integers(0, 256, (6, 6, channels), dtype=np.uint8)
    grids = [Image.fromarray(coarse[..., c]) for c in range(channels)]
    planes = [grid.resize((width, height), Image.Resampling.BICUBIC) for grid in grids]
    return planes[0] if channels == 1 else Image.merge(mode, planes)


def write_coco(folder: Path, count=13, split="train2017", seed=0) -> Path:
    """`count` images of all kinds with 1 to 3 boxes each, ids from 100. Returns the annotation file."""
    rng = np.random.default_rng(seed)
    (folder / split).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    images, annotations = [], []
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        width, height = {"portrait": (90, 160), "square": (120, 120)}.get(kind, (160, 90 + number))
        name = f"{100 + number:012d}.jpg"
        mode = {"grey": "L", "cmyk": "CMYK"}.get(kind, "RGB")
        picture(rng, width, height, mode).save(folder / split / name, quality=95)
        images.append({"id": 100 + number, "file_name": name, "width": width, "height": height})
        for _ in range(1 + number % 3):
            x, y = rng.uniform(0, 0.5, 2) * (width, height)
            w, h = rng.uniform(0.2, 0.5, 2) * (width, height)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 100 + number,
                    "category_id": int(rng.choice([1, 7, 90])),
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
    path = folder / f"annotations/instances_{split}.json"
    categories = [{"id": key, "name": f"thing {key}"} for key in (1, 7, 90)]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.fixture
def coco(tmp_path):
    """A COCO folder of 13 training and 11 validation images; the test may damage it."""
    folder = tmp_path / "coco"
    write_coco(folder)
    write_coco(folder, 11, "val2017", seed=1)
    return folder


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
