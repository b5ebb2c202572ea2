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
_Take = Callable[[int, Pixels], None]


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
    missing = []
    for suffix, members in groups.items():
        for number, band in enumerate(source.bands.all):
            reader = _Band(source=source, band=band, target=target)
            mean = reader.mean(members, failures)
            data[source.layers.index(band + suffix)] = mean.decibel()
            if number == 0:
                count += mean.count
            if not mean.count.any():
                missing.append(band + suffix)
    status = status_of(count > 0, count > 0, failures.any)
    return Made(arrays=(data, count, status), observations=len(looks), missing=tuple(missing))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Band:
    """One polarisation of some observations over a tile."""

    source: Sentinel1Source
    band: str
    target: Target

    def mean(self, looks: Sequence[Observation], failures: ReadFailures) -> PowerMean:
        """Their mean in linear power, of filtered looks where the recipe says so."""
        if self.source.speckle and len(looks) > 1:
            return self._filtered(looks, failures)
        mean = PowerMean(self.target.shape)
        self._each(looks, lambda _, pixels: mean.add(pixels.values, pixels.valid), failures)
        return mean

    def _filtered(self, looks: Sequence[Observation], failures: ReadFailures) -> PowerMean:
        """Two passes: looks are kept on disk for the second, so no block is read twice."""
        halo = self.source.speckle // 2
        around = replace(self, target=self.target.grow(halo))
        height, width = around.target.shape
        shape = StackShape(looks=len(looks), bands=1, height=height, width=width, dtype="float32")
        filtering = SpeckleFilter((height, width), self.source.speckle)
        mean, found = PowerMean(self.target.shape), []
        with Scratch(shape) as scratch:

            def first(number: int, pixels: Pixels) -> None:
                filtering.add(pixels.values, pixels.valid)
                scratch.write(number, [pixels.values], pixels.valid)
                found.append(number)

            around._each(looks, first, failures)
            for number in found:
                power = scratch.look(number)[0]
                valid = scratch.flags_of(number) > 0
                power = around.target.inner(filtering.filtered(power, valid), self.target)
                mean.add(power, np.isfinite(power))
        return mean

    def _each(self, looks: Sequence[Observation], take: _Take, failures: ReadFailures) -> None:
        """Read some looks at a time, and hand them over in the order of time.

        A sum of floats depends on its order; the order in which servers answer must not show.
        """
        for start in range(0, len(looks), _AT_ONCE):
            found: dict[int, Pixels] = {}

            def read(number: int, found: dict[int, Pixels] = found) -> None:
                look = looks[number]
                try:
                    pixels = read_mosaic(look.items, self.band, self.target, self.source.resampling)
                except ReadError as reason:
                    failures.note(look.key, reason)
                    return
                if pixels is not None:
                    found[number] = pixels

            numbers = range(start, min(start + _AT_ONCE, len(looks)))
            read_each(read, numbers, _AT_ONCE)
            for number in sorted(found):
                take(number, found[number])
