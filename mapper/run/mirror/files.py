"""Files of a mirror: where each lies, whether it is right, and how it gets there.

```
MIRROR/assets/<hash of the address>/<name>         byte for byte what the archive has
MIRROR/assets/<hash of the address>/.asset.json    its size and checksum, written after it
```
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import urlsplit

from mapper.catalog.tilecatalog import SCHEME as TILE_SERVICE
from mapper.errors import MapperError, ReadError, StoreError
from mapper.run.mirror.plan import tile_refusal
from mapper.store.files import sha256_of, write_json
from mapper.transport import whole
from mapper.transport.address import is_object, is_web, unsigned
from mapper.transport.whole import SHA256, copy_file

T = TypeVar("T")
R = TypeVar("R")
ASSETS = "assets"
_RECORD = ".asset.json"
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldFile:
    """An asset that is in the mirror."""

    path: str
    """Relative to the mirror, with `/`."""
    size: int
    checksum: str
    """SHA-256 as multihash in hex: `1220` and 64 digits."""


def slug_of(text: str) -> str:
    """A name that is safe as a part of a path, and another one for every text.

    Returns: up to 40 letters, digits and hyphens of the text, then 12 digits of its SHA-256.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].rstrip("-")
    return f"{plain or 'x'}-{_hash(text)[:12]}"


def place_of(href: str) -> str:
    """Where an asset lies in the mirror, by its unsigned address alone.

    A plain file name is kept, since some drivers read it; any other becomes a slug.
    """
    name = PurePosixPath(urlsplit(href).path if "://" in href else Path(href).as_posix()).name
    if not _PLAIN.fullmatch(name):
        suffix = PurePosixPath(name).suffix
        name = slug_of(name) + (suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", suffix) else "")
    return f"{ASSETS}/{_hash(href)[:20]}/{name}"


def refusal_of(href: str, catalog: str) -> str:
    """Why an asset is not copied, whatever its host would say; empty where it may be.

    Args:
        href: its unsigned address.
        catalog: address of the catalog that named it.
    """
    if href.startswith(TILE_SERVICE):
        return tile_refusal(href.removeprefix(TILE_SERVICE))
    if "://" in href and not (is_web(href) or is_object(href)):
        return f"{unsigned(href)} is no address that can be copied; use http(s), s3, gs or az"
    if "://" not in href and "://" in catalog:
        return f"{href} is a path of this machine, named by {unsigned(catalog)}; mend the catalog"
    return ""


def held_file(root: Path, href: str, expected: str = "", thorough: bool = True) -> HeldFile | None:
    """An asset that lies in the mirror as it was copied; None where it does not.

    Args:
        root: the mirror.
        href: unsigned address of the asset.
        expected: the multihash its item promises; one that is not SHA-256 is not looked at.
        thorough: whether the checksum is worked out, or the size alone compared.
    """
    place = place_of(href)
    path = root / place
    try:
        record = json.loads((path.parent / _RECORD).read_text(encoding="utf-8"))
        size, checksum = int(record["size"]), str(record["checksum"])
        if record["of"] != _hash(href) or path.stat().st_size != size:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    promised = checkable(expected)
    if promised and promised != checksum:
        return None
    if thorough and SHA256 + sha256_of(path) != checksum:
        return None
    return HeldFile(path=place, size=size, checksum=checksum)


def copy_asset(root: Path, href: str, expected: str = "") -> HeldFile:
    """Copy one asset into the mirror, whole or not at all.

    Raises: ReadError where it does not come or is not what its item promises; StoreError where
        the disk refuses.
    """
    path = root / place_of(href)
    try:
        (path.parent / _RECORD).unlink(missing_ok=True)
        copy_file(href, path, checkable(expected))
        _check_self_contained(path, href)
        held = HeldFile(
            path=place_of(href), size=path.stat().st_size, checksum=SHA256 + sha256_of(path)
        )
    except OSError as reason:
        raise StoreError(
            f"{path} could not be written ({reason.strerror}); free space and run again"
        ) from reason
    record = {"of": _hash(href), "size": held.size, "checksum": held.checksum}
    write_json(path.parent / _RECORD, record)
    return held


def drop_asset(root: Path, href: str) -> None:
    """Take an asset away that is not right."""
    folder = (root / place_of(href)).parent
    if folder.is_dir():
        shutil.rmtree(folder)


def sweep(root: Path) -> None:
    """Remove what a killed process left half-written."""
    for pattern in (f"{ASSETS}/*/.*.part", f"{ASSETS}/*/{_RECORD[:1]}{_RECORD}.*"):
        for leftover in root.glob(pattern):
            leftover.unlink(missing_ok=True)


def size_of(href: str) -> int:
    """Bytes of an asset, as its host tells; -1 where it does not, or does not answer."""
    with suppress(ReadError):
        return whole.size_of(href)
    return -1


def free_bytes(root: Path) -> int:
    """Space on the disk where a folder is, or will be."""
    there = next(p for p in (root.absolute(), *root.absolute().parents) if p.exists())
    return shutil.disk_usage(there).free


def side_by_side(
    function: Callable[[T], R], wanted: Collection[T], jobs: int
) -> Iterator[tuple[T, R | MapperError]]:
    """Results as they come, `jobs` at a time; an error of one asset is its result.

    Threads count into the caller's `traffic()`. Raises: StoreError, since no other would fare
    better; whatever is no MapperError.
    """
    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        futures = {pool.submit(copy_context().run, function, one): one for one in wanted}
        try:
            for future in as_completed(futures):
                error = future.exception()
                if error is None:
                    yield futures[future], future.result()
                elif isinstance(error, MapperError) and not isinstance(error, StoreError):
                    yield futures[future], error
                else:
                    raise error
        finally:
            # what is on its way ends, so that no thread writes after the lock is gone
            pool.shutdown(wait=True, cancel_futures=True)


def checkable(expected: str) -> str:
    """A promised checksum in lower case; empty where it is another than SHA-256."""
    plain = expected.lower()
    return plain if re.fullmatch(SHA256 + "[0-9a-f]{64}", plain) else ""


def _check_self_contained(path: Path, href: str) -> None:
    """Refuse what only points to other files: a VRT means nothing away from its place."""
    with path.open("rb") as file:
        head = file.read(64)
    if head.lstrip().startswith(b"<"):
        path.unlink()
        raise ReadError(
            f"asset {unsigned(href)} is XML that points to other files, such as a VRT; "
            "put the files themselves into the catalog"
        )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
