"""A city's shards become files that people open: all of them, or none."""

import json
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from rasterio.features import geometry_mask
from shapely.geometry.base import BaseGeometry

from mapper.area.grid import Grid, PixelBox, TileKey
from mapper.cube.template import STATUS
from mapper.errors import StoreError
from mapper.inference.composition import CONFIDENCE_STEPS
from mapper.inference.outputs import STEPS_NODATA
from mapper.product.cog import RasterSpec, strips, write_cog
from mapper.product.item import ProductFacts, ProductLayer, file_facts, product_item
from mapper.product.measures import ConfidenceMean, SeamCounter
from mapper.product.quicklook import Caption, shrink_factor, write_quicklook
from mapper.product.statistics import ClassAreas, PixelCounter, pixel_area_km2
from mapper.run.corrections import Overlay
from mapper.run.holes import HoleCounter
from mapper.run.layout import Version
from mapper.run.ledger import Output
from mapper.run.tasks import Outcome
from mapper.store.files import write_json, write_text
from mapper.store.shards import read_box, shard_file
from mapper.store.template import ArrayTemplate
from mapper.store.view import swap, write_view

PUBLISH_VERSION = 4
"""Raised whenever publishing gives other bytes for the same shards."""
_OUTSIDE = 1
_COUNT_NODATA = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySet:
    """Arrays of a city: per template, the array directory of each tile."""

    arrays: Mapping[ArrayTemplate, Mapping[TileKey, Path]]

    def read(self, name: str, pixels: PixelBox, tile: int) -> np.ndarray:
        """One array over any lattice box."""
        template = next(t for t in self.arrays if t.name == name)
        return read_box(self.arrays[template], template, pixels, tile)

    def shard_files(self) -> dict[ArrayTemplate, dict[TileKey, Path]]:
        """The file that holds each tile's shard."""
        return {
            template: {
                key: shard_file(path, len(template.dimensions)) for key, path in tiles.items()
            }
            for template, tiles in self.arrays.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishTask:
    """One city's product."""

    ledger_key: str
    version: Version
    facts: ProductFacts
    lonlat: bytes
    """The AOI in EPSG:4326 as WKB."""
    area: bytes
    """The AOI in the grid's CRS as WKB."""
    cube: ArraySet
    maps: ArraySet
    sources: tuple[str, ...]
    overlay: Overlay | None = None
    """Corrections of the map by people."""
    whole: tuple[str, ...] = ()
    """Sources that may have no hole where a scene could not be read."""

    def run(self) -> Outcome:
        """Write the views and the product folder; the folder appears when it is complete."""
        began = time.perf_counter()
        grid, version = self.facts.grid, self.version
        attributes = {"title": self.facts.title, "period": self.facts.interval}
        write_view(version.path / "cube.zarr", grid, self.cube.shard_files(), attributes)
        write_view(version.path / "map.zarr", grid, self.maps.shard_files(), attributes)
        attempt = version.path / f".product.{uuid.uuid4().hex}"
        try:
            attempt.mkdir(parents=True)
            areas = self._write_files(attempt)
            swap(attempt, version.product_folder)
        except OSError as reason:
            raise StoreError(
                f"{version.product_folder} could not be written ({reason}); free space and run "
                "again: finished steps are kept"
            ) from reason
        finally:
            shutil.rmtree(attempt, ignore_errors=True)
        return Outcome(
            outputs={self.ledger_key: _outputs(version)},
            facts={"statistics": areas.to_json()},
            seconds=time.perf_counter() - began,
        )

    def _write_files(self, folder: Path) -> ClassAreas:
        inside = InsideMask(shapely.from_wkb(self.area), self.facts.grid, self.facts.pixels)
        holes = HoleCounter(self.sources)
        seams = SeamCounter(tile=self.facts.grid.tile, nodata=self.facts.classes.nodata)
        mean = ConfidenceMean(steps=CONFIDENCE_STEPS, nodata=STEPS_NODATA)
        counts = self._write_rasters(folder, inside, holes, (seams, mean))
        holes.check(self.whole)
        areas = ClassAreas(
            pixels=counts,
            pixel_area=pixel_area_km2(
                shapely.from_wkb(self.lonlat), inside.area, self.facts.grid.resolution
            ),
            classes=self.facts.classes,
        )
        measures = {"mean_confidence": mean.value, "seam_index": seams.index}
        stated = {"city": self.facts.city, **areas.to_json(), **measures}
        write_json(folder / "statistics.json", stated)
        write_text(folder / "statistics.csv", areas.to_csv())
        self._write_quicklook(folder, areas)
        write_json(folder / "item.json", product_item(self.facts, folder, counts, holes.pixels))
        return areas

    def _write_rasters(
        self,
        folder: Path,
        inside: "InsideMask",
        holes: HoleCounter,
        measures: tuple[SeamCounter, ConfidenceMean],
    ) -> dict[int, int]:
        grid, tile, counter = self.facts.grid, self.facts.grid.tile, PixelCounter()
        seams, mean = measures
        tags = {
            "TITLE": self.facts.title,
            "PERIOD": self.facts.interval,
            "MODEL": str(self.facts.model["name"]),
            "SOFTWARE": "mapper",
        }

        def classes(pixels: PixelBox) -> np.ndarray:
            values, within = self.maps.read("classes", pixels, tile), inside.of(pixels)
            if self.overlay is not None:
                values = self.overlay.over(values, pixels)
            counter.add(values, within)
            shown: np.ndarray = np.where(within, values, self.facts.classes.nodata)
            seams.add(shown, pixels)
            return shown

        def confidence(pixels: PixelBox) -> np.ndarray:
            values = self.maps.read("confidence", pixels, tile)
            shown: np.ndarray = np.where(inside.of(pixels), values, STEPS_NODATA)
            mean.add(shown)
            return shown

        def observations(pixels: PixelBox) -> np.ndarray:
            layers = self._observations(pixels, inside.of(pixels))
            holes.add(layers)
            return layers

        specs = self._specs(grid, tags)
        write_cog(folder / "classes.tif", specs["classes"], classes)
        write_cog(folder / "confidence.tif", specs["confidence"], confidence)
        write_cog(folder / "observations.tif", specs["observations"], observations)
        for layer in self.facts.layers:
            self._write_layer(folder, layer, inside, tags)
        return counter.counts()

    def _write_layer(
        self, folder: Path, layer: ProductLayer, inside: "InsideMask", tags: Mapping[str, str]
    ) -> None:
        """A raster beside class, confidence and observations."""
        spec = RasterSpec(
            grid=self.facts.grid,
            pixels=self.facts.pixels,
            dtype=layer.dtype,
            nodata=layer.nodata,
            overviews="AVERAGE",
            descriptions=layer.bands,
            scale=layer.scale,
            tags=tags,
        )

        def read(pixels: PixelBox) -> np.ndarray:
            values = self.maps.read(layer.name, pixels, self.facts.grid.tile)
            return np.where(inside.of(pixels), values, np.array(layer.nodata, layer.dtype))

        write_cog(folder / f"{layer.name}.tif", spec, read)

    def _observations(self, pixels: PixelBox, within: np.ndarray) -> np.ndarray:
        """Count and status of each source: `(band, y, x)` uint16."""
        layers = []
        for name in self.sources:
            count = self.cube.read(f"{name}_count", pixels, self.facts.grid.tile)
            status = self.cube.read(f"{name}_status", pixels, self.facts.grid.tile)
            layers.append(np.where(within, np.minimum(count, _COUNT_NODATA - 1), _COUNT_NODATA))
            layers.append(np.where(within, status, _OUTSIDE))
        return np.stack(layers).astype(np.uint16)

    def _specs(self, grid: Grid, tags: Mapping[str, str]) -> dict[str, RasterSpec]:
        table = self.facts.classes
        common: dict[str, Any] = {"grid": grid, "pixels": self.facts.pixels}
        status = {"STATUS_VALUES": ", ".join(f"{k} {v}" for k, v in STATUS.items())}
        return {
            "classes": RasterSpec(
                **common,
                dtype="uint8",
                nodata=table.nodata,
                overviews="MODE",
                descriptions=("class",),
                colormap=table.colormap(),
                category_names=table.category_names,
                tags=tags,
            ),
            "confidence": RasterSpec(
                **common,
                dtype="uint8",
                nodata=STEPS_NODATA,
                overviews="AVERAGE",
                descriptions=("confidence",),
                scale=1 / CONFIDENCE_STEPS,
                tags=tags,
            ),
            "observations": RasterSpec(
                **common,
                dtype="uint16",
                nodata=_COUNT_NODATA,
                overviews="NEAREST",
                descriptions=tuple(
                    f"{name}_{what}" for name in self.sources for what in ("count", "status")
                ),
                tags={**tags, **status},
            ),
        }

    def _write_quicklook(self, folder: Path, areas: ClassAreas) -> None:
        shrink = shrink_factor(self.facts.pixels.shape)
        with rasterio.open(folder / "classes.tif") as dataset:
            shape = tuple(-(-side // shrink) for side in dataset.shape)
            thinned = dataset.read(1, out_shape=shape)
        caption = Caption(
            title=f"{self.facts.city}, {self.facts.interval[:4]}",
            subtitle=f"{self.facts.recipe['title']} ({self.facts.model['name']})",
            resolution=self.facts.grid.resolution * shrink,
            shares={row["value"]: row["share"] or 0.0 for row in areas.rows()},
        )
        write_quicklook(folder / "quicklook.png", thinned, self.facts.classes, caption)


class InsideMask:
    """Which lattice pixels belong to an AOI: those whose centre lies in it."""

    def __init__(self, area: BaseGeometry, grid: Grid, extent: PixelBox) -> None:
        """`area` in the grid's CRS; `extent` is its bounds snapped outward."""
        self.area = area
        self._grid = grid
        # an area too small or thin to hold a pixel's centre is mapped by the pixels it touches
        self._all_touched = not any(self._rasterize(strip, False).any() for strip in strips(extent))

    def of(self, pixels: PixelBox) -> np.ndarray:
        """`(y, x)` bool over a lattice box, True = inside."""
        return self._rasterize(pixels, self._all_touched)

    def _rasterize(self, pixels: PixelBox, all_touched: bool) -> np.ndarray:
        return np.asarray(
            geometry_mask(
                [self.area],
                out_shape=pixels.shape,
                transform=self._grid.transform_of(pixels),
                invert=True,
                all_touched=all_touched,
            )
        )


def _outputs(version: Version) -> tuple[Output, ...]:
    found = []
    for path in sorted(version.product_folder.iterdir()):
        if path.name == "item.json":
            # it is told later who released it, and what came after it
            continue
        facts = file_facts(path)
        found.append(
            Output(
                path=str(path.relative_to(version.root)),
                size=facts["file:size"],
                sha256=facts["file:checksum"][4:],
                name=path.name,
            )
        )
    return tuple(found)


def read_item(version: Version) -> dict[str, Any]:
    """The published item of a version."""
    path = version.product_folder / "item.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))
