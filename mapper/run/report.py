"""How a run ended: per city, for the exit code, and in the files over a whole folder."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mapper
from mapper.cluster.likeness import versions_of
from mapper.errors import HeldError, MapperError, NothingFoundError, PartlyDoneError
from mapper.product.item import index_feature, run_collection
from mapper.run.plan import RunRequest
from mapper.run.publish import read_item
from mapper.run.release import all_released
from mapper.store.files import write_json

_REPORTED = ("numpy", "rasterio", "zarr", "onnxruntime-gpu", "onnxruntime", "pyproj", "distributed")


@dataclass(slots=True)
class CityResult:
    """How a city ended."""

    slug: str
    name: str
    state: str
    """`published`, `candidate` (held by its gates), `finished` before, `unchanged`, `planned`,
    `nothing found` or `failed`."""
    reason: str = ""
    product: str = ""
    """Folder of the product, relative to the run's."""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def mapped(self) -> bool:
        """True where there is a map, whether it is released or a candidate."""
        return self.good or self.state == "candidate"

    @property
    def good(self) -> bool:
        """True where nothing went wrong."""
        return self.state not in {"nothing found", "failed", "candidate"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """How a run ended."""

    results: tuple[CityResult, ...]
    seconds: float
    out: Path

    def check(self) -> None:
        """Raise what the exit code says.

        Raises: NothingFoundError where no city has a scene; PartlyDoneError where some cities
            are mapped and others are not; HeldError where maps did not pass their gates and
            nothing else is wrong; MapperError where none is mapped.
        """
        bad = [r for r in self.results if not r.good]
        if not bad:
            return
        held = [r for r in bad if r.state == "candidate"]
        if len(held) == len(bad):
            raise HeldError(
                f"{len(held)} of {len(self.results)} maps are candidates: {held[0].name}: "
                f"{held[0].reason}; look at them and `mapper release`, or mend what is wrong"
            )
        told = bad[0].reason if len(bad) == 1 else ", ".join(r.name for r in bad)
        if all(r.state == "nothing found" for r in self.results):
            raise NothingFoundError(f"nothing found for any city: {told}")
        if len(bad) < len(self.results):
            raise PartlyDoneError(f"{len(bad)} of {len(self.results)} cities not mapped: {told}")
        raise MapperError(f"no city was mapped: {told}")


def write_overview(request: RunRequest, report: RunReport) -> None:
    """Collection, index and report over everything that is published in the folder."""
    newest: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
    statistics: dict[str, dict[str, Any]] = {}
    for version in all_released(request.out):
        path = str((version.product_folder / "item.json").relative_to(request.out))
        newest[version.slug, version.product] = (path, read_item(version))
        statistics[path] = _areas(version.product_folder / "statistics.json")
    items = dict(newest.values())
    if items:
        licenses = [item["properties"]["license"] for item in items.values()]
        collection = run_collection(items, "Maps of cities", licenses)
        write_json(request.out / "collection.json", collection)
        features = [index_feature(i, p, statistics[p]) for p, i in sorted(items.items())]
        index = {"type": "FeatureCollection", "features": features}
        write_json(request.out / "index.geojson", index)
    write_json(request.out / "report.json", _report(request, report))


def _areas(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    areas = {f"{row['name']}_km2": row["km2"] for row in content["classes"]}
    return {"area_km2": content["area_km2"], "mapped_share": content["mapped_share"], **areas}


def _report(request: RunRequest, report: RunReport) -> dict[str, Any]:
    """What was done, when, with what; the time, host and cost fields are under `run`."""
    return {
        "recipe": {
            "name": request.recipe.name,
            "sha256": request.recipe.digest,
            "license": request.recipe.license,
            "use": request.recipe.use,
        },
        "attributions": sorted(
            {x for r in report.results for x in r.facts.get("terms", {}).get("attributions", [])}
        ),
        "model": {"name": request.card.name, "sha256": request.card.sha256},
        "inference": request.inference.to_dict(),
        "period": request.period.interval,
        "cities": [
            {
                "slug": r.slug,
                "name": r.name,
                "state": r.state,
                "reason": r.reason,
                "product": r.product,
                **{name: fact for name, fact in r.facts.items() if name != "reads"},
            }
            for r in report.results
        ],
        "run": {
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": report.seconds,
            "reads": {r.slug: r.facts["reads"] for r in report.results if "reads" in r.facts},
            "software": {"mapper": mapper.__version__, **versions_of(_REPORTED)},
        },
    }
