"""A simulated archive, a cluster in this process, and runs that share both."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from mapper.run.report import RunReport
from mapper.run.run import RunOptions, run
from mapper.simulate import SimulatedCity, WorldOptions, write_archive

# where tiles of every size meet, on the border of zones 31 and 32
CORNER_CITY = SimulatedCity(
    name="Cornerton",
    country="Nowhere",
    iso="XXA",
    lon=6.000405530440417,
    lat=45.641195240101595,
    size_m=3000,
    seed=7,
)
ISLAND_CITY = SimulatedCity(
    name="Plainville",
    country="Nowhere",
    iso="XXA",
    lon=-30.2,
    lat=-35.1,
    size_m=1200,
    seed=8,
    orbits=("descending",),
)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small cities, one of them across two zones."""
    folder = tmp_path_factory.mktemp("world")
    options = WorldOptions(
        year=2022,
        scenes=4,
        s1_dates=1,
        margin_m=700,
        bands=("blue", "green", "red", "nir"),
        highres=False,
    )
    write_archive(folder, [CORNER_CITY, ISLAND_CITY], options)
    return folder


@pytest.fixture(scope="session")
def in_process() -> Iterator[str]:
    """Address of a Dask cluster whose worker is a thread of this process."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster.scheduler_address


Runner = Callable[..., RunReport]


@pytest.fixture
def map_world(world: Path, in_process: str, tmp_path: Path) -> Runner:
    """Run cities of the simulated world in this process."""

    def runner(**changes: Any) -> RunReport:
        options = {
            "aoi": world / "cities.geojson",
            "year": 2022,
            "catalog": str(world / "catalog.json"),
            "out": tmp_path / "out",
            "cluster": in_process,
            "tile_size": 512,
        }
        return run(RunOptions(**(options | changes)))

    return runner


def read_map(report: RunReport, slug: str) -> dict[str, Any]:
    """Classes, confidence and lattice position of a finished map, released or not."""
    result = next(r for r in report.results if r.slug == slug)
    assert result.mapped, result.reason
    product = report.out / result.product
    with rasterio.open(product / "classes.tif") as dataset:
        corner = round(dataset.transform.c / 10), round(-dataset.transform.f / 10)
        classes = dataset.read(1)
    with rasterio.open(product / "confidence.tif") as dataset:
        confidence = dataset.read(1)
    return {"classes": classes, "confidence": confidence, "corner": corner, "folder": product}


def common_part(a: dict[str, Any], b: dict[str, Any]) -> list[np.ndarray]:
    """Classes and confidence of two maps over the ground where both have data."""
    (col_a, row_a), (col_b, row_b) = a["corner"], b["corner"]
    col, row = max(col_a, col_b), max(row_a, row_b)
    height = min(row_a + a["classes"].shape[0], row_b + b["classes"].shape[0]) - row
    width = min(col_a + a["classes"].shape[1], col_b + b["classes"].shape[1]) - col
    parts = []
    for one, (left, top) in ((a, (col_a, row_a)), (b, (col_b, row_b))):
        place = np.s_[row - top : row - top + height, col - left : col - left + width]
        parts.append((one["classes"][place], one["confidence"][place]))
    both = (parts[0][0] != 255) & (parts[1][0] != 255)
    assert both.sum() > 5000
    return [layer[both] for part in parts for layer in part]


def differing(a: dict[str, Any], b: dict[str, Any]) -> int:
    """Pixels whose class or confidence differs where both maps have data."""
    classes_a, confidence_a, classes_b, confidence_b = common_part(a, b)
    return int(((classes_a != classes_b) | (confidence_a != confidence_b)).sum())


def checksums(folder: Path, suffixes: tuple[str, ...] = (".tif", ".csv", ".json", ".png")) -> dict:
    """SHA-256 of every product file."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.suffix in suffixes
    }
