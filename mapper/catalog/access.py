"""How an asset is reached: signing, retries, and addresses that are safe to show.

An item keeps the address that its archive gave; a signed one exists only while it is read.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import rasterio
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from mapper.errors import ReadError

GDAL_OPTIONS: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "5",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_RETRY_CODES": "429,500,502,503,504",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "VSI_CACHE": "TRUE",
    "AWS_NO_SIGN_REQUEST": "YES",
}
_SECRET = re.compile(r"\?[^\s'\"]+")
_USER = re.compile(r"://[^/\s'\"@]+@")


def retries() -> Retry:
    """Five tries, waiting longer each time, for answers that may get better."""
    return Retry(
        total=5,
        backoff_factor=0.2,
        backoff_jitter=0.2,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=None,
    )


@lru_cache(maxsize=1)
def session() -> requests.Session:
    """An HTTP session that retries."""
    made = requests.Session()
    for scheme in ("http://", "https://"):
        made.mount(scheme, HTTPAdapter(max_retries=retries()))
    return made


def unsigned(href: str) -> str:
    """An address without its query, where tokens travel; the form that is kept and shown."""
    if "://" not in href:
        return href
    parts = urlsplit(href)
    host = parts.netloc.rsplit("@", 1)[-1]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def redact(text: str) -> str:
    """A message in which every query value of an address is hidden."""
    return _USER.sub("://***@", _SECRET.sub(_hidden, text))


def _hidden(found: re.Match[str]) -> str:
    """A query whose names may be seen, but no value and no nameless token."""
    names = [part.partition("=") for part in found.group(0)[1:].split("&")]
    return "?" + "&".join(f"{n}=***" if sep else "***" for n, sep, _ in names)


def signed(href: str) -> str:
    """The address to read from; Planetary Computer's get a token, which is renewed in time."""
    if urlsplit(href).netloc.endswith(".blob.core.windows.net"):
        import planetary_computer

        return str(planetary_computer.sign(href))
    return href


def fingerprint(href: str) -> str:
    """What tells one content of an address from another: an ETag, or size and time of a file.

    Returns: an empty string where the server gives nothing to go by.

    Raises: ReadError where there is no such file or the server refuses.
    """
    if href.startswith(("http://", "https://")):
        return _etag(href)
    if "://" in href:
        return ""
    try:
        status = Path(href).stat()
    except OSError as reason:
        raise ReadError(
            f"asset {href} is not there ({reason.strerror}); mend the catalog"
        ) from reason
    return f"{status.st_size}-{status.st_mtime_ns}"


def _etag(href: str) -> str:
    try:
        answer = session().head(signed(href), timeout=60, allow_redirects=True)
    except requests.RequestException as reason:
        raise ReadError(
            f"asset {unsigned(href)} cannot be reached: {redact(str(reason))}"
        ) from None
    if answer.status_code in {403, 405, 501}:
        return ""
    if answer.status_code >= 400:
        raise ReadError(
            f"asset {unsigned(href)} answers {answer.status_code}; mend the catalog or leave "
            "the scene out (`on_read_error: skip`)"
        )
    return answer.headers.get("ETag", "").strip('"') or answer.headers.get("Content-Length", "")


@contextmanager
def open_raster(href: str, **options: Any) -> Iterator[rasterio.DatasetReader]:
    """Open an asset for reading, with retries and a fresh signature.

    Raises: ReadError, with the unsigned address, for anything that goes wrong while reading.
    """
    try:
        with rasterio.Env(**GDAL_OPTIONS), rasterio.open(signed(href), **options) as dataset:
            yield dataset
    except (rasterio.errors.RasterioError, OSError) as reason:
        cause = redact(str(reason.__cause__ or reason))
        raise ReadError(f"asset {unsigned(href)} cannot be read: {cause}") from None
