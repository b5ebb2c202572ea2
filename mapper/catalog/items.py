"""The frozen snapshot of a search: `items.parquet` (stac-geoparquet), the run's input of record."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from shapely import box
from shapely.errors import ShapelyError
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from mapper.catalog.arrow import items_of
from mapper.catalog.bands import Item, flat_bbox
from mapper.errors import CatalogError, StoreError

SOURCE = "mapper:source"
"""Property that says for which source of the recipe an item was found."""
SUPERSEDED_BY = "mapper:superseded_by"
"""Property of an item on record that is not read: the id of the newer item that is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemTable:
    """Items by source of the recipe, in search order."""

    by_source: Mapping[str, tuple[Item, ...]]
    """What is read."""
    superseded: Mapping[str, tuple[Item, ...]] = field(default_factory=dict)
    """What an item of a newer processing baseline stands for: on record, never read."""

    def __len__(self) -> int:
        """How many items are read."""
        return sum(map(len, self.by_source.values()))


def write_items(path: Path, items: Iterable[Item]) -> None:
    """Write items as stac-geoparquet, atomically. Raises: StoreError where the disk refuses."""
    from pyarrow.lib import ArrowException

    attempt = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_table(attempt, [_with_sound_geometry(item) for item in items])
        os.replace(attempt, path)
    except (ArrowException, ValueError, TypeError, AttributeError) as reason:
        raise CatalogError(
            f"the items found do not fit into one table ({reason}): items of one catalog have "
            "to agree in the types of their properties"
        ) from reason
    except OSError as reason:
        raise StoreError(
            f"{path} could not be written ({reason}); free space and run again"
        ) from reason
    finally:
        with suppress(OSError):
            attempt.unlink(missing_ok=True)


def _write_table(path: Path, items: list[Item]) -> None:
    import pyarrow
    import pyarrow.parquet as parquet
    import stac_geoparquet.arrow as geoparquet

    if items:
        geoparquet.to_parquet(geoparquet.parse_stac_items_to_arrow(items), path)
    else:
        # a search without any item is on record too
        parquet.write_table(pyarrow.table({"id": pyarrow.array([], pyarrow.string())}), path)


def geometry_of(item: Item) -> BaseGeometry | None:
    """The item's footprint; None where it has none that can be used."""
    try:
        found = shape(item["geometry"])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ShapelyError):
        return None
    return found if found.is_valid and not found.is_empty else None


def _with_sound_geometry(item: Item) -> Item:
    """The item with its bbox for a footprint where that cannot even be read."""
    if not item.get("geometry") or not item.get("bbox"):
        return item
    try:
        shape(item["geometry"])
    except (IndexError, TypeError, ValueError, AttributeError, ShapelyError):
        return item | {"geometry": mapping(box(*flat_bbox(item)))}
    return item


def read_items(path: Path) -> list[Item]:
    """Read a stac-geoparquet file; what Parquet had to fill with nulls is taken out again."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        table = parquet.read_table(path)
        return items_of(table) if len(table) else []
    except (OSError, ValueError, KeyError, pa.ArrowException) as reason:
        raise CatalogError(f"{path} is no stac-geoparquet file: {reason}") from reason


def freeze(
    path: Path,
    by_source: Mapping[str, Iterable[Item]],
    superseded: Mapping[str, Iterable[Item]] | None = None,
) -> ItemTable:
    """Write a search's result and read it back: what is used is what is on record.

    Args:
        path: `items.parquet` of the version.
        by_source: items to read, by source of the recipe, in search order.
        superseded: items that stay on record only, marked `mapper:superseded_by`.
    """
    found = [*by_source.items(), *(superseded or {}).items()]
    write_items(
        path,
        [
            item | {"properties": item["properties"] | {SOURCE: source}}
            for source, items in found
            for item in items
        ],
    )
    return thaw(path)


def thaw(path: Path) -> ItemTable:
    """The frozen items of a version."""
    read: dict[str, list[Item]] = {}
    kept: dict[str, list[Item]] = {}
    for item in read_items(path):
        properties = item["properties"]
        place = kept if properties.get(SUPERSEDED_BY) else read
        place.setdefault(properties[SOURCE], []).append(item)
    return ItemTable(
        by_source={name: tuple(items) for name, items in read.items()},
        superseded={name: tuple(items) for name, items in kept.items()},
    )
