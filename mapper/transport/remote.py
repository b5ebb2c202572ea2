"""A remote file as GDAL reads it: bytes asked for once, many ranges at a time."""

import io
import threading
from bisect import bisect_left, bisect_right
from concurrent.futures import Future
from typing import Any, Protocol

from rasterio.abc import MultiByteRangeResourceContainer

from mapper.errors import ReadError
from mapper.transport.address import host_name, is_object, unsigned
from mapper.transport.hosts import find_host
from mapper.transport.memory import Identity
from mapper.transport.policy import current_policy
from mapper.transport.ranges import WebFile
from mapper.transport.spans import Span, Spans, plan_pieces
from mapper.transport.traffic import Traffic

_AHEAD = 16 * 1024
"""Least bytes that a plain read asks for: GDAL reads headers in small steps."""


class Reach(Protocol):
    """How parts of a file are fetched."""

    def first(self, seen: Traffic) -> tuple[Identity, bytes]:
        """The first bytes."""

    def piece(self, start: int, end: int, seen: Traffic) -> bytes:
        """Bytes `start` to `end`, the end not in it."""


def reach(href: str) -> Reach:
    """The way to an address."""
    if is_object(href):
        from mapper.transport.objects import StoreFile

        return StoreFile(href)
    return WebFile(href)


class Contents:
    """Bytes of one file that have come in, and those on their way; safe for threads.

    No byte is asked for twice, whoever wants it. Raises: ReadError from every method that reads.
    """

    def __init__(self, href: str) -> None:
        """No request is made before the first read."""
        self._reach = reach(href)
        self._host = host_name(href)
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._identity: Identity | None = None
        self._starts: list[int] = []
        self._chunks: list[bytes] = []
        self._claimed = Spans()
        self._held = Spans()
        self._flying: dict[Span, Future[None]] = {}
        self._checked: set[Span] = set()
        self.held_bytes = 0

    def size(self, seen: Traffic) -> int:
        """Bytes of the file; the first call reads its beginning."""
        with self._opening:
            if self._identity is None:
                identity, body = self._reach.first(seen)
                self._claimed.add(0, len(body))
                self._keep(0, body)
                self._identity = identity
            return self._identity.size

    def read(self, offset: int, size: int, seen: Traffic) -> bytes:
        """Up to `size` bytes; fewer at the end of the file."""
        end = min(offset + size, self.size(seen))
        if offset >= end:
            return b""
        ahead = min(max(end, offset + _AHEAD), self.size(seen))
        with self._lock:
            missing = self._claimed.gaps(offset, end)
        self._want([(offset, ahead if missing else end)], seen)
        return self._slice(offset, end)

    def read_ranges(self, spans: list[Span], seen: Traffic) -> list[bytes]:
        """Several ranges at once, each whole."""
        size = self.size(seen)
        if any(end > size for _, end in spans):
            raise _OutsideError(size, max(end for _, end in spans))
        self._want(spans, seen)
        return [self._slice(start, end) for start, end in spans]

    def unchecked(self, span: Span) -> bytes | None:
        """Bytes that are all there and that nobody has called right yet; else None."""
        with self._lock:
            if span in self._checked or self._held.gaps(*span):
                return None
        return self._slice(*span)

    def passed(self, span: Span) -> None:
        """The bytes are right. Only after their check: other readers go by it at once."""
        with self._lock:
            self._checked.add(span)

    def _want(self, spans: list[Span], seen: Traffic) -> None:
        """Have the bytes of spans come in, and wait for all of them."""
        policy = current_policy()
        with self._lock:
            mine = plan_pieces(spans, self._claimed, policy.piece_bytes, policy.gap_bytes)
            for piece in mine:
                self._claimed.add(*piece)
                self._flying[piece] = Future()
            awaited = [
                flight
                for (a, b), flight in self._flying.items()
                if any(a < end and start < b for start, end in spans)
            ]
        host = find_host(self._host, policy)
        for piece in mine[1:]:
            host.start(lambda piece=piece: self._fetch(piece, seen))  # type: ignore[misc]
        if mine:
            self._fetch(mine[0], seen)
        for flight in awaited:
            flight.result()

    def _fetch(self, piece: Span, seen: Traffic) -> None:
        flight = self._flying[piece]
        try:
            body = self._reach.piece(*piece, seen)
        except BaseException as reason:
            flight.set_exception(reason)  # and it stays, for whoever wants these bytes later
            return
        with self._lock:
            self._keep(piece[0], body)
            del self._flying[piece]
        flight.set_result(None)

    def _keep(self, start: int, body: bytes) -> None:
        if body:
            at = bisect_left(self._starts, start)
            self._starts.insert(at, start)
            self._chunks.insert(at, body)
            self._held.add(start, start + len(body))
            self.held_bytes += len(body)

    def _slice(self, start: int, end: int) -> bytes:
        if start >= end:
            return b""
        with self._lock:
            first, last = bisect_right(self._starts, start) - 1, bisect_left(self._starts, end)
            held = list(zip(self._starts[first:last], self._chunks[first:last], strict=True))
        got = b"".join(memoryview(body)[max(0, start - at) : max(0, end - at)] for at, body in held)
        if len(got) != end - start:
            raise AssertionError(f"bytes {start} to {end} were wanted and are not all there")
        return got


class _OutsideError(Exception):
    """A file points behind its own end: it is cut off."""

    def __init__(self, size: int, end: int) -> None:
        super().__init__(f"it has {size} bytes and its blocks end at {end}: it is cut off")


class RemoteFile(MultiByteRangeResourceContainer):  # type: ignore[misc]
    """One remote file, as the one file of a GDAL file system.

    GDAL cannot carry an exception: the first one is kept in `failure`, nothing is asked for after
    it, and what GDAL gets instead is short or zero. Whoever opened the file has to look.
    """

    def __init__(self, href: str, contents: Contents, seen: Traffic) -> None:
        """No request is made."""
        self.href = href
        self.contents = contents
        self.seen = seen
        self.failure: BaseException | None = None

    def guarded(self, action: Any, otherwise: Any) -> Any:
        """What `action` returns, or `otherwise` now and from now on when it fails."""
        if self.failure is not None:
            return otherwise
        try:
            return action()
        except _OutsideError as reason:
            self.failure = ReadError(
                f"asset {unsigned(self.href)} cannot be read: {reason}; mend the file"
            )
        except BaseException as reason:
            self.failure = reason
        return otherwise

    def open(self, path: str, mode: str = "r", **options: Any) -> "_Handle":
        """A handle with a position of its own."""
        return _Handle(self)

    def isfile(self, path: str) -> bool:
        """Only the file itself is there: nothing beside it is looked for."""
        return bool(path == self.href)

    def isdir(self, path: str) -> bool:
        """There is no folder."""
        return False

    def ls(self, path: str) -> list[str]:
        """Nothing beside the file is shown."""
        return []

    def mtime(self, path: str) -> int:
        """Not known, and not looked at."""
        return 0

    def size(self, path: str) -> int:
        """Bytes of the file."""
        return int(self.guarded(lambda: self.contents.size(self.seen), 0))

    def rm(self, path: str) -> None:
        """Remote files are only read."""
        raise io.UnsupportedOperation("remote files are only read")


class _Handle:
    """A position in a remote file."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._at = 0

    def __enter__(self) -> "_Handle":
        return self

    def __exit__(self, *reason: object) -> None:
        pass

    def read(self, size: int = -1) -> bytes:
        file = self._file
        wanted = file.size(file.href) if size < 0 else size
        got = file.guarded(lambda: file.contents.read(self._at, wanted, file.seen), b"")
        self._at += len(got)
        return bytes(got)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at}.get(whence)
        self._at = offset + (self._file.size(self._file.href) if base is None else base)
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        pass

    def get_byte_ranges(self, offsets: list[int], sizes: list[int]) -> list[bytes]:
        file = self._file
        spans = [(start, start + size) for start, size in zip(offsets, sizes, strict=True)]
        got = file.guarded(lambda: file.contents.read_ranges(spans, file.seen), None)
        # as long as asked for even after a failure: GDAL copies that many bytes
        return got if got is not None else [bytes(size) for size in sizes]
