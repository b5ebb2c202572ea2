"""Which pixels of an observation the mask of its source lets through."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from mapper.catalog.bands import Item, find_band
from mapper.catalog.observation import Observation
from mapper.cube.inspect import Inspection
from mapper.cube.load import Target, read_mosaic, read_reflectance
from mapper.cube.masks import (
    NEVER_DATA,
    CloudBands,
    Masker,
    Place,
    clear_of_clouds,
    clear_of_scl,
    sun_azimuth,
    water_of,
)
from mapper.cube.warp import read_band
from mapper.errors import RecipeError
from mapper.recipe import CloudMask, ModelMask, SclMask, Sentinel2Source

Inspections = Mapping[str, Inspection]
Answer = tuple[np.ndarray, np.ndarray]
"""`(y, x)` bool: what is ground, and what no rule may ever use."""
SceneMask = Callable[[Observation, Inspections], Answer]


def scene_mask(source: Sentinel2Source, target: Target, masker: Masker | None = None) -> SceneMask:
    """The mask that a source asks for, over a target that it does not go beyond.

    Args:
        source: its rule.
        target: where answers are wanted.
        masker: runs the model of a `ModelMask`.

    Raises: RecipeError where a model is to mask and none is given.
    """
    match source.mask:
        case None:
            return _Everything(target)
        case SclMask() as rule:
            return _Scl(rule, target)
        case CloudMask() as rule:
            return _Clouds(rule, source, target)
        case ModelMask() as rule:
            if masker is None:
                raise RecipeError(f"mask model {rule.model!r} is not loaded; name a model folder")
            return _Model(masker, source, target)


@dataclass(frozen=True, slots=True)
class _Everything:
    target: Target

    def __call__(self, observation: Observation, inspections: Inspections) -> Answer:
        del observation, inspections
        return _all_clear(self.target)


@dataclass(frozen=True, slots=True)
class _Scl:
    """Sentinel-2's scene classification."""

    rule: SclMask
    target: Target

    def __call__(self, observation: Observation, inspections: Inspections) -> Answer:
        del inspections
        around = self.target.grow(self.rule.reach(self.target.grid.resolution))
        classes = read_mosaic(observation.items, "scl", around, "nearest")
        if classes is None:
            # a recipe may allow scenes without a classification
            return _all_clear(self.target)
        scl = np.where(classes.valid, classes.values, 0).astype(np.uint8)
        clear = clear_of_scl(scl, self.rule, self.target.grid.resolution)
        return around.inner(clear, self.target), around.inner(np.isin(scl, NEVER_DATA), self.target)


@dataclass(frozen=True, slots=True)
class _Clouds:
    """Cloud probability and shadows, granule by granule: each has its own sun."""

    rule: CloudMask
    source: Sentinel2Source
    target: Target

    def __call__(self, observation: Observation, inspections: Inspections) -> Answer:
        around = self.target.grow(self.rule.reach(self.target.grid.resolution))
        clear = np.zeros(self.target.shape, dtype=bool)
        known = np.zeros(self.target.shape, dtype=bool)
        for item in observation.items:
            bands = self._bands(item, observation, around, inspections)
            if bands is None:
                # a recipe may allow granules without a probability: all that they have is used
                found = valid = self._data(item, observation, inspections)
            else:
                place = Place(grid=around.grid, box=around.pixels)
                whole = clear_of_clouds(bands, self.rule, sun_azimuth(item), place)
                found = around.inner(whole, self.target)
                valid = around.inner(bands.valid, self.target)
            take = valid & ~known
            clear[take] = found[take]
            known |= valid
            if known.all():
                break
        return clear, ~known

    def _data(self, item: Item, observation: Observation, inspections: Inspections) -> np.ndarray:
        """Where a granule has its first required band."""
        one, how = replace(observation, items=(item,)), (inspections, self.source.resampling)
        pixels = read_reflectance(one, self.source.bands.required[0], self.target, how)
        return np.zeros(self.target.shape, dtype=bool) if pixels is None else pixels.valid

    def _bands(
        self, item: Item, observation: Observation, around: Target, inspections: Inspections
    ) -> CloudBands | None:
        """What the rule looks at; None where the scene has no cloud probability."""
        asset = find_band(item, "clp")
        if asset is None:
            return None
        # 0 is a probability, whatever the item calls it
        likely = read_band(replace(asset, nodata=-1.0), around.grid, around.pixels, "nearest")
        probability = likely.values.astype(np.float32) * np.float32(asset.scale or 1.0)
        one = replace(observation, items=(item,))
        how = (inspections, self.source.resampling)
        nir, green = (read_reflectance(one, name, around, how) for name in ("nir", "green"))
        scl = read_mosaic((item,), "scl", around, "nearest")
        classes = None if scl is None else np.where(scl.valid, scl.values, 0).astype(np.uint8)
        nothing = np.zeros(around.shape, dtype=np.uint16)
        stored = [nothing if p is None else p.values for p in (nir, green)]
        near, visible = (values.astype(np.float32) / np.float32(10_000) for values in stored)
        return CloudBands(
            probability=probability,
            nir=near,
            water=water_of(classes, visible, near),
            valid=likely.valid & (stored[0] > 0),
        )


@dataclass(frozen=True, slots=True)
class _Model:
    """Classes of a model that are not ground."""

    masker: Masker
    source: Sentinel2Source
    target: Target

    def __call__(self, observation: Observation, inspections: Inspections) -> Answer:
        around = self.target.grow(self.masker.reach)
        how = (inspections, self.source.resampling)
        valid, bands = np.ones(around.shape, dtype=bool), {}
        for name in self.masker.bands:
            pixels = read_reflectance(observation, name, around, how)
            if pixels is None:
                # a scene without a band that the model reads cannot be judged, so is not used
                never = np.ones(self.target.shape, dtype=bool)
                return ~never, never
            valid &= pixels.valid
            bands[name] = pixels.values.astype(np.float32) / np.float32(10_000)
        place = Place(grid=around.grid, box=around.pixels)
        clear = self.masker.clear(bands, valid, place)
        return around.inner(clear, self.target), ~around.inner(valid, self.target)


def _all_clear(target: Target) -> Answer:
    return np.ones(target.shape, dtype=bool), np.zeros(target.shape, dtype=bool)
