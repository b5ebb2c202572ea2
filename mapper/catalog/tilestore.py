"""What stands between a tile service and its readers: key, rate, kept tiles, and decoding."""

import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from io import BytesIO
from urllib.parse import quote

import numpy as np
from PIL import Image

from mapper.errors import MapperError, ReadError
from mapper.recipe.tiles import TileService
from mapper.transport.address import redact, unsigned

Fetch = Callable[[str], bytes]
"""Content of an address; empty for one that is not there (404, 410, 204). Raises ReadError.

It waits for the host's limiter (`limiter_of`) itself, before each request that it makes.
"""
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}


def key_of(service: TileService, error: type[MapperError] = ReadError) -> str:
    """The API key, read whenever it is needed so that nothing keeps it."""
    if not service.key_variable:
        return ""
    key = os.environ.get(service.key_variable, "")
    if not key:
        raise error(
            f"the key of {unsigned(service.url)} is not set; put it into the environment "
            f"variable {service.key_variable}"
        )
    return key


def without_key(key: str, text: str) -> str:
    """A message in which neither the key nor a query value is left."""
    for form in (key, quote(key, safe=""), quote(key)) if key else ():
        text = text.replace(form, "***")
    return redact(text)


class RateLimiter:
    """A token bucket that holds one token: requests of all threads keep their distance."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0.0
        self._rate = math.inf

    def agree(self, per_second: float) -> None:
        """Never ask faster than this from now on; of several rates the lowest holds."""
        with self._lock:
            self._rate = min(self._rate, per_second)

    def wait(self) -> None:
        """Return when the next request may go out; at once where no rate was agreed.

        To be called at the last moment: what waits for something else after it may go out in a
        burst.
        """
        with self._lock:
            now = time.monotonic()
            slot = max(now, self._next)
            self._next = slot + 1 / self._rate
        time.sleep(slot - now)


_LIMITERS: dict[str, RateLimiter] = {}


def limiter_of(host: str) -> RateLimiter:
    """The one limiter of this process for a host (`name:port`)."""
    return _LIMITERS.setdefault(host, RateLimiter())


class KeptTiles:
    """Encoded tiles by address, so that a band's tiles serve the next band too."""

    def __init__(self, most_bytes: int = 64 * 2**20, seconds: float = 600) -> None:
        """Keep up to `most_bytes`, the latest used, none longer than `seconds`."""
        self._most, self._seconds = most_bytes, seconds
        self._lock = threading.Lock()
        self._tiles: OrderedDict[str, tuple[Future[bytes], float]] = OrderedDict()
        self._bytes = 0

    def get(self, address: str, ask: Callable[[], bytes]) -> bytes:
        """A tile; `ask` is called by one thread alone, and again after a failure."""
        with self._lock:
            found = self._tiles.get(address)
            if found and time.monotonic() - found[1] > self._seconds and found[0].done():
                self._drop(address)
                found = None
            if found:
                self._tiles.move_to_end(address)
                future = found[0]
            else:
                future = Future()
                self._tiles[address] = future, time.monotonic()
        if not found:
            self._fill(address, future, ask)
        return future.result()

    def drop(self, address: str, content: bytes) -> None:
        """Forget a tile that turned out to be none, unless another has come in its place."""
        with self._lock:
            found = self._tiles.get(address)
            if found and found[0].done() and found[0].result() is content:
                self._drop(address)

    def _fill(self, address: str, future: "Future[bytes]", ask: Callable[[], bytes]) -> None:
        try:
            content = ask()
        except BaseException as reason:
            with self._lock:
                self._tiles.pop(address)
            future.set_exception(reason)
            return
        with self._lock:
            future.set_result(content)
            self._bytes += len(content)
            for oldest in list(self._tiles):
                if self._bytes <= self._most:
                    break
                if self._tiles[oldest][0].done():
                    self._drop(oldest)

    def _drop(self, address: str) -> None:
        self._bytes -= len(self._tiles.pop(address)[0].result())


def decode_tile(content: bytes, size: int, channels: int) -> np.ndarray:
    """A JPEG, PNG or WebP tile as `(channels + 1, size, size)` uint8, the last one its alpha.

    Raises: ValueError, with nothing of the content in it, where it is no such tile.
    """
    if content.lstrip()[:1] == b"<":
        raise ValueError("it is text (HTML or XML), no image")
    try:
        with Image.open(BytesIO(content), formats=("JPEG", "PNG", "WEBP")) as image:
            if image.size != (size, size):
                raise ValueError(
                    f"it has {image.width} x {image.height} pixels, not {size} x {size}"
                )
            if image.mode not in _MODES:
                raise ValueError(f"its pixels are {image.mode}, not 8-bit grey or colour")
            pixels = np.asarray(image.convert("RGBA")).transpose(2, 0, 1)
    except (OSError, SyntaxError, Image.DecompressionBombError, Warning):
        raise ValueError(f"its {len(content)} bytes are no whole JPEG, PNG or WebP") from None
    values = np.where(pixels[3] > 0, pixels[:3], 0)
    if channels == 1:
        if (values != values[0]).any():
            raise ValueError("it is in colour, and the recipe names one band")
        values = values[:1]
    return np.concatenate([values, pixels[3:]]).astype(np.uint8)
