"""A server as archives run it: stac-fastapi-pgstac on PostgreSQL with PostGIS, on loopback.

PostgreSQL comes from Debian (`postgresql postgresql-15-postgis-3`), the server from an environment
of its own (`make build/pgstac/.installed`).
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from mapper.catalog.api import ApiCatalog
from mapper.catalog.query import Period, PropertyFilter
from mapper.catalog.source import open_catalog
from mapper.simulate import read_items

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "build" / "pgstac" / "bin"
WORLD = [(-180.0, -90.0, 180.0, 90.0)]
YEAR = Period.year(2022)
CLEAR = PropertyFilter(cloud_cover=20)
WAIT = 60


def _programs():
    """Folder of PostgreSQL's programs; skips where they or PostGIS are not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    version = found[-1].parent.parent.name
    if not Path(f"/usr/share/postgresql/{version}/extension/postgis.control").exists():
        pytest.skip(f"PostGIS is not installed: apt-get install postgresql-{version}-postgis-3")
    if not (SERVER / "uvicorn").exists():
        pytest.skip("stac-fastapi-pgstac is not installed: make build/pgstac/.installed")
    return found[-1].parent


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def _until(ready, what):
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if ready():
                return
        time.sleep(0.2)
    raise AssertionError(f"{what} does not answer")


@contextlib.contextmanager
def _running(command, **options):
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, **options)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(WAIT)


@pytest.fixture(scope="module")
def database():
    """Environment variables of an empty database of an unprivileged user."""
    programs, port = _programs(), _free_port()
    # PostgreSQL refuses to run as root
    who = {"user": "nobody"} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="pgstac-"))
    if who:
        shutil.chown(folder, "nobody")
    clean = {"PATH": f"{programs}:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(folder)}
    options = {**who, "env": clean, "cwd": folder}
    subprocess.run(
        [programs / "initdb", "-D", folder / "data", "-U", "stac", "-A", "trust", "-E", "UTF8"],
        check=True, stdout=subprocess.DEVNULL, **options,
    )  # fmt: skip
    command = [programs / "postgres", "-D", folder / "data", "-h", "127.0.0.1", "-p", str(port)]
    command += ["-k", folder, "-c", "fsync=off"]
    try:
        with _running(command, **options):
            ready = [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-q"]
            _until(
                lambda: subprocess.run(ready, check=False, **options).returncode == 0, "postgres"
            )
            yield clean | {
                "PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "stac",
                "PGPASSWORD": "none", "PGDATABASE": "postgres",
            }  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def loaded(database, simulated, tmp_path_factory):
    """The same, with the items of the simulated archive."""
    folder = tmp_path_factory.mktemp("pgstac")
    collections = [
        json.loads(path.read_text()) | {"links": []}
        for path in sorted(simulated.parent.glob("*/collection.json"))
    ]
    for name, rows in (("collections", collections), ("items", read_items(simulated))):
        (folder / name).write_text("\n".join(map(json.dumps, rows)))
    commands = [["migrate"], ["load", "collections", folder / "collections"]]
    commands.append(["load", "items", folder / "items", "--method", "upsert"])
    for command in commands:
        subprocess.run([SERVER / "pypgstac", *command], check=True, env=database, cwd=folder)
    return database


@contextlib.contextmanager
def serving(database, extensions):
    """Address of the API over the database."""
    port = _free_port()
    address = f"http://127.0.0.1:{port}/"
    command = [SERVER / "uvicorn", "stac_fastapi.pgstac.app:create_app", "--factory"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with _running(command, env=database | {"ENABLED_EXTENSIONS": extensions}, cwd="/"):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def answers():
            with opener.open(address, timeout=5) as answer:
                return answer.status == 200

        _until(answers, "stac-fastapi-pgstac")
        yield address


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extensions", "language"),
    [("query,filter,pagination", "cql2"), ("query,pagination", "query"), ("pagination", "")],
)
def test_a_server_on_postgis_is_read_in_pages_of_ten(loaded, simulated, extensions, language):
    items = [i for i in read_items(simulated) if i["collection"] == "sentinel-2-l2a"]
    clear = {i["id"] for i in items if CLEAR.keeps(i)}
    assert len(items) > 20, "three pages"
    assert 0 < len(clear) < len(items)
    with serving(loaded, extensions) as address:
        opened = open_catalog(address)
        assert isinstance(opened, ApiCatalog)
        catalog = ApiCatalog(opened.client, opened.io, 10)
        assert catalog.language == language
        found = list(catalog.search("sentinel-2-l2a", WORLD, YEAR))
        assert sorted(i["id"] for i in found) == sorted(i["id"] for i in items)
        answer = catalog.ask("sentinel-2-l2a", WORLD, YEAR, CLEAR)
        assert answer.asked == (CLEAR.words if language else "")
        expected = clear if language else {i["id"] for i in items}
        assert {i["id"] for i in answer.items} == expected
        platforms = PropertyFilter(platforms=("SENTINEL-2A",))
        some = catalog.ask("sentinel-2-l2a", WORLD, YEAR, platforms)
        kept = {i["id"] for i in items if platforms.keeps(i)}
        assert {i["id"] for i in some.items if platforms.keeps(i)} == kept
        # its query extension answers `in` with nothing, so there it is asked again without
        assert bool(some.asked) == (language == "cql2") == (len(some.items) == len(kept))
