"""Recorded and invented items, and small servers, for the tests of `mapper.catalog`."""

import contextlib
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from shapely.geometry import box, mapping
from shapely.ops import unary_union

from mapper.area.grid import WGS84, project
from mapper.catalog.source import ItemList
from mapper.simulate import TEST_CITIES, WorldOptions, write_archive

OPTIONS = WorldOptions(margin_m=600, bands=("green", "red", "nir", "swir16"), highres=False)


@pytest.fixture(scope="session")
def recorded(archive):
    """Items of a collection as their archive served them."""

    def load(collection):
        paths = sorted((archive / "stac" / collection).glob("*.json"))
        assert paths, collection
        return [json.loads(path.read_text()) for path in paths]

    return load


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    """`catalog.json` of a small simulated archive."""
    return write_archive(tmp_path_factory.mktemp("world"), TEST_CITIES, OPTIONS)


@pytest.fixture(scope="session")
def scene():
    """An invented Sentinel-2 item over some tiles."""

    def make(
        name, tiles=(), *, bands=("red", "green", "nir", "scl"), collection=None, **properties
    ):
        defaults = {"datetime": "2022-06-01T10:00:00Z", "platform": "sentinel-2a"}
        item = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": name,
            "properties": defaults | {k.replace("__", ":"): v for k, v in properties.items()},
            "links": [],
            "assets": {b: {"href": f"/nowhere/{name}/{b}.tif"} for b in bands},
        }
        if collection:
            item["collection"] = collection
        if tiles:
            ground = unary_union([_ground(key) for key in tiles]).buffer(-0.02)
            item |= {"geometry": mapping(ground), "bbox": list(ground.bounds)}
        return item

    return make


def _ground(key):
    return project(box(*key.grid.bounds_of(key.box)), key.grid.crs, WGS84)


@pytest.fixture(scope="session")
def opener():
    """Opens invented items whatever the address."""

    def make(*items):
        return lambda address: ItemList(list(items))

    return make


@pytest.fixture
def serve():
    """Serve documents by path; yields the address and how often each path was asked for."""
    with contextlib.ExitStack() as stack:

        def start(documents, *, fail_first=0, status=None):
            asked = Counter()

            class Handler(BaseHTTPRequestHandler):
                def do_GET(self):
                    path = self.path.partition("?")[0]
                    asked[path] += 1
                    code = (status or {}).get(path, 200 if path in documents else 404)
                    if asked[path] <= fail_first:
                        code = 500
                    content = documents.get(path, "nothing here") if code == 200 else "no"
                    if not isinstance(content, str):
                        base = f"http://127.0.0.1:{self.server.server_address[1]}"
                        content = json.dumps(content).replace("{base}", base)
                    body = content.encode()
                    length = int(self.headers.get("Content-Length") or 0)
                    self.rfile.read(length)
                    self.send_response(code)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(body)

                do_POST = do_HEAD = do_GET  # noqa: N815

                def log_message(self, *args):
                    pass

            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            thread.start()
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_address[1]}", asked

        yield start
