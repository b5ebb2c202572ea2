"""Looks at a tile on disk: written whole, read back in row strips.

An exact median needs every look at a pixel at once. Kept in memory, a tile's stack grows with the
number of scenes; here it lies in an unnamed temporary file, and memory is that of one strip.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from mapper.errors import StoreError

STRIP_BYTES = 48 << 20
"""Of a strip of all looks; reducers take a few times as much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackShape:
    """Looks, bands and pixels of a stack."""

    looks: int
    bands: int
    height: int
    width: int
    dtype: str = "uint16"

    @property
    def plane(self) -> int:
        """Bytes of one band of one look."""
        return self.height * self.width * np.dtype(self.dtype).itemsize

    @property
    def size(self) -> int:
        """Bytes of the whole stack with its flags."""
        return self.looks * (self.bands * self.plane + self.height * self.width)

    def strips(self, most: int = STRIP_BYTES) -> Iterator[slice]:
        """Row slices whose stacks fit into so many bytes, each of a row at least."""
        row = max(1, self.size // max(1, self.height))
        step = max(1, min(self.height, most // row))
        for start in range(0, self.height, step):
            yield slice(start, min(start + step, self.height))


class Scratch:
    """A stack `(look, band, y, x)` and its flags `(look, y, x)` uint8 in a temporary file."""

    def __init__(self, shape: StackShape) -> None:
        """Take room on the disk.

        Raises: StoreError where the temporary folder has not enough (TMPDIR names another).
        """
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        if shape.size > free:
            raise StoreError(
                f"a tile of {shape.looks} looks needs {shape.size >> 20} MiB of temporary space "
                f"and {folder} has {free >> 20}; set TMPDIR to a larger disk, or use smaller tiles"
            )
        self.shape = shape
        self._file = tempfile.TemporaryFile(prefix="mapper-", dir=folder)  # noqa: SIM115
        try:
            # takes the room now, so that two workers do not both believe it theirs
            if shape.size:
                os.posix_fallocate(self._file.fileno(), 0, shape.size)
        except OSError as reason:
            self._file.close()
            raise _full(reason) from reason

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, look: int, values: Sequence[np.ndarray], flags: np.ndarray) -> None:
        """Keep a look: `(y, x)` values of each band, and flags. Several threads may.

        Raises: StoreError where the disk is full.
        """
        shape = self.shape
        for band, plane in enumerate(values):
            self._put(plane.astype(shape.dtype, copy=False), self._at(look, band))
        self._put(flags.astype(np.uint8, copy=False), self._flags_at(look))

    def flags(self, rows: slice) -> np.ndarray:
        """`(look, y, x)` uint8 of some rows."""
        shape = self.shape
        found = np.empty((shape.looks, rows.stop - rows.start, shape.width), dtype=np.uint8)
        for look in range(shape.looks):
            self._get(found[look], self._flags_at(look) + rows.start * shape.width)
        return found

    def values(self, rows: slice) -> np.ndarray:
        """`(look, band, y, x)` of some rows."""
        shape, height = self.shape, rows.stop - rows.start
        found = np.empty((shape.looks, shape.bands, height, shape.width), dtype=shape.dtype)
        skip = rows.start * shape.width * found.itemsize
        for look in range(shape.looks):
            for band in range(shape.bands):
                self._get(found[look, band], self._at(look, band) + skip)
        return found

    def look(self, look: int) -> np.ndarray:
        """`(band, y, x)` of one look."""
        shape = self.shape
        found = np.empty((shape.bands, shape.height, shape.width), dtype=shape.dtype)
        self._get(found, self._at(look, 0))
        return found

    def flags_of(self, look: int) -> np.ndarray:
        """`(y, x)` uint8 of one look."""
        found = np.empty((self.shape.height, self.shape.width), dtype=np.uint8)
        self._get(found, self._flags_at(look))
        return found

    def _at(self, look: int, band: int) -> int:
        return (look * self.shape.bands + band) * self.shape.plane

    def _flags_at(self, look: int) -> int:
        stacked = self.shape.looks * self.shape.bands * self.shape.plane
        return stacked + look * self.shape.height * self.shape.width

    def _put(self, plane: np.ndarray, offset: int) -> None:
        view = np.ascontiguousarray(plane).data.cast("B")
        try:
            while view:
                written = os.pwrite(self._file.fileno(), view, offset)
                view, offset = view[written:], offset + written
        except OSError as reason:
            raise _full(reason) from reason

    def _get(self, plane: np.ndarray, offset: int) -> None:
        view = plane.data.cast("B")
        while view:
            read = os.preadv(self._file.fileno(), [view], offset)
            if not read:
                raise StoreError("a temporary file was cut off while it was in use; run again")
            view, offset = view[read:], offset + read


def _full(reason: OSError) -> StoreError:
    return StoreError(
        f"temporary space ran out ({reason.strerror}); set TMPDIR to a larger disk, or use "
        "smaller tiles"
    )
