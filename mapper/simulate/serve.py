"""Loopback servers over an archive: files with byte ranges, and a STAC API."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mapper.errors import CatalogError, UsageError
from mapper.simulate.archive import read_items
from mapper.store.files import write_json

_WAIT = 20.0
"""Seconds a server may take to answer for the first time."""


def _file_app(directory: Path, fail_first: int, truncate: Mapping[str, int]) -> Any:
    """An ASGI app that answers GET and HEAD, ranges included, for files under `directory`."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import FileResponse, Response
    from starlette.routing import Route

    root = directory.resolve()
    failures: Counter[str] = Counter()

    async def answer(request: Request) -> Response:
        name = request.path_params["path"]
        path = (root / name).resolve()
        if not path.is_relative_to(root) or not await run_in_threadpool(path.is_file):
            return Response("no such file", status_code=404)
        if failures[name] < fail_first:
            failures[name] += 1
            return Response("simulated failure", status_code=500)
        size = next((n for end, n in truncate.items() if name.endswith(end)), None)
        if size is None:
            return FileResponse(path)
        return _cut(path, size, request.headers.get("range"))

    return Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "HEAD"])])


def _cut(path: Path, size: int, wanted: str | None) -> Any:
    """Answer as if the file ended after `size` bytes."""
    from starlette.responses import Response

    content = path.read_bytes()[:size]
    if wanted is None:
        return Response(content, headers={"accept-ranges": "bytes"})
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    start = int(first) if first else max(0, len(content) - int(last))
    stop = min(int(last) + 1, len(content)) if first and last else len(content)
    if start >= len(content):
        return Response(status_code=416, headers={"content-range": f"bytes */{len(content)}"})
    span = f"bytes {start}-{stop - 1}/{len(content)}"
    headers = {"content-range": span, "accept-ranges": "bytes"}
    return Response(content[start:stop], status_code=206, headers=headers)


@contextlib.contextmanager
def serve_files(
    directory: Path, *, fail_first: int = 0, truncate: Mapping[str, int] | None = None
) -> Iterator[str]:
    """Serve a folder over HTTP with byte ranges on a free loopback port; yields its address.

    fail_first: answer 500 to the first n requests for each file. truncate: bytes after which a
    file seems to end, by the end of its path.
    """
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    app = _file_app(directory, fail_first, truncate or {})
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="off", ws="none", log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=_WAIT)
        listener.close()


@contextlib.contextmanager
def serve_api(catalog: Path, base: str | None = None) -> Iterator[str]:
    """Serve an archive's items with `rustac serve` on a free loopback port; yields its address.

    catalog: `catalog.json` of an archive. base: address that serves the archive's files (see
    `serve_files`); without it assets are absolute paths.
    """
    with tempfile.TemporaryDirectory(prefix="simulated-api-") as folder:
        hrefs = _api_documents(catalog, base, Path(folder))
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        log = Path(folder) / "log"
        with log.open("wb") as sink:
            process = subprocess.Popen(  # noqa: S603 the command and its arguments are our own
                [_rustac(), "serve", *hrefs, "--addr", f"127.0.0.1:{port}"],
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        try:
            address = f"http://127.0.0.1:{port}"
            _await(address, process, log)
            yield address
        finally:
            process.terminate()
            try:
                process.wait(timeout=_WAIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _rustac() -> str:
    """The command that comes with the rustac package, from this environment first."""
    beside = Path(sys.executable).with_name("rustac")
    command = str(beside) if beside.exists() else shutil.which("rustac")
    if command is None:
        raise UsageError("no `rustac` command beside this Python or on PATH; install rustac")
    return command


def _api_documents(catalog: Path, base: str | None, folder: Path) -> list[str]:
    """Collections without item links, and one item collection, as files to load."""
    hrefs = []
    for path in sorted(catalog.parent.glob("*/collection.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        document["links"] = []
        target = folder / f"{document['id']}.json"
        write_json(target, document)
        hrefs.append(str(target))
    features = read_items(catalog, base)
    write_json(folder / "items.json", {"type": "FeatureCollection", "features": features})
    return [*hrefs, str(folder / "items.json")]


def _await(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return when the server answers; raises CatalogError with its log where it does not."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _WAIT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with opener.open(address, timeout=2):
                return
        except OSError:
            time.sleep(0.05)
    tail = log.read_text(encoding="utf-8", errors="replace")[-500:]
    raise CatalogError(f"`rustac serve` does not answer at {address}: {tail}")
