"""A city's Zarr group of one version: a view of shards, made of links, that costs no pixel."""

import os
import shutil
import threading
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from mapper.area.grid import Grid, PixelBox, TileKey
from mapper.errors import StoreError
from mapper.store.conventions import (
    axis_coordinates,
    group_attributes,
    spatial_ref_attributes,
)
from mapper.store.shards import array_options
from mapper.store.template import ArrayTemplate

_silence = threading.Lock()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings; Python's filters are the whole process's, so one thread at a time."""
    with _silence, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def extent_of(tiles: Iterable[TileKey]) -> PixelBox:
    """The smallest box of whole tiles that holds them all."""
    return reduce(PixelBox.union, (key.box for key in tiles))


def write_view(
    path: Path,
    grid: Grid,
    shards: Mapping[ArrayTemplate, Mapping[TileKey, Path]],
    attributes: Mapping[str, Any],
) -> None:
    """Make or replace a Zarr v3 group whose arrays are links to shards.

    Args:
        path: of the group; replaced as a whole.
        grid: the city's lattice.
        shards: per array, the file that holds each tile's shard.
        attributes: added to the group's.

    Raises: StoreError where the disk refuses.
    """
    attempt = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        attempt.parent.mkdir(parents=True, exist_ok=True)
        _write_group(attempt, grid, shards, attributes)
        swap(attempt, path)
    except OSError as reason:
        raise StoreError(
            f"{path} could not be written ({reason}); free space and run again"
        ) from reason
    finally:
        shutil.rmtree(attempt, ignore_errors=True)


def swap(attempt: Path, final: Path) -> None:
    """Put a complete folder in the place of another, which is gone for an instant only."""
    if final.exists():
        old = final.with_name(f".old.{uuid.uuid4().hex}")
        os.rename(final, old)
        os.rename(attempt, final)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(attempt, final)


def _write_group(
    path: Path,
    grid: Grid,
    shards: Mapping[ArrayTemplate, Mapping[TileKey, Path]],
    attributes: Mapping[str, Any],
) -> None:
    extent = extent_of({key for tiles in shards.values() for key in tiles})
    group = zarr.open_group(store=path, mode="w", zarr_format=3)
    group.attrs.update(group_attributes(grid, extent) | dict(attributes))
    _add_coordinates(group, grid, extent, list(shards))
    for template, tiles in shards.items():
        array = group.create_array(
            template.name,
            shape=template.shape(*extent.shape),
            **array_options(template, grid.tile),  # type: ignore[arg-type]
        )
        array.attrs.update({"grid_mapping": "spatial_ref"})
        for key, shard in tiles.items():
            _link(shard, path / template.name, _index(key, extent, template))
    # zarr-python says that consolidated metadata is not yet part of the v3 specification
    with _quiet():
        zarr.consolidate_metadata(path)


def _add_coordinates(
    group: zarr.Group, grid: Grid, extent: PixelBox, templates: list[ArrayTemplate]
) -> None:
    for axis, (values, attributes) in axis_coordinates(grid, extent).items():
        group.create_array(
            axis,
            data=values,
            chunks=values.shape,
            dimension_names=(axis,),
            attributes=attributes,
        )
    group.create_array(
        "spatial_ref",
        data=np.array(0, dtype="int32"),
        attributes=spatial_ref_attributes(grid, extent),
    )
    for template in templates:
        if template.bands:
            names = np.array(template.bands, dtype=f"<U{max(map(len, template.bands))}")
            # fixed-length strings have no v3 specification yet; zarr and xarray read them
            with _quiet():
                group.create_array(
                    template.band_dimension,
                    data=names,
                    chunks=names.shape,
                    dimension_names=(template.band_dimension,),
                )


def _index(key: TileKey, extent: PixelBox, template: ArrayTemplate) -> tuple[str, ...]:
    """The shard's place in the array's chunk grid."""
    row = (key.box.row0 - extent.row0) // key.tile
    col = (key.box.col0 - extent.col0) // key.tile
    return (str(row), str(col)) if template.bands is None else ("0", str(row), str(col))


def _link(shard: Path, array: Path, index: tuple[str, ...]) -> None:
    """Hard-link a shard to its place; copy where the file system has no links."""
    target = array.joinpath("c", *index)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(shard, target)
    except OSError:
        shutil.copyfile(shard, target)
