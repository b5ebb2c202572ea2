"""A map that does not pass its gates is a candidate until a person lets it through."""

import json
import shutil

import pytest
import yaml
from typer.testing import CliRunner

from mapper.cli.commands import app
from mapper.errors import HeldError, LockedError, UsageError
from mapper.recipe import load_recipe
from mapper.run.garbage import find_garbage
from mapper.run.layout import all_versions
from mapper.run.lock import hold_folder
from mapper.run.release import candidates, chosen, release_all, released
from tests.pipelines.conftest import checksums

PRODUCT = "spectral-10m-2022"


@pytest.fixture
def again(map_world, tmp_path):
    """Map a city with some gates, as often as wanted."""

    def runner(refresh=False, dilate=0.0, **gates):
        recipe = load_recipe("spectral-10m").model_dump(mode="json", exclude_none=True)
        recipe["gates"] = gates
        # another mask is another version
        recipe["sources"]["sentinel2"]["mask"]["dilate"] = dilate
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe))
        return map_world(cities=("Plainville",), recipe=str(path), refresh=refresh)

    return runner


def latest(out):
    version = released(out, "plainville", PRODUCT)
    return version.number if version else None


def item(out, number):
    path = out / f"cities/plainville/{PRODUCT}/v{number}/product/item.json"
    return json.loads(path.read_text())


def test_a_map_that_passes_is_the_latest_and_its_item_stays_as_it_was(again):
    report = again()
    assert report.results[0].state == "published"
    folder = report.out / "cities/plainville" / PRODUCT
    assert latest(report.out) == 1
    assert (folder / "latest" / "product" / "item.json").samefile(folder / "v1/product/item.json")
    assert "mapper:release" not in item(report.out, 1)["properties"]
    assert len(json.loads((report.out / "index.geojson").read_text())["features"]) == 1
    assert not candidates(report.out)


def test_a_map_that_does_not_pass_waits_and_the_old_one_stays_the_latest(again):
    out = again().out
    index = (out / "index.geojson").read_bytes()
    report = again(refresh=True, dilate=30.0, shares=1e-6)
    result = report.results[0]
    assert result.state == "candidate"
    assert "shares: " in result.reason
    with pytest.raises(HeldError, match="mapper release") as caught:
        report.check()
    assert caught.value.exit_code == 6
    assert latest(out) == 1
    assert (out / "index.geojson").read_bytes() == index
    assert [v.number for v in candidates(out)] == [2]
    # it stays what it is when the run is repeated
    repeated = again(dilate=30.0, shares=1e-6)
    assert repeated.results[0].state == "finished"
    assert latest(out) == 1


def test_a_person_releases_it_and_stands_in_the_item(again):
    out = again().out
    again(refresh=True, dilate=30.0, shares=1e-6)
    ((_, made),) = release_all(chosen(out), "A. Name", "looked at it")
    assert latest(out) == 2
    found = item(out, 2)["properties"]["mapper:release"]
    assert found == made.to_dict()
    assert found["by"] == "A. Name"
    assert found["failed"][0].startswith("shares")
    links = {link["rel"]: link["href"] for link in item(out, 1)["links"]}
    assert links["successor-version"] == links["latest-version"] == "../../v2/product/item.json"
    assert (out / f"cities/plainville/{PRODUCT}/latest").resolve().name == "v2"
    # the step is still done, though the item was written to
    assert again(dilate=30.0, refresh=True).results[0].state == "unchanged"
    # and back
    release_all(chosen(out, number=1), "A. Name", "the new one is worse")
    assert latest(out) == 1
    assert [v.number for v in all_versions(out)] == [1, 2]


def test_a_release_needs_a_name_and_a_reason_and_a_finished_map(again):
    out = again().out
    again(refresh=True, dilate=30.0, shares=1e-6)
    for by, note in (("", "x"), ("x", " ")):
        with pytest.raises(UsageError, match="--by NAME and --note"):
            release_all(chosen(out), by, note)
    with pytest.raises(UsageError, match="no version of nowhere"):
        chosen(out, ["Nowhere"])
    with hold_folder(out), pytest.raises(LockedError):
        release_all(chosen(out), "a", "b")
    assert latest(out) == 1


def test_a_run_killed_before_it_could_ask_asks_later(again):
    out = again().out
    before = checksums(out / f"cities/plainville/{PRODUCT}/v1/product")
    (out / f"cities/plainville/{PRODUCT}/latest.json").unlink()
    state = out / f"cities/plainville/{PRODUCT}/v1/version.json"
    content = json.loads(state.read_text())
    del content["gates"]
    state.write_text(json.dumps(content))
    again()
    assert "gates" in json.loads(state.read_text())
    assert latest(out) == 1
    assert checksums(out / f"cities/plainville/{PRODUCT}/v1/product") == before


def test_what_is_released_is_no_garbage(again):
    out = again().out
    again(refresh=True, dilate=30.0, shares=1e-6)
    again(refresh=True, dilate=50.0, shares=1e-6)
    assert [v.number for v in all_versions(out)] == [1, 2, 3]
    assert [v.number for v in find_garbage(out, keep=1).versions] == [2]


def test_the_verb_lists_and_releases(again):
    out = again().out
    again(refresh=True, dilate=30.0, shares=1e-6)
    listed = CliRunner().invoke(app, ["release", str(out)])
    assert "plainville/spectral-10m-2022/v2" in listed.output
    assert "shares" in listed.output
    line = [
        "release",
        str(out),
        "--by",
        "A. Name",
        "--note",
        "looked at it",
        "--city",
        "Plainville",
    ]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    assert "is the latest" in done.output
    assert CliRunner().invoke(app, ["release", str(out)]).output == "nothing waits\n"
    assert isinstance(CliRunner().invoke(app, line).exception, UsageError)


def test_other_gates_make_the_same_version(again):
    out = again().out
    shutil.rmtree(out / "tiles")
    report = again(coverage=0.1, shares=0.5)
    assert report.results[0].state == "finished"
