"""Open a raster wherever it is, and read it so that a fault is an error and never a pixel."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import rasterio

from mapper.errors import ReadError
from mapper.transport.address import is_object, is_web, redact, scheme, unsigned
from mapper.transport.policy import current_policy
from mapper.transport.remote import Contents, RemoteFile
from mapper.transport.traffic import Traffic, counting
from mapper.transport.verify import find_damage

T = TypeVar("T")
GDAL_OPTIONS: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "5",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_RETRY_CODES": "429,500,502,503,504",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "VSI_CACHE": "FALSE",
}
"""Of local files, and of GDAL's own addresses (`/vsicurl/...`), which go past this room."""


class _UndecodableError(ReadError):
    """The bytes came in as they were sent, and are no raster."""


@contextmanager
def open_raster(href: str, **options: Any) -> Iterator[rasterio.DatasetReader]:
    """Open an asset for reading: a path, or an address of http(s), s3, gs or az.

    `options` are the driver's, such as `overview_level`. Bytes are kept while the asset is open,
    and on after that inside `traffic()`. A dataset is for one thread at a time. Values read
    inside count only once the block has ended: a fault that GDAL swallowed is raised there.

    Raises: ReadError, with the unsigned address, for anything that goes wrong while reading.
    """
    if not (is_web(href) or is_object(href)):
        with (
            _translated(href),
            rasterio.Env(**GDAL_OPTIONS),
            rasterio.open(href, **options) as dataset,
        ):
            yield dataset
        return
    with _open_remote(href, counting(), options) as dataset:
        yield dataset


def reading(href: str, function: Callable[[rasterio.DatasetReader], T], **options: Any) -> T:
    """What `function` makes of an open asset; bytes that do not decode are fetched anew, once.

    `function` may be called twice, so it must begin from nothing each time. Local files are read
    once.

    Raises: ReadError as `open_raster`; whatever else `function` raises.
    """
    if not (is_web(href) or is_object(href)):
        with open_raster(href, **options) as dataset:
            return function(dataset)
    seen = counting()

    def once() -> T:
        with _open_remote(href, seen, options) as dataset:
            return function(dataset)

    try:
        return once()
    except _UndecodableError:
        return once()


@contextmanager
def _open_remote(
    href: str, seen: Traffic, options: Mapping[str, Any]
) -> Iterator[rasterio.DatasetReader]:
    shown = unsigned(href)
    contents = seen.memory.borrow(shown, lambda: Contents(href))
    file = RemoteFile(shown, contents, seen)
    try:
        with _translated(href, file), rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            with rasterio.open(shown, opener=file, **options) as dataset:
                yield dataset
                _raise_failure(file)
                checked = scheme(href) == "http" and current_policy().check_blocks
                damage = find_damage(dataset, contents) if checked else ""
            _raise_failure(file)
            if damage:
                raise _UndecodableError(f"asset {shown} cannot be read: {damage}; run again later")
    except BaseException:  # an interrupt leaves ranges behind that failed for good
        seen.memory.forget(shown, contents)
        raise
    finally:
        seen.memory.give_back(shown, contents)


@contextmanager
def _translated(href: str, file: RemoteFile | None = None) -> Iterator[None]:
    """What went wrong first, as a ReadError; errors of the reader's own stay as they are."""
    try:
        yield
    except GeneratorExit:
        raise
    except Exception as reason:
        if file is not None:
            _raise_failure(file)
        if isinstance(reason, (rasterio.errors.RasterioError, OSError)):
            cause = redact(str(reason.__cause__ or reason))
            kind = ReadError if file is None else _UndecodableError
            raise kind(f"asset {unsigned(href)} cannot be read: {cause}; mend the file") from None
        raise


def _raise_failure(file: RemoteFile) -> None:
    """Raise what was kept while GDAL was at work."""
    if file.failure is None:
        return
    if isinstance(file.failure, Exception) and not isinstance(file.failure, ReadError):
        reason = redact(f"{type(file.failure).__name__}: {file.failure}")
        raise ReadError(f"asset {file.href} cannot be read: {reason}") from file.failure
    raise file.failure from None
