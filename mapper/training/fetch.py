"""A file from a path or an address, brought here whole and hashed."""

import hashlib
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import requests

from mapper.errors import ModelError, ReadError, StoreError
from mapper.transport.address import redact, unsigned
from mapper.transport.searching import session

_TIMEOUTS = (20, 60)
"""Seconds to connect, and between two pieces of an answer."""
_HOPS = 5
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A file that is here now."""

    path: Path
    href: str
    """Where it came from: an address without query and user, or the bare name of a local file."""
    sha256: str
    size: int


def fetch_file(source: str, to: Path, limit: int) -> Fetched:
    """Copy a file of a path, a `file:` address or over HTTPS; what is hashed is what is kept.

    Plain HTTP is for servers of this machine alone, and no answer leads to another kind of place.

    Raises: ModelError where the source is no file or is larger than `limit` bytes; ReadError
        where a server does not give it; StoreError.
    """
    if _parts(source).scheme in ("http", "https"):
        href = unsigned(source)
        with _answer(source) as answer:
            size, digest = _stored(_pieces(answer, href), to, limit, href)
    else:
        path = _local(source)
        href = path.name
        try:
            with path.open("rb") as stream:
                size, digest = _stored(_read(stream), to, limit, href)
        except OSError as reason:
            raise ModelError(f"{path} cannot be read: {reason.strerror}") from reason
    return Fetched(path=to, href=href, sha256=digest, size=size)


def _local(source: str) -> Path:
    parts = _parts(source)
    if "://" not in source and parts.scheme != "file":
        path = Path(source)
    elif parts.scheme == "file" and parts.netloc in ("", "localhost"):
        path = Path(unquote(parts.path))
    else:
        raise ModelError(f"{unsigned(source)} is no address that is fetched; use https or a path")
    if not path.is_file():
        raise ModelError(f"{path} is no file; give a checkpoint or a graph, or its address")
    return path


def _parts(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError as reason:
        raise ModelError(f"the address cannot be read: {reason}; write it like https://…") from None


@contextmanager
def _answer(source: str) -> Iterator[requests.Response]:
    """The answer that holds the file, redirections followed and looked at one by one."""
    address = source
    for _ in range(_HOPS):
        _check_address(address, source)
        try:
            answer = session().get(
                address,
                stream=True,
                timeout=_TIMEOUTS,
                allow_redirects=False,
                headers={"Accept-Encoding": "identity"},
            )
        except requests.RequestException as reason:
            raise ReadError(
                f"{unsigned(address)} cannot be reached: {redact(str(reason))}"
            ) from None
        with answer:
            if answer.is_redirect:
                address = urljoin(address, answer.headers["Location"])
                continue
            if answer.status_code != 200:
                raise ReadError(
                    f"{unsigned(address)} answers {answer.status_code}; see whether the file is "
                    "there, or fetch it by other means and give its path"
                )
            yield answer
            return
    raise ReadError(f"{unsigned(source)} leads on more than {_HOPS} times; give the file's address")


def _check_address(address: str, source: str) -> None:
    """HTTPS, or HTTP within this machine; a server elsewhere may not lead back into it."""
    parts, first = _parts(address), _parts(source)
    here = _is_here(parts)
    if parts.scheme == "https" and (not here or _is_here(first)):
        return
    if parts.scheme == "http" and here and _is_here(first):
        return
    leads = "" if address == source else f"{unsigned(source)} leads to "
    raise ModelError(
        f"{leads}{unsigned(address)}, which is not fetched: use https, or fetch it by other means "
        "and give its path"
    )


def _is_here(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _pieces(answer: requests.Response, href: str) -> Iterator[bytes]:
    try:
        yield from answer.iter_content(_PIECE)
    except requests.RequestException as reason:
        raise ReadError(f"{href} broke off: {redact(str(reason))}; fetch it again") from None


def _read(stream: BinaryIO) -> Iterator[bytes]:
    while piece := stream.read(_PIECE):
        yield piece


def _stored(pieces: Iterator[bytes], to: Path, limit: int, href: str) -> tuple[int, str]:
    """Write pieces; size and SHA-256 of what was written."""
    size, digest = 0, hashlib.sha256()
    try:
        with to.open("xb") as file:
            for piece in pieces:
                size += len(piece)
                if size > limit:
                    raise ModelError(
                        f"{href} is larger than {limit:,} bytes; say `bytes` in the YAML if it is "
                        "the right file"
                    )
                digest.update(piece)
                file.write(piece)
    except OSError as reason:
        raise StoreError(f"{href} could not be copied to {to} ({reason}); free space") from reason
    return size, digest.hexdigest()
