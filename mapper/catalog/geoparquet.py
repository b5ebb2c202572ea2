"""A stac-geoparquet file of any size: an index of all rows, items of the rows asked for alone."""

import gc
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from mapper.catalog.arrow import items_of, values_of
from mapper.catalog.bands import Item, check_item
from mapper.catalog.query import Bbox, Period, PropertyFilter, with_absolute_hrefs
from mapper.errors import CatalogError

_SIDES = ("xmin", "ymin", "zmin", "xmax", "ymax", "zmax")
_KEPT_BYTES = 2**30
"""Of packed row groups that are kept; one larger than this is kept alone."""
_PACK = 256
"""Rows that are packed together: what is unpacked for one scene."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxIndex:
    """Bounding boxes of many items, to find those that meet a box."""

    sides: NDArray[np.float64]
    """(4, n): west, south, east, north; NaN where an item has none."""

    @classmethod
    def of(cls, items: Iterable[Item]) -> "BoxIndex":
        """Of items at hand."""
        rows = [_flat(item.get("bbox")) for item in items]
        return cls(sides=np.array(rows, dtype=np.float64).reshape(-1, 4).T.copy())

    def hits(self, boxes: Sequence[Bbox]) -> NDArray[np.bool_]:
        """(n,) True as `touches` has it: items without a bbox or across 180 always."""
        west, south, east, north = self.sides
        # a comparison with NaN is false
        found = ~(east >= west)
        for left, bottom, right, top in boxes:
            found |= (west <= right) & (east >= left) & (south <= top) & (north >= bottom)
        return found


def _flat(bbox: Any) -> tuple[float, ...]:
    if not isinstance(bbox, list | tuple) or len(bbox) not in (4, 6):
        return (np.nan,) * 4
    return tuple(bbox) if len(bbox) == 4 else (*bbox[:2], *bbox[3:5])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    """All that a search needs to know of a file's rows."""

    boxes: BoxIndex
    collections: NDArray[np.int32]
    """(n,) place in `names`."""
    names: tuple[str, ...]
    """Of collections; empty for items that name none."""
    times: NDArray[np.int64]
    """(n,) microseconds since 1970; the smallest number where there is no time."""
    groups: NDArray[np.int64]
    """First row of each row group, and the number of rows."""


_NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class ParquetCatalog:
    """Items of a stac-geoparquet file.

    Each row group that holds a wanted item is decoded once and kept packed, 256 rows at a time,
    of which those are unpacked that are asked for: Parquet's hundreds of columns for nested
    items take a third of a second for 4,000 rows, however few are wanted. Rows sorted by place
    are found fastest.
    """

    path: Path
    _groups: "_RowGroups"

    def search(
        self, collection: str, boxes: Sequence[Bbox], period: Period | None
    ) -> Iterator[Item]:
        """Items of the collection that touch a box, by the start of their time in the period.

        Items without a collection match any; those without a time any period.

        Raises: CatalogError where the file changed since it was opened.
        """
        return self.light(collection, boxes, period, PropertyFilter())

    def light(
        self,
        collection: str,
        boxes: Sequence[Bbox],
        period: Period | None,
        filters: PropertyFilter,
    ) -> Iterator[Item]:
        """As `search`; items that the filter leaves out come without their assets.

        So they can be counted, and cost little.
        """
        index = self._groups.index
        wanted = index.boxes.hits(boxes)
        fitting = [n for n, name in enumerate(index.names) if name in ("", collection)]
        wanted &= np.isin(index.collections, fitting)
        if period is not None:
            start, end = (int(t.timestamp() * 1e6) for t in (period.start, period.end))
            dated = index.times != _NEVER
            wanted &= ~dated | ((index.times >= start) & (index.times <= end + 999_999))
        for item in self._groups.items(np.flatnonzero(wanted), filters):
            yield with_absolute_hrefs(item, str(self.path))


def open_parquet(path: Path) -> ParquetCatalog:
    """Index a file, once a process as long as it does not change.

    Raises: CatalogError where it is no stac-geoparquet file.
    """
    path = path.absolute()
    try:
        status = path.stat()
    except OSError as reason:
        raise CatalogError(f"{path} cannot be read: {reason.strerror}") from reason
    return ParquetCatalog(path, _row_groups(path, (status.st_size, status.st_mtime_ns)))


@lru_cache(maxsize=4)
def _row_groups(path: Path, stamp: tuple[int, int]) -> "_RowGroups":
    del stamp
    return _RowGroups(path, _read_index(path))


def _read_index(path: Path) -> _Index:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            rows = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
            known = set(file.schema_arrow.names)
            if "id" not in known or (sum(rows) and not {"assets", "geometry"} <= known):
                raise CatalogError(
                    f"{path} is no stac-geoparquet file: it has no column "
                    f"{min({'id', 'assets', 'geometry'} - known)}"
                )
            columns = known & {"bbox", "collection", "datetime", "start_datetime"}
            columns |= {"geometry"} & known if "bbox" not in known else set()
            table = file.read(sorted(columns))
    except (OSError, ValueError, KeyError, pa.ArrowException) as reason:
        raise CatalogError(f"{path} is no stac-geoparquet file: {reason}") from reason
    names, places = _collections(table)
    return _Index(
        boxes=BoxIndex(sides=_sides(table)),
        collections=places,
        names=names,
        times=_times(table),
        groups=np.cumsum([0, *rows]),
    )


def _sides(table: Any) -> NDArray[np.float64]:
    """(4, n) bounds of the rows, from the bbox column or else the footprints."""
    if "bbox" in table.column_names:
        column = table.column("bbox").combine_chunks()
        names = [column.type.field(n).name for n in range(column.type.num_fields)]
        parts = dict(zip(names, column.flatten(), strict=True))
        sides = [parts[side].to_numpy(zero_copy_only=False) for side in _SIDES if side[0] != "z"]
        return np.array(sides, dtype=np.float64)
    if "geometry" in table.column_names:
        shapes = shapely.from_wkb(table.column("geometry").to_numpy())
        return np.ascontiguousarray(shapely.bounds(shapes).T)
    return np.full((4, table.num_rows), np.nan)


def _collections(table: Any) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """The names of collections, and of which each row is."""
    if "collection" not in table.column_names:
        return ("",), np.zeros(table.num_rows, dtype=np.int32)
    listed = [name or "" for name in table.column("collection").to_pylist()]
    places = {name: place for place, name in enumerate(dict.fromkeys(listed))}
    return tuple(places), np.array([places[name] for name in listed], dtype=np.int32)


def _times(table: Any) -> NDArray[np.int64]:
    """(n,) the instant of each row, or the start of its range."""
    import pyarrow as pa

    found = np.full(table.num_rows, _NEVER)
    for name in ("start_datetime", "datetime"):
        if name in table.column_names and pa.types.is_timestamp(table.column(name).type):
            column = table.column(name).cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
            known = ~np.asarray(column.is_null())
            found[known] = column.fill_null(0).to_numpy()[known]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Packed:
    """Rows of one row group."""

    starts: NDArray[np.int64]
    """First row of each part, counted in the row group, and the number of rows."""
    parts: tuple[Any, ...]
    """Arrow IPC streams, compressed."""

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(part.size for part in self.parts)


@dataclass(slots=True)
class _RowGroups:
    """Row groups of one file, the latest of them packed."""

    path: Path
    index: _Index
    kept: "OrderedDict[int, _Packed]" = field(default_factory=OrderedDict)

    def items(self, rows: NDArray[np.int64], filters: PropertyFilter) -> Iterator[Item]:
        """The items of some rows, which are sorted; see `ParquetCatalog.light`."""
        for number, inside in _parted(rows, self.index.groups):
            packed = self._packed(number)
            for part, few in _parted(inside, packed.starts):
                yield from _unpacked(packed.parts[part], few, filters)

    def _packed(self, number: int) -> _Packed:
        import pyarrow as pa

        if number in self.kept:
            self.kept.move_to_end(number)
            return self.kept[number]
        try:
            packed = _pack(self.path, number)
        except (OSError, ValueError, pa.ArrowException) as reason:
            raise CatalogError(
                f"{self.path} changed or became unreadable while it was searched: {reason}"
            ) from reason
        while self.kept and sum(p.size for p in self.kept.values()) + packed.size > _KEPT_BYTES:
            self.kept.popitem(last=False)
        self.kept[number] = packed
        return packed


def _parted(
    rows: NDArray[np.int64], starts: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Which parts hold sorted rows, and which rows of each, counted from its start."""
    numbers = np.searchsorted(starts, rows, side="right") - 1
    for number in np.unique(numbers).tolist():
        yield number, rows[numbers == number] - starts[number]


def _pack(path: Path, number: int) -> _Packed:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    options = pa.ipc.IpcWriteOptions(compression="lz4")
    parts, lengths = [], [0]
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(_PACK, row_groups=[number]):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
                writer.write_batch(batch)
            parts.append(sink.getvalue())
            lengths.append(batch.num_rows)
    return _Packed(starts=np.cumsum(lengths), parts=tuple(parts))


def _unpacked(part: Any, rows: NDArray[np.int64], filters: PropertyFilter) -> Iterator[Item]:
    """Items of one part; without assets where the filter leaves them out."""
    import pyarrow as pa

    table = pa.ipc.open_stream(part).read_all()
    rest = table.select([n for n in table.column_names if n != "assets"])
    with _no_collector():
        light = items_of(rest.take(rows))
        wanted = np.array([filters.keeps(item) for item in light], dtype=bool)
        assets = iter(values_of(table.column("assets").take(rows[wanted])))
    for item, whole in zip(light, wanted.tolist(), strict=True):
        # assets are most of an item, and hold no number that is not finite
        checked = check_item(item)
        yield checked | {"assets": next(assets) or {}} if whole else checked


@contextmanager
def _no_collector() -> Iterator[None]:
    """Hundreds of thousands of new objects, none of them garbage, are not looked through."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
