"""Pieces of a finished version's cube in physical units, and what its item says of it."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from mapper.area.aoi import AreaOfInterest
from mapper.area.grid import Grid, PixelBox
from mapper.errors import DataError, StoreError
from mapper.run.layout import Version
from mapper.run.publish import InsideMask, read_item
from mapper.store.template import ArrayTemplate

_COUNT = "_count"
_SEASON = re.compile(r"(.+)_([a-z][a-z0-9]*)")
_SEASONS = {"winter", "spring", "summer", "autumn"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CubeLayer:
    """The pixels of one source."""

    array: zarr.Array[Any]
    template: ArrayTemplate
    bands: tuple[str, ...]
    """As models know them, e.g. `sentinel2:red`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CityCube:
    """A finished version that samples are cut from."""

    version: Version
    item: Mapping[str, Any]
    """Of its product."""
    grid: Grid
    extent: PixelBox
    """The lattice pixels that the cube has room for."""
    layers: tuple[CubeLayer, ...]
    """In the order of the recipe."""
    lonlat: BaseGeometry
    """The AOI in EPSG:4326."""
    area: BaseGeometry
    """The AOI in the grid's CRS."""
    inside: InsideMask

    @property
    def slug(self) -> str:
        """The city."""
        return self.version.slug

    @property
    def bands(self) -> tuple[str, ...]:
        """Of all layers, in their order."""
        return tuple(band for layer in self.layers for band in layer.bands)

    @property
    def mapped(self) -> PixelBox:
        """The AOI's bounds, snapped outward."""
        return self.grid.box_of(self.area.bounds)

    def read(self, pixels: PixelBox, bands: Sequence[str]) -> np.ndarray:
        """`(band, y, x)` float32 in physical units; NaN where the cube has no value.

        Args:
            pixels: any lattice box; beyond the cube there are no data.
            bands: what to read; one that this city lacks is NaN.

        Raises: StoreError where a shard cannot be read.
        """
        found = np.full((len(bands), *pixels.shape), np.nan, dtype=np.float32)
        common = pixels.intersect(self.extent)
        if common.empty:
            return found
        target, source = common.slices_in(pixels), common.slices_in(self.extent)
        for layer in self.layers:
            values, valid = layer.template.decode(_stored(layer.array, source))
            for index, band in enumerate(layer.bands):
                if band in bands:
                    part = np.where(valid[index], values[index], np.float32(np.nan))
                    found[(bands.index(band), *target)] = part
        return found

    def valid_share(self, image: np.ndarray, bands: Sequence[str]) -> float:
        """Share of pixels in which the recipe's first source has a value, in any band.

        Other sources may be missing. Seasons of one source are one source.
        """
        first = self.layers[0].template.bands
        main = [b for layer in self.layers if layer.template.bands == first for b in layer.bands]
        chosen = [bands.index(band) for band in main]
        return float(np.isfinite(image[chosen]).any(axis=0).mean())


def open_cube(version: Version) -> CityCube:
    """Open a version's cube; reads its attributes alone.

    Raises: DataError where it keeps no pixels to cut; StoreError where it is damaged.
    """
    item: dict[str, Any] = read_item(version)
    path = version.path / "cube.zarr"
    try:
        group = zarr.open_group(store=path, mode="r")
        layers = _layers(group, item, version)
        spatial, code = group.attrs["spatial:bbox"], str(group.attrs["proj:code"])
        grid = Grid(
            epsg=int(code.removeprefix("EPSG:")),
            resolution=float(group.attrs["spatial:transform"][0]),  # type: ignore[index, arg-type]
            tile=int((layers[0].array.shards or layers[0].array.chunks)[-1]),
        )
    except (OSError, KeyError, ValueError, RuntimeError) as reason:
        raise StoreError(
            f"{path} cannot be read ({reason}); delete the version's folder and run again"
        ) from reason
    area = AreaOfInterest(
        name=str(item["properties"]["mapper:city"]),
        slug=version.slug,
        geometry=shape(item["geometry"]),
    )
    projected = area.on(grid)
    return CityCube(
        version=version,
        item=item,
        grid=grid,
        extent=grid.box_of(tuple(spatial)),  # type: ignore[arg-type]
        layers=layers,
        lonlat=area.geometry,
        area=projected,
        inside=InsideMask(projected, grid, grid.box_of(projected.bounds)),
    )


def _layers(group: zarr.Group, item: Mapping[str, Any], version: Version) -> tuple[CubeLayer, ...]:
    """The arrays that hold pixels, in the order in which the item lists their counts."""
    listed = [b["name"] for b in item["assets"]["observations"]["bands"]]
    sources = [name.removesuffix(_COUNT) for name in listed if name.endswith(_COUNT)]
    lacking = [name for name in sources if name not in group]
    if lacking:
        raise DataError(
            f"{version.key} mapped the scenes of {', '.join(lacking)} one by one and keeps no "
            "composite to cut samples from; make one with `predict.over: composite`"
        )
    found: dict[str, ArrayTemplate] = {}
    for name in sources:
        array: Any = group[name]
        found[name] = ArrayTemplate(
            name=name,
            dtype=str(array.dtype),
            fill=float(array.fill_value),
            bands=tuple(map(str, np.asarray(group[f"{name}_band"]))),
            attributes=dict(array.attrs),
        )
    known = _known_as({name: template.bands or () for name, template in found.items()})
    return tuple(
        CubeLayer(
            array=group[name],  # type: ignore[arg-type]
            template=template,
            bands=tuple(
                f"{known[name][0]}:{band}{known[name][1]}" for band in template.bands or ()
            ),
        )
        for name, template in found.items()
    )


def _known_as(arrays: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, str]]:
    """Per array its source and what is added to its bands: a season is part of a band's name.

    `sentinel2_spring` with `red` is `sentinel2:red_spring` to a model (`mapper.recipe`).
    """
    parts = {name: match.groups() for name in arrays if (match := _SEASON.fullmatch(name))}
    alike = Counter((parts[name][0], arrays[name]) for name in parts)
    return {
        name: (parts[name][0], f"_{parts[name][1]}")
        if name in parts and (parts[name][1] in _SEASONS or alike[parts[name][0], arrays[name]] > 1)
        else (name, "")
        for name in arrays
    }


def _stored(array: zarr.Array[Any], place: tuple[slice, slice]) -> np.ndarray:
    try:
        return np.asarray(array[(slice(None), *place)])
    except (OSError, ValueError, RuntimeError) as reason:
        raise StoreError(
            f"{array.store_path} cannot be read ({reason}); delete the version's folder and run "
            "again"
        ) from reason


def all_bands(cubes: Sequence[CityCube]) -> tuple[str, ...]:
    """The bands of all cities; one that some lack stands where the others have it."""
    found: list[str] = []
    for cube in cubes:
        place = 0
        for band in cube.bands:
            if band in found:
                place = found.index(band) + 1
            else:
                found.insert(place, band)
                place += 1
    return tuple(found)
