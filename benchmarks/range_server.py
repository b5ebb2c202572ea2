"""A folder over HTTP/1.1 with ranges and keep-alive, a latency of one's choice, and counts.

A process of its own: one event loop, files sent by the kernel (`sendfile`), so that it costs a
two-core machine little and is not what limits a reader. The latency is waited before the first
byte of each answer; waiting answers do not wait for each other. It listens on loopback.

    GET /_counts            {"requests": ..., "bytes": ..., "connections": ..., "by_status": ...}
    POST /_reset            counts from zero
    POST /_latency?ms=50    from now on

    python benchmarks/range_server.py FOLDER --port 8800 --latency-ms 50
"""

import argparse
import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

_RANGE = re.compile(rb"bytes=(\d*)-(\d*)$")
_LONGEST_HEAD = 65536
_REASONS = {200: "OK", 206: "Partial Content", 404: "Not Found", 416: "Range Not Satisfiable"}
_REASONS |= {400: "Bad Request"}


@dataclass(slots=True)
class Counts:
    """What has been asked for and sent; the counting requests themselves are left out."""

    requests: int = 0
    sent: int = 0
    """Bytes of bodies."""
    connections: int = 0
    by_status: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """As the server answers it."""
        found = {"requests": self.requests, "bytes": self.sent}
        found |= {"connections": self.connections}
        return json.dumps(found | {"by_status": self.by_status}).encode()


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    query: str
    headers: dict[bytes, bytes]

    @property
    def stays(self) -> bool:
        """True where the connection is kept."""
        return self.headers.get(b"connection", b"").lower() != b"close"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: str = ""
    body: bytes = b""
    file: BinaryIO | None = None
    start: int = 0
    length: int = 0
    """Of the body, or of what HEAD says of it."""


class RangeServer:
    """Answers requests for the files below a folder."""

    def __init__(self, folder: Path, latency: float) -> None:
        """Latency in seconds."""
        self.folder = folder.resolve()
        self.latency = latency
        self.counts = Counts()
        self.files: dict[str, BinaryIO] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket) -> None:
        """Accept connections for ever."""
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listener)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            self.counts.connections += 1
            task = loop.create_task(self._talk(connection))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _talk(self, connection: socket.socket) -> None:
        """One connection, request after request."""
        loop = asyncio.get_running_loop()
        waiting = b""
        with connection, suppress(OSError, ValueError):
            while True:
                while b"\r\n\r\n" not in waiting:
                    part = await loop.sock_recv(connection, 16384)
                    if not part or len(waiting) > _LONGEST_HEAD:
                        return
                    waiting += part
                head, _, waiting = waiting.partition(b"\r\n\r\n")
                request = _parse(head)
                # bodies are not expected; one that comes is passed over
                waiting = waiting[int(request.headers.get(b"content-length", b"0")) :]
                await self._answer(connection, request)
                if not request.stays:
                    return

    async def _answer(self, connection: socket.socket, request: _Request) -> None:
        loop = asyncio.get_running_loop()
        answer = self._control(request)
        if answer is None:
            if self.latency:
                await asyncio.sleep(self.latency)
            answer = self._file(request)
            self._count(request, answer)
        text = f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\n"
        text += f"Content-Length: {answer.length}\r\nAccept-Ranges: bytes\r\n{answer.headers}\r\n"
        await loop.sock_sendall(connection, text.encode() + answer.body)
        if answer.file is not None and request.method != "HEAD" and answer.length:
            await _send(loop, connection, answer)

    def _count(self, request: _Request, answer: _Answer) -> None:
        counts = self.counts
        counts.requests += 1
        counts.sent += 0 if request.method == "HEAD" else answer.length
        status = str(answer.status)
        counts.by_status[status] = counts.by_status.get(status, 0) + 1

    def _control(self, request: _Request) -> _Answer | None:
        """Answers about the server itself; None for a file."""
        if request.path == "/_counts":
            body = self.counts.to_json()
        elif request.path == "/_reset":
            self.counts, body = Counts(), b"{}"
        elif request.path == "/_latency":
            self.latency, body = float(request.query.removeprefix("ms=")) / 1000, b"{}"
        else:
            return None
        return _Answer(200, "Content-Type: application/json\r\n", body, length=len(body))

    def _file(self, request: _Request) -> _Answer:
        """A file, a range of it, or why not."""
        file = self._open(request.path)
        if file is None or request.method not in {"GET", "HEAD"}:
            return _Answer(404)
        status = os.fstat(file.fileno())
        told = f'ETag: "{status.st_size:x}-{status.st_mtime_ns:x}"\r\nContent-Type: image/tiff\r\n'
        asked = request.headers.get(b"range")
        if asked is None:
            return _Answer(200, told, file=file, length=status.st_size)
        start, end = _extent(asked, status.st_size)
        if start >= end:
            return _Answer(416, f"Content-Range: bytes */{status.st_size}\r\n")
        told += f"Content-Range: bytes {start}-{end - 1}/{status.st_size}\r\n"
        return _Answer(206, told, file=file, start=start, length=end - start)

    def _open(self, path: str) -> BinaryIO | None:
        """An open file below the folder; files stay open, the kernel is given offsets."""
        if path not in self.files:
            place = (self.folder / path.lstrip("/")).resolve()
            if not place.is_relative_to(self.folder) or not place.is_file():
                return None
            self.files[path] = place.open("rb")
        return self.files[path]


def _parse(head: bytes) -> _Request:
    """The request's line and headers. Raises: ValueError where it is none."""
    first, *lines = head.split(b"\r\n")
    method, target, _ = first.decode("ascii").split(" ")
    headers = {}
    for line in lines:
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip()
    parts = urlsplit(target)
    return _Request(method, unquote(parts.path), parts.query, headers)


def _extent(asked: bytes, size: int) -> tuple[int, int]:
    """Start and end of one range; empty where it cannot be had."""
    found = _RANGE.match(asked)
    if not found or found.groups() == (b"", b""):
        return 0, 0
    first, last = found.groups()
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size


async def _send(
    loop: asyncio.AbstractEventLoop, connection: socket.socket, answer: _Answer
) -> None:
    """Part of a file by `sendfile`, which leaves the file's own position alone."""
    assert answer.file is not None
    file, out = answer.file.fileno(), connection.fileno()
    start, end = answer.start, answer.start + answer.length
    while start < end:
        try:
            sent = os.sendfile(out, file, start, end - start)
        except BlockingIOError:
            await _writable(loop, out)
            continue
        if not sent:
            raise OSError("the file has become shorter")
        start += sent


async def _writable(loop: asyncio.AbstractEventLoop, out: int) -> None:
    """Wait until a socket takes more."""
    ready = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(out, tell)
    try:
        await ready
    finally:
        loop.remove_writer(out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A running server, seen from outside."""

    address: str

    def counts(self) -> dict[str, Any]:
        """Since the last reset."""
        return dict(json.loads(self._ask("/_counts")))

    def reset(self, latency_ms: float) -> None:
        """Counts from zero, with this latency from now on."""
        self._ask("/_reset", b"")
        self._ask(f"/_latency?ms={latency_ms:g}", b"")

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        with urllib.request.urlopen(self.address + path, data=body, timeout=10) as answer:
            return bytes(answer.read())


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """A server of a folder on a free port, in a process of its own, ended at the end."""
    command = [sys.executable, str(Path(__file__)), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Served(address=process.stdout.readline().strip())
        finally:
            process.terminate()


def main() -> None:
    """Serve, and say where on the first line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--latency-ms", type=float, default=0)
    wanted = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", wanted.port), backlog=512)
    listener.setblocking(False)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    with suppress(KeyboardInterrupt):
        asyncio.run(RangeServer(wanted.folder, wanted.latency_ms / 1000).serve(listener))


if __name__ == "__main__":
    main()
