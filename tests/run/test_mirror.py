"""A mirror: the same maps without the archive, whatever stops it, whatever an item is called."""

import hashlib
import http.server
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath

import pytest
import typer
from distributed import LocalCluster
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from pystac.validation.local_validator import get_local_schema_cache
from typer.testing import CliRunner

from mapper.area.grid import Grid
from mapper.catalog.bands import SENTINEL2_NUMBERS, find_band
from mapper.catalog.footprint import CELLS
from mapper.catalog.observation import datatake, epsg_of, moment
from mapper.catalog.search import search_source
from mapper.catalog.sentinel2 import baseline_of, declared_offset, mgrs_tile
from mapper.catalog.source import ItemList, Period, open_catalog
from mapper.cli.mirror import add_mirror
from mapper.errors import PartlyDoneError, ReadError, StoreError, UsageError
from mapper.recipe import Sentinel2Source, load_recipe
from mapper.run import mirrorwork
from mapper.run.ledger import Ledger
from mapper.run.mirror import MirrorOptions, mirror
from mapper.run.mirrorcatalog import item_path, keep_item, mirrored_item, write_catalog
from mapper.run.mirrorfiles import (
    HeldFile,
    copy_asset,
    held_file,
    place_of,
    refusal_of,
    slug_of,
    sweep,
)
from mapper.run.mirrorplan import Wanted, check_sources, needed_hrefs
from mapper.run.run import RunOptions, run
from mapper.simulate import SimulatedCity, WorldOptions, write_archive
from tests.schemas import faults

CITY = SimulatedCity(
    name="Plainville",
    country="Nowhere",
    iso="XXA",
    lon=-30.2,
    lat=-35.1,
    size_m=800,
    seed=8,
    orbits=("descending",),
)
WORLD_BOX = [(-180.0, -90.0, 180.0, 90.0)]


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder; asks its server what to spoil."""

    server: "_Server"

    def do_GET(self):
        self.server.asked[self.command, self.path] += 1
        if self.path.endswith(".tif") and self.server.allowed == 0:
            self.send_error(404)
            return
        if self.path.endswith(".tif") and self.server.allowed is not None:
            self.server.allowed -= 1
        super().do_GET()

    def do_HEAD(self):
        self.server.asked[self.command, self.path] += 1
        super().do_HEAD()

    def copyfile(self, source, outputfile):
        outputfile.write(source.read(self.server.cut))

    def log_message(self, *args):
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allowed: int | None = None
    """Rasters that are sent before the rest are gone; None for all."""
    cut = -1
    """Bytes after which a body ends; -1 for none."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self.asked: Counter[tuple[str, str]] = Counter()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def rasters(self, method: str = "GET") -> list[str]:
        return sorted(p for (m, p), n in self.asked.items() for _ in range(n) if _raster(m, p, method))


def _raster(method: str, path: str, wanted: str) -> bool:
    return method == wanted and path.endswith((".tif", ".tiff"))


@contextmanager
def serving(folder: Path) -> Iterator[_Server]:
    server = _Server(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    options = WorldOptions(
        year=2022,
        scenes=2,
        s1_dates=1,
        margin_m=700,
        bands=("blue", "green", "red", "nir"),
        highres=False,
    )
    write_archive(folder, [CITY], options)
    return folder


def options_for(world: Path, catalog: str, to: Path, **changes) -> MirrorOptions:
    given_run = RunOptions(
        aoi=world / "cities.geojson",
        year=2022,
        catalog=catalog,
        out=to.parent / "no-run",
        tile_size=512,
    )
    return MirrorOptions(run=given_run, to=to, **changes)


@dataclass
class Mirrored:
    root: Path
    report: object
    rasters: list[str]
    base: str = ""
    items: list[dict] = field(default_factory=list)


@pytest.fixture(scope="module")
def mirrored(world, tmp_path_factory) -> Mirrored:
    """A mirror whose archive is not there any more."""
    root = tmp_path_factory.mktemp("mirror") / "m"
    with serving(world) as server:
        report = mirror(options_for(world, f"{server.address}/catalog.json", root))
        found = Mirrored(root=root, report=report, rasters=server.rasters(), base=server.address)
    found.items = [json.loads(p.read_text()) for p in root.glob("collections/*/items/*.json")]
    return found


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def contents(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): sha256(p) for p in root.rglob("*") if p.is_file()}


def test_each_file_is_copied_once_and_byte_for_byte(world, mirrored):
    report = mirrored.report
    report.check()
    assert [c.state for c in report.cities] == ["mirrored"]
    assert report.copied == report.files == len(mirrored.rasters) == len({*mirrored.rasters})
    assert report.failures == ()
    for item in mirrored.items:
        for asset in item["assets"].values():
            original = world / asset["mapper:origin"].removeprefix(mirrored.base + "/")
            path = (item_path(mirrored.root, item["collection"], item["id"]).parent / asset["href"])
            assert path.read_bytes() == original.read_bytes()
            assert asset["file:checksum"] == "1220" + sha256(original)
            assert asset["file:size"] == original.stat().st_size
    assert report.copy_bytes == sum(
        a["file:size"] for item in mirrored.items for a in item["assets"].values()
    )


def shards(out: Path) -> dict[tuple[str, str], str]:
    ledger = Ledger(out / "ledger")
    try:
        return {
            (key.split("/")[0], f"{key}:{o.name}"): o.sha256
            for key, entry in ledger.entries.items()
            for o in entry.outputs
            if key.startswith(("ingest", "predict"))
        }
    finally:
        ledger.close()


def test_a_run_from_the_mirror_makes_the_same_files(world, mirrored, tmp_path):
    made = {}
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        for name, root in (("original", world), ("mirror", mirrored.root)):
            options = RunOptions(
                aoi=world / "cities.geojson",
                year=2022,
                catalog=str(root / "catalog.json"),
                out=tmp_path / name,
                cluster=cluster.scheduler_address,
                tile_size=512,
            )
            report = run(options)
            report.check()
            made[name] = tmp_path / name / report.results[0].product
    kinds = {".tif", ".csv", ".png"}
    one, other = (
        {p.name: sha256(p) for p in made[n].iterdir() if p.suffix in kinds or p.stem == "statistics"}
        for n in ("original", "mirror")
    )
    assert len(one) > 5
    assert one == other
    assert shards(tmp_path / "original") == shards(tmp_path / "mirror")
    items = [json.loads((made[n] / "item.json").read_text()) for n in ("original", "mirror")]
    scenes = [
        [(s["id"], s["datetime"], s.get("offset")) for x in sorted(_scenes(i)) for s in _scenes(i)[x]]
        for i in items
    ]
    assert scenes[0] == scenes[1]
    assert scenes[0]


def _scenes(item: dict) -> dict[str, list[dict]]:
    return item["properties"]["mapper:scenes"]


def test_a_second_mirror_copies_nothing_and_changes_nothing(world, mirrored):
    before = contents(mirrored.root)
    with serving(world) as server:
        # the files' addresses are those of the first server, which is gone
        catalog = mirrored.root.parent / "same.json"
        items = [json.loads(p.read_text()) for p in world.glob("*/*/*/*.json")]
        catalog.write_text(json.dumps({"type": "FeatureCollection", "features": []}))
        del items, server
    assert before == contents(mirrored.root)
