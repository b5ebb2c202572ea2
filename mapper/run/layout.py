"""Where a run keeps things, and the versions of a city's product.

```
OUT/.lock  ledger/  probes.json  tiles/<tile key>/<step>/<hash>/<array>
OUT/cities/<slug>/grid-10m.json                      zone and tile size, fixed at the first run
OUT/cities/<slug>/<recipe>-<period>/latest.json  latest -> v1  corrections.geojson
OUT/cities/<slug>/<recipe>-<period>/v1/
    version.json  items.parquet  shards.parquet  cube.zarr  map.zarr  product/
OUT/collection.json  index.geojson  report.json
```
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shapely import box

from mapper.area.aoi import AreaOfInterest
from mapper.area.grid import Grid, plain_number
from mapper.errors import StoreError, UsageError
from mapper.store.files import write_json

PROBES = "probes.json"
"""What was measured of models on this machine, beside the ledger."""
_SAME_PLACE = 1.0
"""Degrees within which an area of the same name counts as the same place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of one city's product."""

    root: Path
    """The run's folder."""
    slug: str
    product: str
    """Recipe and period, e.g. `spectral-10m-2022`."""
    number: int

    @property
    def path(self) -> Path:
        """Folder of the version."""
        return self.root / "cities" / self.slug / self.product / f"v{self.number}"

    @property
    def items(self) -> Path:
        """The frozen items."""
        return self.path / "items.parquet"

    @property
    def state_file(self) -> Path:
        """What the version is for, and whether it is finished."""
        return self.path / "version.json"

    @property
    def product_folder(self) -> Path:
        """The published files."""
        return self.path / "product"

    @property
    def key(self) -> str:
        """The version in ledger keys."""
        return f"{self.slug}/{self.product}/v{self.number}"

    def state(self) -> dict[str, Any] | None:
        """Content of `version.json`; None where the version was never begun."""
        try:
            return dict(json.loads(self.state_file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except ValueError as reason:
            raise StoreError(
                f"{self.state_file} is damaged ({reason}); delete its folder and run again"
            ) from reason

    def begin(self, fingerprint: str, facts: Mapping[str, Any]) -> None:
        """Write down what the version is for; the items are frozen by then."""
        write_json(self.state_file, {"finished": False, "fingerprint": fingerprint, **dict(facts)})

    def forget(self) -> None:
        """A version that was never begun: new items may take the place of old ones."""
        self.state_file.unlink(missing_ok=True)

    def drop(self) -> None:
        """Take the version away, its state first, so that half of it is none of it."""
        self.forget()
        shutil.rmtree(self.path, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what a killed run left half-written."""
        for leftover in self.path.glob(".*"):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)

    @property
    def published(self) -> bool:
        """True where the product's files are there."""
        names = ("item.json", "classes.tif", "statistics.json")
        return all((self.product_folder / name).exists() for name in names)

    def finish(self) -> None:
        """Mark the version finished."""
        self.note({"finished": True})

    def note(self, facts: Mapping[str, Any]) -> None:
        """Add to `version.json`, or change it there."""
        write_json(self.state_file, (self.state() or {}) | dict(facts))

    def numbered(self, number: int) -> "Version":
        """Another version of the same product."""
        return Version(root=self.root, slug=self.slug, product=self.product, number=number)


def latest_version(root: Path, slug: str, product: str) -> Version | None:
    """The highest version that was begun; None where there is none."""
    folder = root / "cities" / slug / product
    numbers = [n for p in folder.glob("v*/version.json") if (n := _number(p.parent))]
    if not numbers:
        return None
    return Version(root=root, slug=slug, product=product, number=max(numbers))


def _number(folder: Path) -> int | None:
    """Of a version's folder; None for one that only looks like it."""
    name = folder.name[1:]
    return int(name) if name.isdecimal() else None


def all_versions(root: Path) -> Iterator[Version]:
    """Every version that was begun, by city, product and number."""
    found = []
    for path in root.glob("cities/*/*/v*/version.json"):
        *_, slug, product, number, _ = path.parts
        if _number(path.parent):
            found.append((slug, product, int(number[1:])))
    for slug, product, count in sorted(found):
        yield Version(root=root, slug=slug, product=product, number=count)


def fixed_grid(root: Path, area: AreaOfInterest, wanted: Grid, explicit_tile: bool) -> Grid:
    """The city's lattice: as at its first run, where there was one.

    Raises: UsageError where another tile size is asked for than was used before, or the folder
        holds another place of the same name.
    """
    slug = area.slug
    path = _grid_file(root, slug, wanted.resolution)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return wanted
    grid = Grid(epsg=stored["epsg"], resolution=stored["resolution"], tile=stored["tile"])
    if not box(*stored["bbox"]).buffer(_SAME_PLACE).intersects(area.geometry):
        raise UsageError(
            f"{slug} was begun for another place, around {stored['bbox'][:2]}; rename the area "
            "or choose another --out"
        )
    if explicit_tile and grid.tile != wanted.tile:
        raise UsageError(
            f"{slug} was begun with tiles of {grid.tile} pixels; leave --tile-size out, or "
            "choose another --out"
        )
    return grid


def keep_grid(root: Path, area: AreaOfInterest, grid: Grid) -> None:
    """Fix a city's lattice for all runs to come."""
    path = _grid_file(root, area.slug, grid.resolution)
    if not path.exists():
        fields: dict[str, Any] = {"epsg": grid.epsg, "tile": grid.tile}
        fields["resolution"] = grid.resolution
        fields["bbox"] = list(area.geometry.bounds)
        write_json(path, fields)


def _grid_file(root: Path, slug: str, resolution: float) -> Path:
    return root / "cities" / slug / f"grid-{plain_number(resolution)}m.json"
