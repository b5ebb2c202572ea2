"""What is taken of each city: how many squares, around which points, and the taking itself."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mapper.area.grid import PixelBox
from mapper.classes import ClassTable
from mapper.run.samples.cut import CityCube
from mapper.run.samples.labels import ReadLabels
from mapper.run.samples.pointfile import UserPoint, pixels_of
from mapper.training.data.points import (
    Picked,
    Quota,
    Spacing,
    Stratum,
    draw,
    pick,
    shared_out,
    square_around,
)
from mapper.training.data.stac import Sample, SetFacts
from mapper.training.data.write import SetWriter

LEAST_VALID = 0.5
"""Share of a patch's pixels that must have data."""
ALL = "all"
"""The stratum of pixels of any class."""

Placed = tuple[UserPoint, int, int]
"""A point of the user with its lattice row and column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CitySamples:
    """What came of one city."""

    slug: str
    classes: Mapping[str, int]
    """Samples by the class in their middle; empty text where it has none."""
    dropped: Mapping[str, int]
    """Candidates that became no sample: `overlap`, `nodata`, `unlabelled`."""
    short: Mapping[str, int]
    """Samples that were asked for and are missing, by class or `all`."""

    @property
    def samples(self) -> int:
        """How many there are."""
        return sum(self.classes.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What holds for the squares of every city."""

    size: int
    """Side in pixels."""
    seed: int
    block: float | None
    """Metres: at most one square has its centre in each cell of this side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to take of each city."""

    quotas: Mapping[str, Quota]
    strata: tuple[Stratum, ...]
    points: Mapping[str, Sequence[Placed]] | None = None
    """The user's; None where points are drawn."""
    outside: int = 0
    """Points of the user that lie in no city."""

    @property
    def most(self) -> int:
        """Samples of all cities."""
        if self.points is not None:
            return sum(map(len, self.points.values()))
        return sum(quota.total for quota in self.quotas.values())


def wanted_of_classes(cubes: Sequence[CityCube], classes: ClassTable, number: int) -> Wanted:
    """So many samples of each class of each city."""
    strata = class_strata(classes)
    quota = Quota(total=number * len(strata), each=number)
    return Wanted(quotas={cube.slug: quota for cube in cubes}, strata=strata)


def wanted_in_all(
    cubes: Sequence[CityCube], strata: tuple[Stratum, ...], count: int, by_area: bool
) -> Wanted:
    """So many samples in all, the same number of each city or in proportion to its area."""
    weights = [cube.area.area if by_area else 1.0 for cube in cubes]
    shares = zip(cubes, shared_out(count, weights), strict=True)
    return Wanted(
        quotas={cube.slug: Quota(total=share, each=share) for cube, share in shares},
        strata=strata,
    )


def wanted_at_points(cubes: Sequence[CityCube], points: Sequence[UserPoint]) -> Wanted:
    """A sample at each point, in the first city whose area holds its pixel."""
    found: dict[str, Sequence[Placed]] = {}
    left = list(points)
    for cube in cubes:
        here, rest = [], []
        for point, (row, col) in zip(left, pixels_of(left, cube.grid), strict=True):
            pixel = PixelBox(row0=row, col0=col, row1=row + 1, col1=col + 1)
            if not pixel.intersect(cube.mapped).empty and cube.inside.of(pixel).all():
                here.append((point, row, col))
            else:
                rest.append(point)
        found[cube.slug], left = here, rest
    return Wanted(quotas={}, strata=(), points=found, outside=len(left))


def class_strata(classes: ClassTable) -> tuple[Stratum, ...]:
    """A stratum for each class."""
    return tuple(Stratum(name=c.name, values=(c.value,)) for c in classes.classes)


def whole_stratum(classes: ClassTable) -> tuple[Stratum, ...]:
    """One stratum of all pixels that have a class."""
    return (Stratum(name=ALL, values=classes.values),)


class CityTaker:
    """Takes the samples of one city."""

    def __init__(
        self,
        cube: CityCube,
        labels: ReadLabels,
        facts: SetFacts,
        rules: Rules,
        writer: SetWriter,
    ) -> None:
        """For a city.

        Args:
            cube: what images are cut from.
            labels: of the city, IGNORED outside its area.
            facts: of the set; images have its bands, those that the city lacks are NaN.
            rules: what holds for the squares.
            writer: of the set.
        """
        self._cube, self._labels, self._facts = cube, labels, facts
        self._rules, self._writer = rules, writer
        self._names = {c.value: c.name for c in facts.classes.classes}
        self._classes: Counter[str] = Counter()
        cell = None if rules.block is None else rules.block / cube.grid.resolution
        self._spacing = Spacing(rules.size, cell)

    def take(self, wanted: Wanted) -> CitySamples:
        """Draw points or take the user's, and write what can be used."""
        short: dict[str, int] = {}
        dropped: Mapping[str, int]
        if wanted.points is not None:
            dropped = self._given(wanted.points[self._cube.slug])
        else:
            quota = wanted.quotas[self._cube.slug]
            picked = self._drawn(wanted.strata, quota)
            dropped = picked.dropped
            short = {s.name: quota.each - picked.taken.get(s.name, 0) for s in wanted.strata}
            if sum(short.values()) != quota.total - sum(picked.taken.values()):
                # classes share the number: none of them was promised its part
                short = {ALL: quota.total - sum(picked.taken.values())}
        return CitySamples(
            slug=self._cube.slug,
            classes=dict(self._classes),
            dropped=dropped,
            short={name: number for name, number in short.items() if number},
        )

    def _drawn(self, strata: Sequence[Stratum], quota: Quota) -> Picked:
        seed = self._rules.seed, self._cube.slug
        candidates = draw(self._labels, self._cube.mapped, strata, quota.candidates, seed)
        return pick(candidates, quota, self._rules.size, self._spacing, self._use)

    def _given(self, points: Sequence[Placed]) -> dict[str, int]:
        """Take the user's points in their order; gives what was dropped and why."""
        dropped: Counter[str] = Counter()
        for point, row, col in points:
            square = square_around(row, col, self._rules.size)
            reason = self._use(square, point) if self._spacing.fits(square) else "overlap"
            if reason:
                dropped[reason] += 1
            else:
                self._spacing.take(square)
        return dict(dropped)

    def _use(self, square: PixelBox, point: UserPoint | None = None) -> str:
        """Write the patch of a square, or say why not."""
        held = square.intersect(self._cube.extent).shape
        if held[0] * held[1] < LEAST_VALID * self._rules.size**2:
            return "nodata"
        label, bands = self._labels(square), self._facts.bands
        counts = np.bincount(label.ravel(), minlength=256)
        pixels = {name: int(counts[value]) for value, name in self._names.items() if counts[value]}
        if not pixels:
            return "unlabelled"
        image = self._cube.read(square, bands)
        if self._cube.valid_share(image, bands) < LEAST_VALID:
            return "nodata"
        middle = self._rules.size // 2
        stratum = self._names.get(int(label[middle, middle]), "")
        more = {"city": self._cube.slug}
        if point is not None and point.name:
            more["name"] = point.name
        self._classes[stratum] += 1
        sample = Sample(
            id=f"{self._cube.slug}-{self._classes.total():05d}",
            group=(point.group if point else "") or self._cube.slug,
            stratum=stratum,
            epsg=self._cube.grid.epsg,
            transform=self._cube.grid.transform_of(square),
            shape=square.shape,
            pixels=pixels,
            more=more,
        )
        self._writer.add(sample, image, label)
        return ""
