"""Samples of a run: patches of its cubes with labels, to train models on.

Points are drawn per class or city, or given; around each a square is cut from the cube of the
city's latest finished version. Labels are rasters that the user has, or the run's own map where
it is sure. What is outside a city's area has no label and no point.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import mapper
from mapper.classes import ClassTable
from mapper.errors import DataError, UsageError
from mapper.events import Event, Listener, ignore
from mapper.run.chosen import check_alike, latest_versions
from mapper.run.samples.cut import CityCube, all_bands, open_cube
from mapper.run.samples.labels import RunLabels, labels_of_maps, labels_of_rasters
from mapper.run.samples.pointfile import read_points
from mapper.run.samples.take import (
    CitySamples,
    CityTaker,
    Rules,
    Wanted,
    class_strata,
    wanted_at_points,
    wanted_in_all,
    wanted_of_classes,
    whole_stratum,
)
from mapper.training.data.stac import SetFacts
from mapper.training.data.write import Format, SetWriter, check_new

PER_STRATUM = 50
"""Samples of each class of a city, or of each city, where nothing else is asked for."""
_LARGEST = 16384

Stratify = Literal["class", "city", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOptions:
    """The command line of `mapper samples`."""

    run: Path
    """Folder of a run."""
    out: Path
    """New or empty."""
    labels: Path | None = None
    """A GeoTIFF, a folder of them or a static STAC catalog."""
    classes: Path | None = None
    """YAML or JSON with the classes of the labels, where they do not say themselves."""
    pseudo: bool = False
    """Label by the run's own map."""
    confidence: float = 0.8
    """Of pseudo-labels: pixels below have no label."""
    points: Path | None = None
    """The user's own points."""
    per_class: int | None = None
    """Of each class in each city."""
    count: int | None = None
    """In all, over all cities."""
    stratify: Stratify = "class"
    """`class`: each class of a city alike; `city`: each city alike; `none`: by area."""
    size: int = 256
    format: Format = "geotiff"
    seed: int = 0
    cities: tuple[str, ...] = ()
    """Names or slugs; all where empty."""
    product: str | None = None
    """Recipe and period, where the run has several."""
    block: float | None = None
    """Metres: at most one patch has its centre in each square of this side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplesReport:
    """How `mapper samples` ended."""

    out: Path
    cities: tuple[CitySamples, ...]
    """By slug."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Cities without samples, and why."""
    outside: int = 0
    """Points of the user that lie in no city."""

    @property
    def samples(self) -> int:
        """How many there are."""
        return sum(city.samples for city in self.cities)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "out": str(self.out),
            "samples": self.samples,
            "cities": {
                city.slug: {
                    "samples": city.samples,
                    "classes": dict(city.classes),
                    "dropped": dict(city.dropped),
                    "short": dict(city.short),
                }
                for city in self.cities
            },
            "skipped": dict(self.skipped),
            "outside": self.outside,
        }


def make_samples(options: SampleOptions, listener: Listener = ignore) -> SamplesReport:
    """Draw points, cut patches and write the set; the index appears last.

    What is drawn of a city depends on seed, size, quota and that city alone.

    Raises: UsageError for options that cannot be; DataError for labels or points that do not
        fit, or where no sample is left; StoreError where the disk refuses.
    """
    _check(options)
    versions = latest_versions(options.run, options.cities, options.product)
    cubes = [open_cube(version) for version in versions]
    check_alike(
        cubes,
        ": the recipe changed between them; --refresh the older one, or choose with --city",
    )
    if options.labels is None:
        labels = labels_of_maps(cubes, options.confidence)
    else:
        labels = labels_of_rasters(cubes, options.labels, options.classes)
    chosen = [cube for cube in cubes if cube.slug in labels.readers]
    wanted = _wanted(options, chosen, labels.classes)
    facts = _facts(options, chosen, labels)
    rules = Rules(size=options.size, seed=options.seed, block=options.block)
    done: list[CitySamples] = []
    with SetWriter(options.out, facts, options.format, wanted.most) as writer:
        for cube in chosen:
            taker = CityTaker(cube, labels.readers[cube.slug], facts, rules, writer)
            done.append(taker.take(wanted))
            _tell(done[-1], listener, (len(done), len(chosen)))
        report = SamplesReport(
            out=options.out,
            cities=tuple(done),
            skipped={c.slug: "no labels lie over it" for c in cubes if c not in chosen},
            outside=wanted.outside,
        )
        if not report.samples:
            raise DataError(
                f"no sample is left ({_why(report)}); ask for smaller patches, less confidence "
                "or other points"
            )
        writer.finish()
    return report


# what is asked for -------------------------------------------------------------------------


def _check(options: SampleOptions) -> None:
    """Raise UsageError for options that cannot be, or cannot be together."""
    for name, value, known in (
        ("stratify", options.stratify, get_args(Stratify)),
        ("format", options.format, get_args(Format)),
    ):
        if value not in known:
            raise UsageError(f"--{name} is {value!r}; give {', '.join(known)}")
    if (options.labels is None) == (not options.pseudo):
        raise UsageError("give either --labels or --pseudo: patches need labels of one kind")
    if options.per_class is not None and options.count is not None:
        raise UsageError("give --per-class or --count, not both")
    if options.per_class is not None and options.stratify != "class":
        raise UsageError(f"--per-class goes with --stratify class, not {options.stratify}")
    if options.points and (options.per_class or options.count):
        raise UsageError("--points says how many samples there are; leave the numbers out")
    for name, number in (("per-class", options.per_class), ("count", options.count)):
        if number is not None and number < 1:
            raise UsageError(f"--{name} is {number}; give 1 or more")
    if not 1 <= options.size <= _LARGEST:
        raise UsageError(f"--size is {options.size}; give 1 to {_LARGEST} pixels")
    if not 0 <= options.confidence <= 1:
        raise UsageError(f"--confidence is {options.confidence}; give 0 to 1")
    if options.block is not None and not 0 < options.block < math.inf:
        raise UsageError(f"--block is {options.block}; give metres")
    check_new(options.out)


def _wanted(options: SampleOptions, cubes: Sequence[CityCube], classes: ClassTable) -> Wanted:
    if options.points is not None:
        return wanted_at_points(cubes, read_points(options.points))
    by_class = options.stratify == "class"
    if by_class and options.count is None:
        return wanted_of_classes(cubes, classes, options.per_class or PER_STRATUM)
    count = PER_STRATUM * len(cubes) if options.count is None else options.count
    strata = class_strata(classes) if by_class else whole_stratum(classes)
    return wanted_in_all(cubes, strata, count, options.stratify == "none")


def _facts(options: SampleOptions, cubes: Sequence[CityCube], labels: RunLabels) -> SetFacts:
    first = cubes[0].item["properties"]
    images = sorted({str(cube.item["properties"]["license"]) for cube in cubes})
    licenses = {*images, *labels.licenses}
    recipe = first["mapper:recipe"]
    interval = f"{first['start_datetime']}/{first['end_datetime']}"
    cities = {
        cube.slug: {
            "version": cube.version.number,
            "recipe": cube.item["properties"]["mapper:recipe"]["sha256"],
            "missing": cube.item["properties"]["mapper:missing"],
        }
        for cube in cubes
    }
    return SetFacts(
        title=f"Samples of {cubes[0].version.product}",
        bands=all_bands(cubes),
        classes=labels.classes,
        size=options.size,
        license=licenses.pop() if len(licenses) == 1 else "other",
        interval=interval,
        method="automatic" if options.pseudo else "manual",
        run={
            "product": cubes[0].version.product,
            "recipe": {"name": recipe["name"], "title": recipe["title"]},
            "period": interval,
            "resolution": cubes[0].grid.resolution,
            "cities": cities,
            "licenses": {"images": images, "labels": list(labels.licenses)},
            "drawn": {
                "stratify": "points" if options.points else options.stratify,
                "seed": options.seed,
                "block": options.block,
            },
            "software": {"mapper": mapper.__version__},
            **labels.facts,
        },
    )


def _tell(made: CitySamples, listener: Listener, progress: tuple[int, int]) -> None:
    listener(
        Event(
            kind="city",
            city=made.slug,
            stage="samples",
            state="done",
            message=f"{made.samples} samples",
            done=progress[0],
            total=progress[1],
            data={"classes": dict(made.classes), "dropped": dict(made.dropped)},
        )
    )
    if made.short:
        lacking = ", ".join(f"{name} {number}" for name, number in made.short.items())
        message = f"fewer samples than asked for, missing are {lacking}"
        listener(Event(kind="warning", city=made.slug, message=message))


def _why(report: SamplesReport) -> str:
    """What became of all candidates."""
    dropped: Counter[str] = Counter()
    for city in report.cities:
        dropped.update(city.dropped)
    if report.outside:
        dropped["outside every city"] = report.outside
    told = ", ".join(f"{number} {reason}" for reason, number in dropped.items())
    return told or "no pixel has a label"
