"""`plan --refresh --why` says beforehand what the refresh then does."""

import json
import shutil
from dataclasses import fields

import pytest
import yaml
from typer.testing import CliRunner

from mapper.cli.commands import app
from mapper.errors import UsageError
from mapper.recipe import load_recipe
from mapper.run.ledger import Ledger
from mapper.run.run import RunOptions, make_request, plan_run, run
from mapper.run.why import NEW_TILE, changes


@pytest.fixture
def mapped(world, in_process, tmp_path):
    """A mapped city whose catalog and area may be changed."""
    for name in ("items.json", "cities.geojson"):
        shutil.copy(world / name, tmp_path / name)
    options = {
        "aoi": tmp_path / "cities.geojson",
        "year": 2022,
        "cities": ("Plainville",),
        "catalog": str(tmp_path / "items.json"),
        "out": tmp_path / "out",
        "cluster": in_process,
        "tile_size": 512,
    }
    assert {f.name for f in fields(RunOptions)} >= options.keys()
    run(RunOptions(**options))
    return tmp_path, options


def asked(options, **more):
    """What `--why` says, and what the refresh then does."""
    wanted = RunOptions(**(options | {"refresh": True} | more))
    (plan,), _ = plan_run(make_request(wanted, writing=False))
    found = changes(plan, Ledger(wanted.out / "ledger"))
    result = run(wanted).results[0]
    done = {
        stage: facts["total"] - facts["skipped"]
        for stage, facts in result.facts["steps"].items()
        if stage in ("ingest", "predict")
    }
    return found, result, done


def steps(found, stage):
    return [each for each in found.touched if each.stage == stage]


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def optical(items):
    return [
        f
        for f in items["features"]
        if f["collection"] == "sentinel-2-l2a" and "plainville" in f["id"]
    ]


def test_nothing_new(mapped):
    _, options = mapped
    found, result, done = asked(options)
    assert not found.touched
    assert found.version == 1
    assert result.state == "unchanged"
    assert done == {"ingest": 0, "predict": 0}
    total = sum(facts["total"] for stage, facts in result.facts["steps"].items() if stage in done)
    # a block of several tiles is one step
    assert found.same >= total


def test_a_late_scene(mapped):
    folder, options = mapped
    kept = json.loads((folder / "items.json").read_text())
    late = optical(kept)[0]
    edit(folder / "items.json", lambda c: c["features"].remove(late))
    run(RunOptions(**options, refresh=True))
    (folder / "items.json").write_text(json.dumps(kept))
    found, result, done = asked(options)
    assert found.version == 2
    assert {r for t in steps(found, "ingest") for r in t.reasons} == {f"scene {late['id']} is new"}
    assert {t.part for t in steps(found, "ingest")} == {"sentinel2"}
    # all of it was done once, for the first version
    assert done == {"ingest": 0, "predict": 0}
    assert result.product.endswith("v3/product")


def test_a_scene_that_is_gone(mapped):
    folder, options = mapped
    lost = optical(json.loads((folder / "items.json").read_text()))[0]["id"]
    edit(
        folder / "items.json",
        lambda c: c.update(features=[f for f in c["features"] if f["id"] != lost]),
    )
    found, _, done = asked(options)
    assert len(steps(found, "ingest")) == done["ingest"] > 0
    assert {r for t in steps(found, "ingest") for r in t.reasons} == {f"scene {lost} is gone"}
    reasons = {r for t in steps(found, "predict") for r in t.reasons}
    assert reasons <= {f"scene {lost} is gone", f"scene {lost} is gone (near by)"}
    assert done["predict"] > 0


def test_a_mask_rule(mapped):
    folder, options = mapped
    recipe = load_recipe("spectral-10m").model_dump(mode="json", exclude_none=True)
    recipe["sources"]["sentinel2"]["mask"]["dilate"] = 20.0
    path = folder / "other.yaml"
    # the product keeps its name, so this is its next version
    path.write_text(yaml.safe_dump(recipe))
    found, _, done = asked(options, recipe=str(path))
    assert len(steps(found, "ingest")) == done["ingest"] > 0
    assert {t.part for t in steps(found, "ingest")} == {"sentinel2"}
    assert found.counts()[0][0] == "its section of the recipe changed"


def test_another_model(mapped, tmp_path):
    from mapper.recipe import data_directory

    _, options = mapped
    folder = tmp_path / "model"
    shutil.copytree(data_directory("models") / "spectral-baseline", folder)
    edit(folder / "item.json", lambda c: c["properties"].update({"mapper:temperature": 2.0}))
    found, _, done = asked(options, model=str(folder))
    assert not steps(found, "ingest")
    assert done["ingest"] == 0
    assert done["predict"] > 0
    assert dict(found.counts()).keys() == {"another model, or another plan for it"}


def test_a_moved_border(mapped):
    folder, options = mapped

    def move(content):
        for feature in content["features"]:
            if feature["properties"]["name"] == "Plainville":
                ring = feature["geometry"]["coordinates"][0]
                feature["geometry"]["coordinates"][0] = [[x + 0.03, y] for x, y in ring]

    edit(folder / "cities.geojson", move)
    found, _, done = asked(options)
    assert len(steps(found, "ingest")) == done["ingest"] > 0
    assert {r for t in steps(found, "ingest") for r in t.reasons} <= {
        NEW_TILE,
        *(r for t in steps(found, "ingest") for r in t.reasons if r.endswith("is new")),
    }
    assert NEW_TILE in dict(found.counts())


def test_without_a_finished_version_it_says_so(mapped):
    folder, options = mapped
    elsewhere = RunOptions(**(options | {"out": folder / "elsewhere", "refresh": True}))
    (plan,), _ = plan_run(make_request(elsewhere, writing=False))
    assert changes(plan, Ledger(folder / "elsewhere" / "ledger")).unknown
    (folder / "out/cities/plainville/spectral-10m-2022/v1/shards.parquet").unlink()
    (plan,), _ = plan_run(make_request(RunOptions(**options, refresh=True), writing=False))
    assert "earlier mapper" in changes(plan, Ledger(folder / "out" / "ledger")).unknown


def test_the_verb_prints_it(mapped):
    folder, options = mapped
    lost = optical(json.loads((folder / "items.json").read_text()))[0]["id"]
    edit(
        folder / "items.json",
        lambda c: c.update(features=[f for f in c["features"] if f["id"] != lost]),
    )
    line = ["plan", "--aoi", str(options["aoi"]), "--year", "2022", "--city", "Plainville"]
    line += ["--catalog", options["catalog"], "--out", str(options["out"]), "--tile-size", "512"]
    done = CliRunner().invoke(app, [*line, "--refresh", "--why"])
    assert done.exit_code == 0, done.output
    assert f"scene {lost} is gone" in done.output
    done = CliRunner().invoke(app, [*line, "--refresh", "--why", "--json"])
    assert {t["stage"] for t in json.loads(done.output)[0]["touched"]} == {"ingest", "predict"}
    done = CliRunner().invoke(app, [*line, "--why"])
    assert isinstance(done.exception, UsageError)
