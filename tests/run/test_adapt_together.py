"""One model of several cities, by one process and by two."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from mapper.errors import StoreError, UsageError
from mapper.inference.card import load_card
from mapper.run.adapt import together as adapttogether
from mapper.run.adapt.batch import adapt_cities
from mapper.run.adapt.together import check_learned, keep_learned, wait_for_learned
from mapper.run.layout import Version

pytestmark = [
    pytest.mark.filterwarnings("ignore:Use `@` matmul instead of:PendingDeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]

SLUGS = ["plainville", "zweistadt"]
PRODUCT = "tiny-10m-2022"


def latest(mapped, slug, number):
    return Version(root=mapped, slug=slug, product=PRODUCT, number=number)


def item_of(version):
    return json.loads((version.product_folder / "item.json").read_text())


@pytest.mark.slow
def test_together_is_one_model_of_all(request_, mapped):
    report = adapt_cities(replace(request_, together=True))
    report.check()
    assert {city.model for city in report.cities} == {"together/model"}
    card = load_card(str(request_.out / "together" / "model"))
    for slug in SLUGS:
        assert item_of(latest(mapped, slug, 2))["properties"]["mapper:model"]["sha256"] == (
            card.sha256
        )
    with pytest.raises(UsageError, match="another adaptation"):
        adapt_cities(request_)
    add_city(mapped)
    with pytest.raises(
        UsageError, match=r"was learned of plainville/\S+, zweistadt/\S+, and not of"
    ):
        adapt_cities(replace(request_, together=True))
    again = adapt_cities(replace(request_, together=True, cities=tuple(SLUGS)))
    assert [city.state for city in again.cities] == ["finished", "finished"]


def add_city(mapped):
    """A third, with the second one's imagery."""
    folder = shutil.copytree(mapped / "cities" / "zweistadt", mapped / "cities" / "dreistadt")
    for path in folder.rglob("item.json"):
        path.write_text(path.read_text().replace('"Zweistadt"', '"Dreistadt"'))


def test_a_city_that_was_not_learned_of_is_refused_at_once(request_, mapped):
    """And nothing is written down of it."""
    folder = request_.out / "together"
    keep_learned(folder, [latest(mapped, slug, 1) for slug in SLUGS])
    keep_learned(folder, [latest(mapped, slug, 1) for slug in reversed(SLUGS)])
    add_city(mapped)
    before = sorted(request_.out.rglob("*"))
    with pytest.raises(UsageError, match="and not of dreistadt/tiny-10m-2022/v1, plainville"):
        adapt_cities(replace(request_, together=True))
    assert sorted(request_.out.rglob("*")) == before
    with pytest.raises(UsageError, match="name the same cities"):
        check_learned(folder, [latest(mapped, slug, 2) for slug in SLUGS])


def test_a_further_process_waits_as_long_as_the_first_lives(mapped, tmp_path, monkeypatch):
    folder = tmp_path / "together"
    versions = [latest(mapped, slug, 1) for slug in SLUGS]
    looks = []

    def look(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            keep_learned(folder, versions)

    monkeypatch.setattr(adapttogether.time, "sleep", look)
    assert wait_for_learned(folder, mapped) == versions
    assert len(looks) == 3
    shutil.rmtree(folder)
    parents = iter([1000, 1000, 1])
    monkeypatch.setattr(adapttogether.os, "getppid", lambda: next(parents))
    with pytest.raises(StoreError, match="the first process ended"):
        wait_for_learned(folder, mapped)


def test_a_further_process_leaves_everything_to_the_first(request_, mapped, monkeypatch):
    """Of cities each alone it has nothing to do; no folder appears."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    report = adapt_cities(request_)
    report.check()
    assert report.cities == ()
    assert not request_.out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("target", ["run", "areas"])
def test_two_processes_learn_one_model(request_, mapped, world, recipe_file, tmp_path, target):
    """By the command line, which Lightning runs twice; the source is learned by both as well."""
    about = ["--target", str(mapped), "--no-predict"]
    if target == "areas":
        about = ["--target", str(world / "cities.geojson"), "--year", "2022", "--tile-size", "256"]
    command = [
        *(sys.executable, "-m", "mapper", "adapt", str(recipe_file)),
        *("--source", str(request_.source), "--out", str(request_.out), *about),
        *("--together", "--devices", "2", "--device", "cpu", "--method", "dpa", "--json"),
        *("--set", "split.block=60", "--catalog", str(world / "catalog.json")),
    ]
    told = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    # the second process prints nothing
    assert [line["kind"] for line in lines].count("done") == 1
    assert [city["state"] for city in lines[-1]["cities"]] == ["adapted", "adapted"]
    assert lines[-1]["cities"][0]["learned"] == [f"{slug}/{PRODUCT}/v1" for slug in SLUGS]
    claim = json.loads((request_.out / "together" / "adapt" / "adapt.json").read_text())
    assert claim["devices"] == 2
    load_card(str(request_.out / "together" / "model"))
    if target == "areas":
        assert all(latest(request_.out / "maps", slug, 2).published for slug in SLUGS)
