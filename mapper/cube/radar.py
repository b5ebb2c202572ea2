"""A tile of Sentinel-1: mean backscatter in linear power, scene by scene."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mapper.catalog.bands import Item
from mapper.catalog.observation import Observation, group_observations, orbit_state
from mapper.cube.failures import ReadFailures
from mapper.cube.load import Target, read_mosaic
from mapper.cube.made import Made
from mapper.cube.parallel import read_each
from mapper.cube.reduce.mean import PowerMean
from mapper.cube.reduce.speckle import SpeckleFilter
from mapper.cube.sample import Pixels
from mapper.cube.scratch import Scratch, StackShape
from mapper.cube.status import status_of
from mapper.errors import ReadError
from mapper.recipe import Sentinel1Source

_AT_ONCE = 6
_Bands = dict[str, Pixels]
_Take = Callable[[int, _Bands], None]


def radar_tile(
    source: Sentinel1Source, target: Target, items: tuple[Item, ...], failures: ReadFailures
) -> Made:
    """Mean backscatter in dB of each band, and of each orbit where the recipe keeps them apart."""
    looks = group_observations(items, target.grid.epsg)
    groups = {"": looks}
    if source.orbits == "apart":
        groups = {
            f"_{orbit}": [k for k in looks if orbit_state(k.items[0]) == orbit]
            for orbit in ("ascending", "descending")
        }
    data = np.full((len(source.layers), *target.shape), np.nan, dtype=np.float32)
    count = np.zeros(target.shape, dtype=np.uint16)
    missing: list[str] = []
    for suffix, members in groups.items():
        means = _Looks(source=source, target=target).means(members, failures)
        count += means[source.bands.all[0]].count
        for band, mean in means.items():
            data[source.layers.index(band + suffix)] = mean.decibel()
            if not mean.count.any():
                missing.append(band + suffix)
    status = status_of(count > 0, count > 0, failures.over(target))
    return Made(arrays=(data, count, status), observations=len(looks), missing=tuple(missing))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looks:
    """Observations of a tile; one is used in all its bands or in none."""

    source: Sentinel1Source
    target: Target

    def means(self, looks: Sequence[Observation], failures: ReadFailures) -> dict[str, PowerMean]:
        """Per band, the mean in linear power, of filtered looks where the recipe says so."""
        if self.source.speckle and len(looks) > 1:
            return self._filtered(looks, failures)
        means = {band: PowerMean(self.target.shape) for band in self.source.bands.all}

        def take(_: int, bands: _Bands) -> None:
            for band, pixels in bands.items():
                means[band].add(pixels.values, pixels.valid)

        self._each(looks, take, failures)
        return means

    def _filtered(
        self, looks: Sequence[Observation], failures: ReadFailures
    ) -> dict[str, PowerMean]:
        """Two passes: looks are kept on disk for the second, so no block is read twice."""
        side, names = self.source.speckle, self.source.bands.all
        around = replace(self, target=self.target.grow(side // 2))
        height, width = around.target.shape
        shape = StackShape(
            looks=len(looks), bands=len(names), height=height, width=width, dtype="float32"
        )
        filters = {band: SpeckleFilter((height, width), side) for band in names}
        means = {band: PowerMean(self.target.shape) for band in names}
        nothing = np.full((height, width), np.nan, dtype=np.float32)
        found: list[int] = []
        with Scratch(shape) as scratch:

            def first(number: int, bands: _Bands) -> None:
                for band, pixels in bands.items():
                    filters[band].add(pixels.values, pixels.valid)
                planes = [
                    np.where(bands[b].valid, bands[b].values, np.nan) if b in bands else nothing
                    for b in names
                ]
                scratch.write(number, planes, np.zeros((height, width), dtype=np.uint8))
                found.append(number)

            around._each(looks, first, failures)
            for number in found:
                for band, power in zip(names, scratch.look(number), strict=True):
                    valid = np.isfinite(power)
                    if valid.any():
                        whole = filters[band].filtered(np.where(valid, power, 0), valid)
                        inner = around.target.inner(whole, self.target)
                        means[band].add(inner, np.isfinite(inner))
        return means

    def _each(self, looks: Sequence[Observation], take: _Take, failures: ReadFailures) -> None:
        """Read some looks at a time, and hand them over in the order of time.

        A sum of floats depends on its order; the order in which servers answer must not show.
        """
        for start in range(0, len(looks), _AT_ONCE):
            found: dict[int, _Bands] = {}

            def read(number: int, found: dict[int, _Bands] = found) -> None:
                try:
                    found[number] = self._read(looks[number])
                except ReadError as reason:
                    failures.note(looks[number].items, reason)

            numbers = range(start, min(start + _AT_ONCE, len(looks)))
            read_each(read, numbers, _AT_ONCE)
            for number in sorted(found):
                take(number, found[number])

    def _read(self, look: Observation) -> _Bands:
        """The bands that a look has here; what a required one lacks, all lack."""
        bands = {}
        for band in self.source.bands.all:
            pixels = read_mosaic(look.items, band, self.target, self.source.resampling)
            if pixels is not None:
                bands[band] = Pixels(pixels.values, pixels.valid & (pixels.values > 0))
        needed = [bands[band] for band in self.source.bands.required if band in bands]
        if len(needed) < len(self.source.bands.required):
            return {}
        whole = np.ones(self.target.shape, dtype=bool)
        for pixels in needed:
            whole &= pixels.valid
        return {band: Pixels(p.values, p.valid & whole) for band, p in bands.items()}
