"""Where a run keeps things, and the versions of a city's product.

```
OUT/.lock  ledger/  tiles/<tile key>/<step>/<hash>/<array>
OUT/cities/<slug>/grid-10m.json                      zone and tile size, fixed at the first run
OUT/cities/<slug>/<recipe>-<period>/v1/
    version.json  items.parquet  cube.zarr  map.zarr  product/
OUT/collection.json  index.geojson  report.json
```
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mapper.area.grid import Grid, plain_number
from mapper.errors import UsageError
from mapper.store.files import write_json


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

    def begin(self, fingerprint: str, facts: Mapping[str, Any]) -> None:
        """Write down what the version is for; the items are frozen by then."""
        write_json(self.state_file, {"finished": False, "fingerprint": fingerprint, **dict(facts)})

    def finish(self) -> None:
        """Mark the version finished."""
        write_json(self.state_file, (self.state() or {}) | {"finished": True})

    def numbered(self, number: int) -> "Version":
        """Another version of the same product."""
        return Version(root=self.root, slug=self.slug, product=self.product, number=number)


def latest_version(root: Path, slug: str, product: str) -> Version | None:
    """The highest version that was begun; None where there is none."""
    folder = root / "cities" / slug / product
    numbers = [int(p.parent.name[1:]) for p in folder.glob("v*/version.json")]
    if not numbers:
        return None
    return Version(root=root, slug=slug, product=product, number=max(numbers))


def all_versions(root: Path) -> Iterator[Version]:
    """Every version that was begun, by city, product and number."""
    found = []
    for path in root.glob("cities/*/*/v*/version.json"):
        *_, slug, product, number, _ = path.parts
        found.append((slug, product, int(number[1:])))
    for slug, product, count in sorted(found):
        yield Version(root=root, slug=slug, product=product, number=count)


def fixed_grid(root: Path, slug: str, wanted: Grid, explicit_tile: bool) -> Grid:
    """The city's lattice: as at its first run, where there was one.

    Raises: UsageError where another tile size is asked for than was used before.
    """
    path = _grid_file(root, slug, wanted.resolution)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return wanted
    grid = Grid(epsg=stored["epsg"], resolution=stored["resolution"], tile=stored["tile"])
    if explicit_tile and grid.tile != wanted.tile:
        raise UsageError(
            f"{slug} was begun with tiles of {grid.tile} pixels; leave --tile-size out, or "
            "choose another --out"
        )
    return grid


def keep_grid(root: Path, slug: str, grid: Grid) -> None:
    """Fix a city's lattice for all runs to come."""
    path = _grid_file(root, slug, grid.resolution)
    if not path.exists():
        fields = {"epsg": grid.epsg, "resolution": grid.resolution, "tile": grid.tile}
        write_json(path, fields)


def _grid_file(root: Path, slug: str, resolution: float) -> Path:
    return root / "cities" / slug / f"grid-{plain_number(resolution)}m.json"
