"""Stop it at any moment, start it again: nothing is lost, nothing is done twice."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mapper.errors import LockedError
from mapper.run.ledger import Ledger
from tests.pipelines.conftest import checksums


def command(world: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "mapper",
        "run",
        "--aoi",
        str(world / "cities.geojson"),
        "--catalog",
        str(world / "catalog.json"),
        "--year",
        "2022",
        "--out",
        str(out),
        "--tile-size",
        "512",
        "--workers",
        "2",
        "--json",
        *more,
    ]


def committed(out: Path) -> int:
    return sum(len(p.read_bytes().splitlines()) for p in out.glob("ledger/*.jsonl"))


def kill_after(entries: int, world: Path, out: Path) -> None:
    """Start a run and kill the driver, -9, once so many steps are in the ledger."""
    process = subprocess.Popen(
        command(world, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 90
        while committed(out) < entries and time.monotonic() < deadline:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def all_products(out: Path) -> dict[str, dict]:
    return {p.parts[-4]: checksums(p) for p in sorted(out.glob("cities/*/*/v1/product"))}


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    done = subprocess.run(command(world, out), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_a_run_killed_at_several_moments_ends_as_if_undisturbed(world, undisturbed, tmp_path):
    out = tmp_path / "out"
    total = committed(undisturbed)
    # while scenes are inspected, tiles ingested, blocks predicted
    for share in (0.1, 0.5, 0.85):
        kill_after(int(total * share), world, out)
    frozen = {p: p.read_bytes() for p in out.glob("cities/*/*/v1/items.parquet")}
    assert len(frozen) == 2
    done = subprocess.run(command(world, out), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all_products(out) == all_products(undisturbed)
    assert all(p.read_bytes() == content for p, content in frozen.items())
    keys = [
        json.loads(line.split(b" ", 1)[1])["key"]
        for p in out.glob("ledger/*.jsonl")
        for line in p.read_bytes().splitlines()
    ]
    assert len(keys) == len(set(keys)) == total
    assert not list(out.glob("cities/**/.product*"))


def test_a_finished_run_does_nothing_in_seconds_and_searches_nothing(world, undisturbed):
    before = committed(undisturbed)
    catalog = world / "catalog.json"
    catalog.rename(world / "away.json")
    try:
        began = time.monotonic()
        done = subprocess.run(
            command(world, undisturbed), capture_output=True, text=True, check=False
        )
        seconds = time.monotonic() - began
    finally:
        (world / "away.json").rename(catalog)
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert [c["state"] for c in last["cities"]] == ["finished"] * 2
    assert committed(undisturbed) == before
    assert seconds < 20


def test_a_damaged_ledger_costs_its_last_step_alone(world, undisturbed, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    segment = max(out.glob("ledger/*.jsonl"))
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(lines)[:-20])
    for path in out.glob("cities/*/*/v1/version.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"finished": False}))
    done = subprocess.run(command(world, out), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "tail was damaged" in done.stdout
    assert committed(out) == len(lines) + 1
    assert all_products(out) == all_products(undisturbed)


def test_a_shard_that_is_gone_is_made_again(world, undisturbed, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    shard = next(p for p in out.glob("tiles/**/sentinel2/c/**/0") if p.is_file())
    before = shard.read_bytes()
    shutil.rmtree(shard.parents[4])
    for path in out.glob("cities/*/*/v1/version.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"finished": False}))
    done = subprocess.run(command(world, out), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert shard.read_bytes() == before
    assert all_products(out) == all_products(undisturbed)


def test_a_second_run_in_the_folder_is_refused_by_name(world, tmp_path):
    out = tmp_path / "out"
    first = subprocess.Popen(
        command(world, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while committed(out) < 1:
            assert first.poll() is None
            time.sleep(0.02)
        # it still holds the folder, and does not end meanwhile
        first.send_signal(signal.SIGSTOP)
        line = [sys.executable, "-m", "mapper", "status", str(out), "--every", "0.2", "--json"]
        watching = subprocess.Popen([*line, "--watch"], stdout=subprocess.PIPE, text=True)
        assert str(first.pid) in json.loads(watching.stdout.readline())["holder"]
        second = subprocess.run(command(world, out), capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert f"process {first.pid}" in second.stderr
    finally:
        first.kill()
        first.wait()
    # it ends when nobody runs there any more
    last = watching.communicate(timeout=30)[0].splitlines()[-1]
    assert json.loads(last)["holder"] is None


def test_sigterm_ends_the_run_with_143_and_it_resumes(world, undisturbed, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(world, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while committed(out) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "stopped by signal 15" in told
    assert "not waited for" not in told
    assert Ledger(out / "ledger").dropped == 0
    # what had begun was finished and written down: nothing half-done lies about
    assert not list(out.glob("tiles/**/.*"))
    done = subprocess.run(command(world, out), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all_products(out) == all_products(undisturbed)
    assert committed(out) == committed(undisturbed)


class TestRefresh:
    """Through the library, which shares one cluster."""

    def test_nothing_new_makes_no_version(self, map_world):
        map_world(cities=("Plainville",))
        again = map_world(cities=("Plainville",), refresh=True)
        assert again.results[0].state == "unchanged"
        assert again.results[0].product.endswith("v1/product")
        assert not list(again.out.glob("cities/*/*/v2"))

    def test_a_scene_less_redoes_what_it_touched_in_a_new_version(self, map_world, world, tmp_path):
        items = json.loads((world / "items.json").read_text())
        plain = tmp_path / "items.json"
        plain.write_text(json.dumps(items))
        first = map_world(cities=("Plainville",), catalog=str(plain))
        optical = [
            f["id"]
            for f in items["features"]
            if f["collection"] == "sentinel-2-l2a" and "plainville" in f["id"]
        ]
        items["features"] = [f for f in items["features"] if f["id"] != optical[0]]
        plain.write_text(json.dumps(items))
        second = map_world(cities=("Plainville",), catalog=str(plain), refresh=True)
        assert second.results[0].product.endswith("v2/product")
        steps = second.results[0].facts["steps"]
        # radar and elevation did not change: two thirds of the tiles' layers stay
        assert steps["ingest"]["skipped"] == steps["ingest"]["total"] * 2 // 3
        assert (first.out / first.results[0].product / "classes.tif").exists()
        item = json.loads((second.out / second.results[0].product / "item.json").read_text())
        assert "predecessor-version" in {link["rel"] for link in item["links"]}

    def test_another_recipe_needs_a_refresh(self, map_world, world, tmp_path):
        map_world(cities=("Plainville",))
        moved = json.loads((world / "cities.geojson").read_text())
        for feature in moved["features"]:
            feature["geometry"]["coordinates"][0] = [
                [x + 0.001, y] for x, y in feature["geometry"]["coordinates"][0]
            ]
        aoi = tmp_path / "moved.geojson"
        aoi.write_text(json.dumps(moved))
        report = map_world(cities=("Plainville",), aoi=aoi)
        assert report.results[0].state == "failed"
        assert "--refresh" in report.results[0].reason

    def test_another_tile_size_is_refused(self, map_world):
        map_world(cities=("Plainville",))
        report = map_world(cities=("Plainville",), tile_size=1024)
        assert "--tile-size" in report.results[0].reason


def test_the_lock_is_held_while_a_run_is_on(map_world, tmp_path):
    from mapper.run.lock import hold_folder

    with hold_folder(tmp_path / "out"), pytest.raises(LockedError):
        map_world(cities=("Plainville",))
