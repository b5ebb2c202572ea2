"""Plan, run and status of one folder, as a person uses them."""

import json
import subprocess
import sys

import pytest

from mapper.cli.demo import run_demo
from mapper.events import ignore
from mapper.simulate import SimulatedCity, WorldOptions, write_archive


def mapper(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "mapper", *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    folder = tmp_path_factory.mktemp("town")
    city = SimulatedCity(
        name="Smallton", country="Nowhere", iso="XXA", lon=-30.2, lat=-35.1, size_m=800, seed=1
    )
    options = WorldOptions(scenes=2, s1_dates=1, margin_m=600, bands=("green", "red", "nir"))
    write_archive(folder, [city], options)
    return folder


def test_plan_run_and_status_agree(town, tmp_path):
    where = ["--aoi", str(town / "cities.geojson"), "--catalog", str(town / "catalog.json")]
    rest = ["--year", "2022", "--out", str(tmp_path / "out"), "--tile-size", "256"]
    planned = mapper("plan", *where, *rest, "--json")
    assert planned.returncode == 0, planned.stderr
    (estimate,) = json.loads(planned.stdout)["cities"]
    assert estimate["scenes"]["elevation"] == 1
    assert estimate["windows"] >= 1
    assert not (tmp_path / "out").exists(), "a plan writes nothing"
    ran = mapper("run", *where, *rest, "--workers", "1")
    assert ran.returncode == 0, ran.stderr
    assert "dashboard http://127.0.0.1" in ran.stderr
    assert "smallton: publish 1 of 1" in ran.stderr
    told = mapper("status", str(tmp_path / "out"), "--json")
    (version,) = json.loads(told.stdout)["versions"]
    assert version["state"] == "finished"
    assert version["stages"]["ingest"]["total"] == estimate["ingest_tiles"] * 3
    assert "finished" in mapper("status", str(tmp_path / "out")).stdout


def test_status_says_why_a_city_failed(town, tmp_path):
    import shutil

    broken = tmp_path / "town"
    shutil.copytree(town, broken)
    path = next(broken.glob("sentinel-2-l2a/smallton/*/B04.tif"))
    path.write_bytes(path.read_bytes()[:3000])
    out = str(tmp_path / "out")
    ran = mapper(
        "run",
        "--aoi",
        str(broken / "cities.geojson"),
        "--catalog",
        str(broken / "catalog.json"),
        "--year",
        "2022",
        "--out",
        out,
        "--workers",
        "1",
    )
    assert ran.returncode == 1
    told = mapper("status", out).stdout
    assert "failed" in told
    assert "B04.tif" in told


@pytest.mark.slow
def test_the_demo_maps_three_cities(tmp_path):
    report, scores = run_demo(tmp_path / "demo", 2, ignore)
    assert [r.state for r in report.results] == ["published"] * 3
    assert all(0.5 < s["overall_accuracy"] < 1 for s in scores)
