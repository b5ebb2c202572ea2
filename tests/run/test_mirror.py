"""A mirror: the same maps without the archive, whatever stops it, whatever an item is called."""

import hashlib
import http.server
import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path, PurePosixPath

import pytest
import shapely
import typer
from distributed import LocalCluster
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from pyproj import Transformer
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
from mapper.recipe import SclMask, Sentinel2Source, load_recipe
from mapper.run.layout import PROBES
from mapper.run.ledger import Ledger
from mapper.run.mirror import work as mirrorwork
from mapper.run.mirror.catalog import item_path, keep_item, mirrored_item, write_catalog
from mapper.run.mirror.files import (
    HeldFile,
    copy_asset,
    held_file,
    place_of,
    refusal_of,
    slug_of,
    sweep,
)
from mapper.run.mirror.mirror import MirrorOptions, MirrorReport, difference, mirror
from mapper.run.mirror.plan import Wanted, check_sources, needed_hrefs
from mapper.run.run import RunOptions, make_request, plan_run, run
from mapper.simulate import SimulatedCity, WorldOptions, write_archive
from tests.schemas import faults, registry

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
        if self.path.endswith((".tif", ".tiff")) and self.server.allowed == 0:
            self.send_error(404)
            return
        if self.path.endswith((".tif", ".tiff")) and self.server.allowed is not None:
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

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), partial(_Handler, directory=str(folder)))
        self.asked = _Asked()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def rasters(self, method: str = "GET") -> list[str]:
        """Paths of rasters that were asked for, as often as they were."""
        return sorted(
            path for path in self.asked.elements_of(method) if path.endswith((".tif", ".tiff"))
        )


class _Asked(Counter):
    def elements_of(self, method: str) -> list[str]:
        return [path for found, path in self.elements() if found == method]


@contextmanager
def serving(folder: Path, port: int = 0) -> Iterator[_Server]:
    server = _Server(folder, port)
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
        out=world.parent,
        tile_size=512,
    )
    return MirrorOptions(run=given_run, to=to, **changes)


@dataclass
class Mirrored:
    root: Path
    report: MirrorReport
    rasters: list[str]
    port: int
    items: list[dict] = field(default_factory=list)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def mirrored(world, tmp_path_factory) -> Mirrored:
    """A mirror whose archive is not there any more."""
    root = tmp_path_factory.mktemp("mirror") / "m"
    with serving(world) as server:
        report = mirror(options_for(world, f"{server.address}/catalog.json", root))
        found = Mirrored(root, report, server.rasters(), server.server_address[1])
    found.items = [json.loads(p.read_text()) for p in root.glob("collections/*/items/*.json")]
    return found


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def contents(root: Path) -> dict[str, str]:
    """Checksums of all files but the lock, which names its holder."""
    files = {p for p in root.rglob("*") if p.is_file()} - {root / ".lock"}
    return {str(p.relative_to(root)): sha256(p) for p in files}


def test_each_file_is_copied_once_and_byte_for_byte(world, mirrored):
    report = mirrored.report
    report.check()
    assert [c.state for c in report.cities] == ["mirrored"]
    assert report.copied == report.files == len(mirrored.rasters) == len({*mirrored.rasters})
    assert report.failures == ()
    for item in mirrored.items:
        for asset in item["assets"].values():
            original = world / asset["mapper:origin"].removeprefix(mirrored.base + "/")
            path = item_path(mirrored.root, item["collection"], item["id"]).parent / asset["href"]
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
            (key, o.name): o.sha256
            for (key, _), entry in ledger._entries.items()
            for o in entry.outputs
            if o.name != "item.json"  # it names the catalog's digest
        }
    finally:
        ledger.close()


def test_a_run_from_the_mirror_makes_the_same_files(world, mirrored, tmp_path):
    made = {}
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
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
            # measured once, so that both have one inference plan
            options.out.mkdir()
            shutil.copy(world.parent / PROBES, options.out)
            report = run(options)
            report.check()
            made[name] = tmp_path / name / report.results[0].product
    kinds = {".tif", ".csv", ".png"}
    one, other = (
        {
            p.name: sha256(p)
            for p in made[n].iterdir()
            if p.suffix in kinds or p.stem == "statistics"
        }
        for n in ("original", "mirror")
    )
    assert len(one) > 5
    assert one == other
    assert shards(tmp_path / "original") == shards(tmp_path / "mirror")
    items = [json.loads((made[n] / "item.json").read_text()) for n in ("original", "mirror")]
    scenes = [
        [
            (s["id"], s["datetime"], s.get("offset"))
            for x in sorted(_scenes(i))
            for s in _scenes(i)[x]
        ]
        for i in items
    ]
    assert scenes[0] == scenes[1]
    assert scenes[0]


def _scenes(item: dict) -> dict[str, list[dict]]:
    return item["properties"]["mapper:scenes"]


@pytest.fixture
def copy_of(mirrored, tmp_path) -> Path:
    """The mirror, to be spoiled."""
    return Path(shutil.copytree(mirrored.root, tmp_path / "m"))


def test_a_file_that_was_spoiled_is_noticed_and_copied_anew(world, mirrored, copy_of):
    before = contents(copy_of)
    item = min(mirrored.items, key=lambda i: i["id"])
    spoiled = (
        item_path(copy_of, item["collection"], item["id"]).parent
        / (
            item["assets"]["red"]
            if "red" in item["assets"]
            else next(iter(item["assets"].values()))
        )["href"]
    )
    body = bytearray(spoiled.read_bytes())
    body[len(body) // 2] ^= 1
    spoiled.write_bytes(body)
    with serving(world, mirrored.port) as server:
        report = mirror(options_for(world, f"{mirrored.base}/catalog.json", copy_of))
        assert server.rasters() == [server.rasters()[0]]
    report.check()
    assert (report.copied, report.held) == (1, report.files - 1)
    assert contents(copy_of) == before


def test_a_mirror_that_was_stopped_goes_on_with_what_is_missing(world, mirrored, tmp_path):
    root = tmp_path / "m"
    options = options_for(world, f"{mirrored.base}/catalog.json", root, jobs=2)
    with serving(world, mirrored.port) as server:
        server.allowed = 12
        report = mirror(options)
        server.allowed = None
        assert report.copied == 12
        assert len(report.failures) == report.files - 12
        with pytest.raises(PartlyDoneError, match=r"files are missing") as told:
            report.check()
        assert told.value.exit_code == 5
        assert [c.state for c in report.cities] == ["incomplete"]
        listed = listed_items(root)
        assert all(len(assets) for assets in listed.values())
        assert 0 < len(listed) < len(mirrored.items)
        # what a kill -9 leaves
        some = next(p for p in root.glob("assets/*/*.tif"))
        (some.parent / f".{some.name}.0123.part").write_bytes(b"half")
        there = {json.loads((root / p / ".asset.json").read_text())["of"] for p in folders(root)}
        server.asked.clear()
        again = mirror(options)
        asked = server.rasters()
    again.check()
    assert again.copied == len(asked) == again.files - 12
    addresses = {hashlib.sha256(f"{mirrored.base}{path}".encode()).hexdigest() for path in asked}
    assert not addresses & there
    assert contents(root) == contents(mirrored.root)


def folders(root: Path) -> list[Path]:
    return [p.parent.relative_to(root) for p in root.glob("assets/*/.asset.json")]


def listed_items(root: Path) -> dict[str, list[Path]]:
    """Files of each item that the catalog lists; all have to be there."""
    found = {}
    if not (root / "catalog.json").exists():
        return found
    catalog = open_catalog(str(root / "catalog.json"))
    for path in root.glob("collections/*/collection.json"):
        for item in catalog.search(json.loads(path.read_text())["id"], WORLD_BOX, None):
            files = [Path(a["href"]) for a in item["assets"].values()]
            assert all(f.is_file() for f in files)
            found[item["id"]] = files
    return found


def test_a_dry_run_writes_nothing_and_says_the_total(world, mirrored, tmp_path):
    app = typer.Typer()
    add_mirror(app)
    with serving(world, mirrored.port) as server:
        done = CliRunner().invoke(
            app,
            [
                *("--aoi", str(world / "cities.geojson"), "--year", "2022", "--tile-size", "512"),
                *("--catalog", f"{mirrored.base}/catalog.json", "--to", str(tmp_path / "m")),
                *("--out", str(world.parent), "--dry-run", "--json"),
            ],
        )
        assert done.exit_code == 0, done.output
        assert server.rasters() == []
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["files"] == mirrored.report.files
    assert (told["held"], told["copied"]) == (0, 0)
    assert told["copy_bytes"] == mirrored.report.copy_bytes
    assert [c["state"] for c in told["cities"]] == ["planned"]
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_told_before_anything_is_copied(tmp_path, monkeypatch):
    source = tmp_path / "a.tif"
    source.write_bytes(b"II*\0" + bytes(100))
    monkeypatch.setattr(mirrorwork, "free_bytes", lambda _: mirrorwork.RESERVE + 103)
    with pytest.raises(StoreError, match="free space"):
        work_for(tmp_path / "m", [source]).fill({})
    assert not list(tmp_path.glob("m/assets/*"))
    monkeypatch.setattr(mirrorwork, "free_bytes", lambda _: mirrorwork.RESERVE + 104)
    work_for(tmp_path / "m", [source]).fill({})
    assert len(list(tmp_path.glob("m/assets/*/a.tif"))) == 1


def item_of(identity: str, href: str = "/nowhere/a.tif", **properties) -> dict:
    ring = [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": identity,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [0, 0, 1, 1],
        "properties": {"datetime": "2022-05-01T00:00:00Z"} | properties,
        "links": [],
        "assets": {"red": {"href": href}},
        "collection": "c",
    }


def work_for(root: Path, paths: list[Path], names: list[str] | None = None):
    names = names or [p.name for p in paths]
    wanted = {
        ("c", name): Wanted(
            item=item_of(name, str(path)), collection="c", catalog="/c.json", hrefs={str(path)}
        )
        for name, path in zip(names, paths, strict=True)
    }
    return mirrorwork.MirrorWork(to=root, jobs=2, wanted=wanted, listener=lambda event: None)


EVIL = [
    "../../x",
    "/etc/passwd",
    "..",
    ".",
    "A",
    "a",
    "a b",
    "a_b",
    "x" * 5000,
    "con",
    "ä",
    "\u202e",
]


def test_names_that_want_out_stay_in_and_apart(tmp_path):
    source = tmp_path / "a.tif"
    source.write_bytes(b"II*\0")
    root = tmp_path / "deep" / "m"
    work_for(root, [source] * len(EVIL), EVIL).fill({})
    assert {p.name for p in tmp_path.iterdir()} == {"a.tif", "deep"}
    assert {p.name for p in root.parent.iterdir()} == {"m"}
    found = open_catalog(str(root / "catalog.json")).search("c", WORLD_BOX, None)
    assert sorted(item["id"] for item in found) == sorted(EVIL)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=20, unique=True))
def test_slugs_are_safe_and_apart(names):
    slugs = [slug_of(name) for name in names]
    assert len({slug.lower() for slug in slugs}) == len(names)
    assert all(set(s) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for s in slugs)
    assert all(len(s) <= 60 for s in slugs)


@given(st.text(min_size=1))
def test_places_are_below_the_assets_whatever_the_address(text):
    for href in (text, f"https://host/{text}", f"s3://bucket/{text}"):
        try:
            place = place_of(href)
        except ValueError:
            continue  # no address at all: `urlsplit` refuses it
        parts = PurePosixPath(place).parts
        assert len(parts) == 3
        assert parts[0] == "assets"
        assert not {"..", ".", ".asset.json"} & set(parts)
        assert not parts[2].startswith(".")
        assert all(len(part.encode()) <= 120 for part in parts)


@pytest.mark.parametrize(
    ("href", "catalog", "told"),
    [
        ("xyz+https://t.org/{z}/{x}/{y}?key={key}#g", "https://c", "permission is for reading"),
        ("/etc/passwd", "https://c/catalog.json", "path of this machine"),
        ("file:///etc/passwd", "/c.json", "no address that can be copied"),
        ("ftp://h/a.tif?sig=secret", "https://c", "no address that can be copied"),
        ("https://h/a.tif", "https://c", ""),
        ("s3://b/a.tif", "https://c", ""),
        ("/data/a.tif", "/data/catalog.json", ""),
    ],
)
def test_what_is_not_copied(href, catalog, told):
    reason = refusal_of(href, catalog)
    assert told in reason
    assert bool(told) == bool(reason)
    assert "key=" not in reason
    assert "secret" not in reason


def test_tile_services_and_sources_without_collection_are_refused_before_the_search():
    tiles = load_recipe("green-highres").model_dump(mode="json")
    source = next(iter(tiles["sources"].values()))
    source["collections"] = []
    recipe = type(load_recipe("green-highres")).model_validate(tiles)
    with pytest.raises(UsageError, match="names no collection"):
        check_sources(recipe)
    source["catalog"] = ""
    source["tiles"] = {
        "url": "https://t.org/{z}/{x}/{y}.png",
        "zoom": 18,
        "attribution": "T",
        "license": "other",
        "permission": "letter of 2024-03-01",
        "requests_per_second": 2,
    }
    with pytest.raises(UsageError, match="tile service"):
        check_sources(type(recipe).model_validate(tiles))


def test_a_broken_or_wrong_file_leaves_nothing_under_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("MAPPER_NETWORK__TRIES", "1")
    folder, root = tmp_path / "web", tmp_path / "m"
    folder.mkdir()
    (folder / "a.tif").write_bytes(b"II*\0" * 1000)
    (folder / "v.tif").write_bytes(b"  <VRTDataset>/etc/passwd</VRTDataset>")
    with serving(folder) as server:
        server.cut = 100
        with pytest.raises(ReadError):
            copy_asset(root, f"{server.address}/a.tif")
        server.cut = -1
        with pytest.raises(ReadError, match="points to other files"):
            copy_asset(root, f"{server.address}/v.tif")
        with pytest.raises(ReadError, match="promises"):
            copy_asset(root, f"{server.address}/a.tif", "1220" + "0" * 64)
        assert [p for p in root.rglob("*") if p.is_file()] == []
        # a checksum of another kind cannot be held against the file
        held = copy_asset(root, f"{server.address}/a.tif", "d50110" + "0" * 32)
    address = f"{server.address}/a.tif"
    assert held_file(root, address) == held
    assert held_file(root, address, held.checksum.upper()) == held
    assert held_file(root, address, "1220" + "0" * 64) is None
    (root / held.path).with_name(".a.tif.1.part").write_bytes(b"half")
    sweep(root)
    assert held_file(root, address) == held
    assert len(list((root / held.path).parent.iterdir())) == 2
    (root / held.path).write_bytes(b"II*\1" * 1000)
    assert held_file(root, address, thorough=False) == held
    assert held_file(root, address) is None
    (root / held.path).write_bytes(b"II*\0" * 999)
    assert held_file(root, address, thorough=False) is None


def test_an_item_loses_its_place_in_the_catalog_with_its_file(tmp_path):
    paths = [tmp_path / f"{n}.tif" for n in "ab"]
    for path in paths:
        path.write_bytes(b"II*\0" + path.name.encode())
    root = tmp_path / "m"
    work_for(root, paths).fill({})
    assert set(listed_items(root)) == {"a.tif", "b.tif"}
    (root / place_of(str(paths[0]))).unlink()
    assert write_catalog(root, {}) == 1
    assert set(listed_items(root)) == {"b.tif"}
    work_for(root, paths[:1]).fill({})
    assert set(listed_items(root)) == {"a.tif", "b.tif"}


def test_an_item_with_one_file_of_two_is_not_listed_and_keeps_the_cells_of_every_city(tmp_path):
    files = {}
    for key in ("red", "nir"):
        (tmp_path / "assets" / key).mkdir(parents=True)
        (tmp_path / "assets" / key / "a.tif").write_bytes(b"x")
        files[key] = HeldFile(path=f"assets/{key}/a.tif", size=1, checksum="1220" + "0" * 64)
    for cell in ("one", "two"):
        item = item_of("a", **{CELLS: [cell]})
        item["assets"]["nir"] = {"href": "/nowhere/b.tif"}
        keep_item(tmp_path, mirrored_item(item, "c", files))
    assert write_catalog(tmp_path, {}) == 1
    found = next(open_catalog(str(tmp_path / "catalog.json")).search("c", WORLD_BOX, None))
    assert found["properties"][CELLS] == ["one", "two"]
    (tmp_path / "assets/nir/a.tif").unlink()
    assert write_catalog(tmp_path, {}) == 0
    assert listed_items(tmp_path) == {}


def test_no_signed_address_gets_into_a_mirror(tmp_path):
    item = item_of("a", "https://user:word@h.org/a.tif?sig=secret")
    item["links"] = [{"rel": "self", "href": "https://h.org/a.json?token=secret"}]
    item["assets"]["red"]["alternate"] = {"s3": {"href": "https://h.org/a.tif?sig=secret"}}
    held = HeldFile(path="assets/x/a.tif", size=1, checksum="1220" + "0" * 64)
    made = mirrored_item(item, "c", {"red": held})
    keep_item(tmp_path, made)
    text = "".join(p.read_text() for p in tmp_path.rglob("*.json"))
    assert "secret" not in text
    assert "word" not in text
    assert made["assets"]["red"]["mapper:origin"] == "https://h.org/a.tif"
    assert made["properties"]["mapper:origin"] == "https://h.org/a.json"
    assert {"rel": "via", "href": "https://h.org/a.json"}.items() <= made["links"][-1].items()


def test_the_catalog_is_valid_stac(mirrored, archive):
    root = json.loads((mirrored.root / "catalog.json").read_text())
    assert core_faults(root, "catalog", archive) == []
    hrefs = [link["href"] for link in root["links"] if link["rel"] == "child"]
    assert len(hrefs) == 3
    for href in hrefs:
        collection = json.loads((mirrored.root / href).read_text())
        assert core_faults(collection, "collection", archive) == []
        assert all(not k["href"].startswith("/") for k in collection["links"])
    for item in mirrored.items:
        file_alone = [e for e in item["stac_extensions"] if "/file/" in e]
        assert len(file_alone) == 1
        assert (
            faults(item | {"stac_extensions": file_alone, "stac_version": "1.1.0"}, archive) == []
        )
        assert all("://" not in a["href"] and a["href"][0] == "." for a in item["assets"].values())


def core_faults(content: dict, kind: str, archive: Path) -> list[str]:
    uri = f"https://schemas.stacspec.org/v1.1.0/{kind}-spec/json-schema/{kind}.json"
    validator = Draft7Validator({"$ref": uri}, registry=registry(archive))
    return [error.message for error in validator.iter_errors(content)]


def test_real_items_say_the_same_out_of_a_mirror(archive, tmp_path):
    originals = {}
    for path in sorted((archive / "stac").glob("sentinel-2-*/*.json")):
        content = json.loads(path.read_text())
        for item in content.get("features", [content]):
            if item.get("type") == "Feature" and "red" in bands_of(item):
                originals.setdefault((path.parent.name, item["id"]), item)
    assert len(originals) > 3
    source = Sentinel2Source(kind="sentinel-2")
    for (collection, _), item in originals.items():
        keys = Wanted(
            item=item, collection=collection, catalog="", hrefs=needed_hrefs(item, source)
        )
        files = {}
        for key, href in keys.assets.items():
            held = HeldFile(path=place_of(href), size=1, checksum="1220" + "0" * 64)
            (tmp_path / held.path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / held.path).write_bytes(b"x")
            files[key] = held
        keep_item(tmp_path, mirrored_item(item, collection, files))
    assert write_catalog(tmp_path, {}) == len(originals)
    catalog = open_catalog(str(tmp_path / "catalog.json"))
    for collection in {c for c, _ in originals}:
        for copy in catalog.search(collection, WORLD_BOX, None):
            item = originals[collection, copy["id"]]
            assert decisive(copy) == decisive(item)
            assert bands_of(copy) == bands_of(item)


def decisive(item: dict) -> list:
    """What decides pixels, grouping and choice."""
    functions = (datatake, instant, epsg_of, mgrs_tile, baseline_of, declared_offset)
    cover = item["properties"].get("eo:cloud_cover")
    return [f(item) for f in functions] + [cover, item["geometry"], item["bbox"]]


def instant(item: dict) -> datetime:
    """A copy's time may be written with more digits."""
    return datetime.fromisoformat(moment(item).replace("Z", "+00:00"))


def test_a_mirror_is_searched_as_far_around_the_tiles_as_its_archive_was(world, tmp_path):
    options = options_for(world, str(world / "catalog.json"), tmp_path)
    request = make_request(options.run, writing=False)
    sources = {
        n: s.model_copy(update={"mask": SclMask(dilate=200)}) if s.kind == "sentinel-2" else s
        for n, s in request.recipe.sources.items()
    }
    request = replace(request, recipe=request.recipe.model_copy(update={"sources": sources}))
    assert any(request.reach(c) > 0 for c in request.recipe.composites)
    planning, judging = Boxes(world), Boxes(world)
    (plan,), _ = plan_run(request, opener=lambda _: planning)
    assert difference(plan, judging) == ""
    assert judging.asked == planning.asked != []


class Boxes:
    """A catalog that remembers where it was searched."""

    def __init__(self, world: Path) -> None:
        self.catalog = open_catalog(str(world / "catalog.json"))
        self.asked: list[tuple] = []

    def search(self, collection: str, boxes: list, period: Period | None) -> Iterator[dict]:
        self.asked.append((collection, *boxes))
        return self.catalog.search(collection, boxes, period)


def bands_of(item: dict) -> dict:
    """How each band is read, its place aside."""
    found = {name: find_band(item, name) for name in (*SENTINEL2_NUMBERS, "scl")}
    return {n: replace(b, href="", checksum="") for n, b in found.items() if b is not None}


def test_the_scene_limit_chooses_the_same_from_a_mirror():
    """Of two cells, one was made of a scene that does not touch the city's tile in it."""
    tiles = Grid(epsg=32631, resolution=10.0, tile=512)
    side = 2048 * 10
    left, right = tiles.tiles_in(
        tiles.box_of((side * 24 - 100, side * 200, side * 24 + 100, side * 200 + 100))
    )
    wide = (side * 23 - 9000, side * 200 - 9000, side * 24 + 6000, side * 201 + 9000)
    far = (side * 24 + 8000, side * 200 - 9000, side * 25 + 9000, side * 201 + 9000)
    found = [scene("wide", wide), scene("far", far)]
    source = Sentinel2Source(
        kind="sentinel-2", catalog="c", scenes_per_tile=1, bands={"required": ["red"]}, mask=None
    )
    period = Period.year(2022)
    before = search_source("s", source, [left, right], period, lambda _: ItemList(found)).items
    assert [(i["id"], len(i["properties"][CELLS])) for i in before] == [("wide", 1)]
    held = HeldFile(path="assets/x/a.tif", size=1, checksum="1220" + "0" * 64)
    copies = [mirrored_item(i, "sentinel-2-l2a", {"red": held}) for i in before]
    after = search_source("s", source, [left, right], period, lambda _: ItemList(copies)).items
    assert [i["properties"][CELLS] for i in after] == [i["properties"][CELLS] for i in before]
    for item in copies:
        del item["properties"][CELLS]
    other = search_source("s", source, [left, right], period, lambda _: ItemList(copies)).items
    assert [len(i["properties"][CELLS]) for i in other] == [2]


def scene(identity: str, bounds: tuple[float, ...]) -> dict:
    back = Transformer.from_crs(32631, 4326, always_xy=True).transform
    ground = shapely.transform(shapely.box(*bounds), back, interleaved=False)
    properties = {"grid:code": "MGRS-31UDQ", "eo:cloud_cover": 0}
    item = item_of(identity, f"https://h.org/{identity}.tif", **properties)
    return item | {
        "collection": "sentinel-2-l2a",
        "geometry": shapely.geometry.mapping(ground),
        "bbox": list(ground.bounds),
    }


def test_another_recipes_mirror_and_other_folders_are_refused(world, mirrored, tmp_path):
    kept = mirrored.root / "mirror.json"
    before = kept.read_text()
    other = options_for(world, str(world / "catalog.json"), mirrored.root)
    with pytest.raises(UsageError, match="other sources"):
        mirror(other)
    assert kept.read_text() == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else"):
        mirror(options_for(world, str(world / "catalog.json"), tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
