"""Whole files: fetched, copied, or told by their fingerprint."""

import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mapper.errors import ReadError
from mapper.transport.address import is_object, is_web, unsigned
from mapper.transport.memory import Identity
from mapper.transport.tokens import ask_signed
from mapper.transport.traffic import Traffic, counting
from mapper.transport.tries import PassingError
from mapper.transport.web import Answer, Question, ask

SHA256 = "1220"
"""Head of a multihash of SHA-256 in hex: its code and its length of 32 bytes."""
_NO_HEAD = frozenset({405, 501})


class _SinkError(Exception):
    """The disk refused, told apart from a broken connection, which is an OSError as well."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def fetch(href: str) -> bytes:
    """A small file as it is: JSON, a map tile. Paths are read too.

    Raises: ReadError; its kind `AbsentError` where nothing is at the address.
    """
    seen = counting()
    if is_web(href):
        return ask_signed(href, lambda address: _whole(href, address, seen), seen).body
    parts: list[bytes] = []
    _stream(href, parts.clear, parts.append, seen)
    return b"".join(parts)


def copy_file(href: str, path: Path | str, expected: str = "") -> None:
    """Copy an asset to a local file, which is there whole or not at all.

    `expected` is a STAC `file:checksum`, a multihash in hex; only SHA-256 is checked, others are
    refused. Broken transfers begin anew.

    Raises: ReadError where the size is not the one promised, or the checksum is another; OSError,
        without another try, where the disk refuses.
    """
    target = Path(path)
    if expected and not (expected.startswith(SHA256) and len(expected) == len(SHA256) + 64):
        raise ReadError(
            f"asset {unsigned(href)} has the checksum {expected!r}, which is not SHA-256 "
            "(1220 and 64 hex digits); mend the catalog"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        found = SHA256 + _write(href, part)
        if expected and found != expected.lower():
            raise ReadError(
                f"asset {unsigned(href)} has the checksum {found}, its item promises {expected}; "
                "mend the catalog"
            )
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _write(href: str, part: Path) -> str:
    """Write an asset to a file. Returns: its SHA-256 in hex."""
    with part.open("wb") as file:
        state = {"digest": hashlib.sha256()}

        def begin() -> None:
            file.seek(0)
            file.truncate()
            state["digest"] = hashlib.sha256()

        def take(body: bytes) -> None:
            try:
                file.write(body)
            except OSError as reason:
                raise _SinkError(reason) from reason
            state["digest"].update(body)

        try:
            _stream(href, begin, take, counting())
        except _SinkError as refused:
            raise refused.reason from None
        file.flush()
        os.fsync(file.fileno())
    return state["digest"].hexdigest()


def _stream(
    href: str, begin: Callable[[], Any], take: Callable[[bytes], Any], seen: Traffic
) -> None:
    """All bytes of an asset, from the beginning again after `begin` where a transfer breaks.

    `take` raises no OSError.
    """
    if is_web(href):

        def attempt(address: str) -> None:
            begin()
            _whole(href, address, seen, take)

        ask_signed(href, attempt, seen)
    elif is_object(href):
        from mapper.transport.objects import StoreFile

        begin()
        StoreFile(href).stream(take, seen)
    else:
        begin()
        try:
            with Path(href).open("rb") as source:
                while body := source.read(1024 * 1024):
                    take(body)
        except OSError as reason:
            raise _no_file(href, reason) from reason


def _whole(
    href: str, address: str, seen: Traffic, sink: Callable[[bytes], Any] | None = None
) -> Answer:
    answer = ask(Question(href=address), seen, sink)
    check_whole(answer, href)
    return answer


def check_whole(answer: Answer, href: str) -> None:
    """Refuse an answer that is not the file itself, or of which nothing tells whether it is whole.

    Raises: PassingError where it is another status than 200 or has no length; ReadError where it
        is encoded, since nothing here decodes it.
    """
    if answer.status != 200:
        raise PassingError(f"its host answers {answer.status}")
    encoding = answer.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in {"", "identity"}:
        raise ReadError(f"asset {unsigned(href)} is sent {encoding} encoded; mend its server")
    chunked = answer.headers.get("Transfer-Encoding", "").lower() == "chunked"
    if "Content-Length" not in answer.headers and not chunked:
        raise PassingError("its host does not say how long it is")


def size_of(href: str) -> int:
    """Bytes of an asset, as its host tells; -1 where it does not.

    Raises: ReadError where there is no such file or the server refuses.
    """
    if is_web(href):
        return _head(href).size
    if is_object(href):
        from mapper.transport.objects import StoreFile

        return StoreFile(href).head(counting()).size
    try:
        return Path(href).stat().st_size
    except OSError as reason:
        raise _no_file(href, reason) from reason


def fingerprint(href: str) -> str:
    """What tells one content of an address from another: an ETag, or size and time of a file.

    Returns: the size where there is no ETag, an empty string where there is nothing to go by.

    Raises: ReadError where there is no such file or the server refuses.
    """
    if is_web(href):
        return _told(_head(href))
    if is_object(href):
        from mapper.transport.objects import StoreFile

        return _told(StoreFile(href).head(counting()))
    if "://" in href:
        return ""
    try:
        status = Path(href).stat()
    except OSError as reason:
        raise _no_file(href, reason) from reason
    return f"{status.st_size}-{status.st_mtime_ns}"


def _told(identity: Identity) -> str:
    return identity.tag.strip('"') or (str(identity.size) if identity.size >= 0 else "")


def _head(href: str) -> Identity:
    """ETag and size (-1: not told) by HEAD, or by a range of one byte where HEAD is not allowed."""
    seen = counting()

    def attempt(address: str) -> Identity:
        answer = ask(Question(href=address, method="HEAD", allowed=_NO_HEAD), seen)
        if answer.status in _NO_HEAD:
            one = {"Range": "bytes=0-0"}
            answer = ask(Question(href=address, headers=one), seen, lambda body: None)
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
        length = total or answer.headers.get("Content-Length", "")
        size = int(length) if length.isdigit() else -1
        return Identity(size=size, tag=answer.headers.get("ETag", ""))

    return ask_signed(href, attempt, seen)


def _no_file(href: str, reason: OSError) -> ReadError:
    return ReadError(f"asset {href} is not there ({reason.strerror}); mend the catalog")
