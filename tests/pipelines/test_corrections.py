"""What a person mended stays mended, in every version that comes after."""

import json

import geopandas
import numpy as np
import pytest
import rasterio
from rasterio.features import geometry_mask
from shapely.geometry import Point, box, shape
from typer.testing import CliRunner

from mapper.cli.commands import app
from mapper.errors import AreaError, LockedError, UsageError
from mapper.run.correcting import change_corrections, corrected_version
from mapper.run.corrections import read_corrections
from mapper.run.lock import hold_folder

PRODUCT = "spectral-10m-2022"


@pytest.fixture
def mapped(map_world):
    report = map_world(cities=("Plainville",))
    assert report.results[0].state == "published"

    def again(**more):
        return map_world(cities=("Plainville",), **more).results[0]

    return report.out, again


def opened(out, number):
    product = out / f"cities/plainville/{PRODUCT}/v{number}/product"
    with rasterio.open(product / "classes.tif") as dataset:
        classes, profile = dataset.read(1), dataset.profile
    statistics = json.loads((product / "statistics.json").read_text())
    return classes, profile, statistics, json.loads((product / "item.json").read_text())


def middle(out, size=0.002):
    item = opened(out, 1)[3]
    center = shape(item["geometry"]).centroid
    return box(center.x - size, center.y - size, center.x + size, center.y + size)


def written(path, *rows):
    frame = geopandas.GeoDataFrame(
        [{"class": c, "author": a, "reason": r} for c, a, r, _ in rows],
        geometry=[g for *_, g in rows],
        crs="EPSG:4326",
    )
    frame.to_file(path)
    return path


def test_a_correction_is_in_the_next_version_and_in_all_later_ones(mapped, tmp_path):
    out, again = mapped
    before, profile, statistics, item = opened(out, 1)
    names = {row["name"]: row["value"] for row in statistics["classes"]}
    polygon = middle(out)
    path = written(tmp_path / "mended.gpkg", ("water", "A. Name", "a pond", polygon))
    kept = change_corrections(corrected_version(out, "Plainville", None), path, ())
    assert [c.title for c in kept] == ["water"]
    told = again()
    assert told.state == "failed"
    assert "corrections" in told.reason
    result = again(refresh=True)
    assert result.product.endswith("v2/product")
    # no pixel of the cube or the model was touched
    steps = result.facts["steps"]
    assert all(steps[s]["done"] == 0 for s in ("ingest", "predict"))
    after, _, counted, item = opened(out, 2)
    inside = geometry_mask(
        geopandas.GeoSeries([polygon], crs=4326).to_crs(profile["crs"]),
        before.shape,
        profile["transform"],
        invert=True,
    )
    assert inside.sum() > 500
    assert (after[inside] == names["water"]).all()
    assert np.array_equal(after[~inside], before[~inside])
    water = next(row for row in counted["classes"] if row["name"] == "water")
    assert water["pixels"] == (after == names["water"]).sum()
    (stated,) = item["properties"]["mapper:corrections"]
    assert (stated["author"], stated["reason"], stated["class"]) == ("A. Name", "a pond", "water")
    # a later version, for another reason
    third = again(refresh=True, max_scenes=1)
    assert third.product.endswith("v3/product")
    assert (opened(out, 3)[0][inside] == names["water"]).all()


def test_taken_back_the_map_is_as_it_was(mapped, tmp_path):
    out, again = mapped
    path = written(tmp_path / "a.geojson", ("water", "A", "b", middle(out)))
    version = corrected_version(out, "Plainville", None)
    (made,) = change_corrections(version, path, ())
    again(refresh=True)
    assert not change_corrections(version, None, [made.id])
    assert again(refresh=True).product.endswith("v3/product")
    assert np.array_equal(opened(out, 3)[0], opened(out, 1)[0])
    assert "mapper:corrections" not in opened(out, 3)[3]["properties"]
    with pytest.raises(UsageError, match="no correction"):
        change_corrections(version, None, [made.id])


def test_the_later_of_two_counts_and_the_same_twice_is_one(mapped, tmp_path):
    out, again = mapped
    large, small = middle(out), middle(out, 0.001)
    version = corrected_version(out, "Plainville", None)
    change_corrections(version, written(tmp_path / "a.geojson", ("water", "A", "b", small)), ())
    rows = [("1", "A", "b", large), ("water", "B", "c", small)]
    found = change_corrections(version, written(tmp_path / "b.geojson", *rows), ())
    assert [c.author for c in found] == ["A", "B"]
    again(refresh=True)
    classes, profile, statistics, _ = opened(out, 2)
    names = {row["name"]: row["value"] for row in statistics["classes"]}
    left, top = profile["transform"].c, profile["transform"].f
    center = geopandas.GeoSeries([small.centroid], crs=4326).to_crs(profile["crs"])[0]
    row, col = int((top - center.y) / 10), int((center.x - left) / 10)
    assert classes[row, col] == names["water"]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (("lava", "A", "b", None), "'lava' is none of the map's classes"),
        (("water", "", "b", None), "author or reason is empty"),
        (("water", "A", " ", None), "author or reason is empty"),
        (("water", "A", "b", box(100, 10, 100.1, 10.1)), "lies beyond the city"),
        (("water", "A", "b", Point(-30.2, -35.1)), "without area"),
    ],
)
def test_what_cannot_be_a_correction_is_refused(mapped, tmp_path, row, what):
    out, _ = mapped
    version = corrected_version(out, "Plainville", None)
    *facts, geometry = row
    path = written(tmp_path / "a.geojson", (*facts, geometry or middle(out)))
    with pytest.raises(AreaError, match=what):
        change_corrections(version, path, ())
    assert not read_corrections(version)


def test_a_file_without_the_fields_and_a_folder_in_use_are_refused(mapped, tmp_path):
    out, _ = mapped
    version = corrected_version(out, "Plainville", None)
    bare = tmp_path / "bare.geojson"
    geopandas.GeoDataFrame(geometry=[middle(out)], crs=4326).to_file(bare)
    with pytest.raises(AreaError, match="lacks class, author, reason"):
        change_corrections(version, bare, ())
    with hold_folder(out), pytest.raises(LockedError):
        change_corrections(version, bare, ())


def test_the_verb_adds_lists_and_drops(mapped, tmp_path):
    out, _ = mapped
    path = written(tmp_path / "a.geojson", ("water", "A. Name", "a pond", middle(out)))
    line = ["correct", str(out), "--city", "Plainville"]
    assert CliRunner().invoke(app, [*line, "--add", str(path)]).exit_code == 0
    (one,) = json.loads(CliRunner().invoke(app, [*line, "--json"]).output)
    assert one["properties"]["author"] == "A. Name"
    assert "a pond" in CliRunner().invoke(app, line).output
    assert "a pond" not in CliRunner().invoke(app, [*line, "--drop", one["id"]]).output
    both = CliRunner().invoke(app, [*line, "--drop", "x", "--add", str(path)])
    assert isinstance(both.exception, UsageError)
