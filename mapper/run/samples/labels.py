"""Labels of a city on its lattice: from label rasters, or from its own published map."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from pyproj import Transformer
from pyproj.exceptions import ProjError
from rasterio.warp import transform_bounds
from shapely import box
from shapely.geometry.base import BaseGeometry

from mapper.area.grid import WGS84, Grid, PixelBox, plain_number
from mapper.catalog.bands import BandAsset
from mapper.classes import ClassTable
from mapper.cube.sample import Pixels
from mapper.cube.warp import read_band
from mapper.errors import DataError, ReadError
from mapper.inference.composition import CONFIDENCE_STEPS
from mapper.run.samples.cut import CityCube
from mapper.run.samples.legend import (
    TIFF,
    Described,
    colors_of,
    described_rasters,
    items_near,
    items_of,
    legend_in,
    legend_of,
    read_legend,
)
from mapper.training.data.labelled import IGNORED
from mapper.transport.opening import open_raster

_FARTHEST = 2.0
"""Factor by which the pixels of labels that were searched for may differ from the run's."""
_ALIKE = 1.05
"""Factor within which rasters have pixels of one size."""

ReadLabels = Callable[[PixelBox], np.ndarray]
"""Gives `(y, x)` uint8 class values of a lattice box, IGNORED where there is no class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRaster:
    """A raster of class values; only its header has been read."""

    href: str
    crs: str
    transform: Affine
    lonlat: tuple[float, float, float, float]
    """West, south, east, north."""
    classes: ClassTable
    license: str

    def resolution(self, grid: Grid, at: tuple[float, float]) -> float:
        """Metres on the ground per pixel, at a place in the grid's CRS."""
        try:
            to_source = Transformer.from_crs(grid.crs, self.crs, always_xy=True)
            east, north = to_source.transform([at[0], at[0] + grid.resolution], [at[1], at[1]])
        except ProjError:
            return math.inf
        inverse, x, y = ~self.transform, east[1] - east[0], north[1] - north[0]
        pixels = math.hypot(inverse.a * x + inverse.b * y, inverse.d * x + inverse.e * y)
        return grid.resolution / pixels if pixels and math.isfinite(pixels) else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFiles:
    """Label rasters that were found."""

    rasters: tuple[LabelRaster, ...]
    """By name."""
    chosen: bool
    """True where the user named the one raster, so that its pixels may have any size."""


def find_labels(path: Path, legend: ClassTable | None) -> LabelFiles:
    """The label rasters that a path names, with the classes of each.

    Args:
        path: a GeoTIFF, a folder of them, or the JSON of a static STAC catalog.
        legend: classes of all of them; None takes those of STAC, or of colours and tags.

    Raises: DataError where there is no raster with known classes.
    """
    if path.is_dir():
        hrefs = [str(p.resolve()) for p in sorted(path.rglob("*")) if p.suffix.lower() in TIFF]
        known = described_rasters(items_near(path))
    elif path.suffix.lower() == ".json" and path.is_file():
        known = described_rasters(items_of(path))
        hrefs = sorted(known)
    elif path.is_file():
        hrefs = [str(path.resolve())]
        known = described_rasters(items_near(path.parent, "*.json"))
    else:
        raise DataError(f"{path} does not exist; name a GeoTIFF, a folder or a STAC catalog")
    found = [_label_raster(href, known.get(href, Described()), legend) for href in hrefs]
    rasters = tuple(raster for raster in found if raster is not None)
    if not rasters:
        raise DataError(
            f"{path} holds no label raster: of {len(hrefs)} GeoTIFFs none has one band of whole "
            "numbers and known classes (classification:classes of its STAC item, or tags CLASS_0, "
            "CLASS_1 ...); list the classes in a file (--classes)"
        )
    return LabelFiles(rasters=rasters, chosen=path.is_file() and path.suffix.lower() in TIFF)


def _label_raster(href: str, known: Described, legend: ClassTable | None) -> LabelRaster | None:
    """The header of a raster; None where it holds no labels."""
    try:
        with open_raster(href) as dataset:
            whole = np.dtype(dataset.dtypes[0]).kind in "ui"
            if dataset.count != 1 or not whole or dataset.crs is None:
                return None
            classes = legend
            if classes is None and known.classes:
                classes = legend_of(known.classes, colors_of(dataset), dataset.nodata, href)
            classes = classes or legend_in(dataset)
            if classes is None:
                return None
            return LabelRaster(
                href=href,
                crs=dataset.crs.to_wkt(),
                transform=dataset.transform,
                lonlat=transform_bounds(dataset.crs, WGS84, *dataset.bounds),
                classes=classes,
                license=known.license,
            )
    except ReadError as reason:
        raise DataError(f"{reason}; mend it or move it away") from reason


def fitting(
    files: LabelFiles, grid: Grid, area: BaseGeometry, lonlat: BaseGeometry
) -> tuple[LabelRaster, ...]:
    """The rasters over an area whose pixels fit the grid's best; empty where none is there.

    Finer labels are sampled at the grid's pixel centres; coarser ones, up to twice, too.

    Args:
        files: what was found.
        grid: the city's lattice.
        area: in the grid's CRS.
        lonlat: the same in EPSG:4326.

    Raises: DataError where the pixels of all of them are too large, or where those that fit
        have different classes.
    """
    near = [raster for raster in files.rasters if box(*raster.lonlat).intersects(lonlat)]
    if not near or files.chosen:
        return tuple(near)
    middle = area.centroid
    sizes = [raster.resolution(grid, (middle.x, middle.y)) for raster in near]
    fine = [size for size in sizes if size < _FARTHEST * grid.resolution]
    if not fine:
        best = min(sizes)
        raise DataError(
            f"no label raster has pixels of {plain_number(grid.resolution)} m, as the run has, or "
            f"finer: {near[sizes.index(best)].href} has {best:.3g} m; name one file with --labels "
            "to sample it all the same"
        )
    best = min(fine, key=lambda size: abs(math.log(size / grid.resolution)))
    fit = [r for r, size in zip(near, sizes, strict=True) if 1 / _ALIKE < size / best < _ALIKE]
    check_classes(fit)
    return tuple(fit)


def check_classes(rasters: Sequence[LabelRaster]) -> None:
    """Raise DataError where rasters have different classes."""
    for raster in rasters[1:]:
        if raster.classes != rasters[0].classes:
            raise DataError(
                f"{rasters[0].href} and {raster.href} have different classes; name one folder or "
                "file with --labels, or list the classes of all in a file (--classes)"
            )


def label_reader(rasters: Sequence[LabelRaster], grid: Grid) -> ReadLabels:
    """Reads rasters at the centres of lattice pixels; of several the first by name counts."""

    def read(pixels: PixelBox) -> np.ndarray:
        found = np.full(pixels.shape, IGNORED, dtype=np.uint8)
        for raster in rasters:
            part = read_band(_band(raster.href), grid, pixels, "nearest", overviews=False)
            free = (found == IGNORED) & part.valid & np.isin(part.values, raster.classes.values)
            found[free] = part.values[free]
        return found

    return read


def map_reader(folder: Path, classes: ClassTable, confidence: float, grid: Grid) -> ReadLabels:
    """Reads a published map where its confidence is high enough.

    Args:
        folder: of the product.
        classes: of the map.
        confidence: least probability of the class, 0 to 1.
        grid: the city's lattice.
    """
    # confidence is stored in steps, so the threshold is the lowest step that reaches it
    least = math.ceil(round(confidence * CONFIDENCE_STEPS, 6))

    def read(pixels: PixelBox) -> np.ndarray:
        mapped = _published(folder / "classes.tif", grid, pixels)
        sure = _published(folder / "confidence.tif", grid, pixels)
        good = mapped.valid & sure.valid & (sure.values >= least)
        good &= np.isin(mapped.values, classes.values)
        return np.where(good, mapped.values, IGNORED).astype(np.uint8)

    return read


def _published(path: Path, grid: Grid, pixels: PixelBox) -> Pixels:
    return read_band(_band(str(path)), grid, pixels, "nearest", overviews=False)


def _band(href: str) -> BandAsset:
    return BandAsset(href=href, index=1, nodata=None, scale=None, offset=None)


# labels of a run ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLabels:
    """Labels of the cities of a run."""

    classes: ClassTable
    """With IGNORED as nodata."""
    readers: Mapping[str, ReadLabels]
    """Per city that has labels; inside its area alone."""
    licenses: tuple[str, ...]
    facts: Mapping[str, Any]
    """Where they come from, for the index."""


def labels_of_rasters(cubes: Sequence[CityCube], path: Path, legend: Path | None) -> RunLabels:
    """Labels that the user has, see `find_labels`.

    Args:
        cubes: of the cities; those that no raster lies over get no labels.
        path: of the rasters.
        legend: file with their classes; None takes what they say themselves.

    Raises: DataError where they do not fit.
    """
    files = find_labels(path, None if legend is None else read_legend(legend))
    fits = {cube.slug: fitting(files, cube.grid, cube.area, cube.lonlat) for cube in cubes}
    used = [raster for rasters in fits.values() for raster in rasters]
    if not used:
        raise DataError(f"{path} lies over none of the cities; give labels that do")
    check_classes(used)
    return RunLabels(
        classes=used[0].classes,
        readers={
            cube.slug: _inside(cube, label_reader(fits[cube.slug], cube.grid))
            for cube in cubes
            if fits[cube.slug]
        },
        licenses=tuple(sorted({raster.license or "other" for raster in used})),
        facts={
            "labels": {
                slug: [Path(raster.href).name for raster in rasters]
                for slug, rasters in fits.items()
                if rasters
            }
        },
    )


def labels_of_maps(cubes: Sequence[CityCube], confidence: float) -> RunLabels:
    """The run's own maps as labels, where they are at least so sure.

    Raises: DataError where they were made by different models.
    """
    models = [cube.item["properties"]["mapper:model"] for cube in cubes]
    for cube, model in zip(cubes, models, strict=True):
        if model["sha256"] != models[0]["sha256"]:
            raise DataError(
                f"the maps of {cubes[0].slug} and {cube.slug} were made by different models; "
                "--refresh the older one, or choose with --city"
            )
    listed = cubes[0].item["assets"]["classes"]["classification:classes"]
    classes = replace(ClassTable.from_stac(listed), nodata=IGNORED)
    readers = {
        cube.slug: map_reader(cube.version.product_folder, classes, confidence, cube.grid)
        for cube in cubes
    }
    model = {key: models[0][key] for key in ("name", "license", "sha256")}
    return RunLabels(
        classes=classes,
        readers={cube.slug: _inside(cube, readers[cube.slug]) for cube in cubes},
        licenses=tuple(sorted({str(cube.item["properties"]["license"]) for cube in cubes})),
        facts={"model": model, "confidence": confidence},
    )


def _inside(cube: CityCube, read: ReadLabels) -> ReadLabels:
    """Labels of a city's area alone."""

    def masked(pixels: PixelBox) -> np.ndarray:
        return np.where(cube.inside.of(pixels), read(pixels), np.uint8(IGNORED))

    return masked
