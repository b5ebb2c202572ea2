"""Where things lie, which version is the latest, and that a city keeps its lattice."""

import json
import os

import pytest
from shapely import box

from mapper.area.aoi import AreaOfInterest
from mapper.area.grid import Grid
from mapper.errors import StoreError, UsageError
from mapper.run.layout import (
    Version,
    all_versions,
    fixed_grid,
    keep_grid,
    latest_version,
)
from mapper.store.files import write_json, write_text

BOLZANO = AreaOfInterest(name="Bolzano", slug="bolzano", geometry=box(11.3, 46.4, 11.4, 46.6))
MERANO = AreaOfInterest(name="Merano", slug="merano", geometry=box(11.1, 46.6, 11.2, 46.7))
GRID = Grid(epsg=32632, resolution=10, tile=2048)


@pytest.fixture
def version(tmp_path):
    return Version(root=tmp_path, slug="bolzano", product="spectral-10m-2022", number=1)


def test_a_version_lies_where_the_layout_says(version, tmp_path):
    folder = tmp_path / "cities" / "bolzano" / "spectral-10m-2022" / "v1"
    assert version.path == folder
    assert version.items == folder / "items.parquet"
    assert version.state_file == folder / "version.json"
    assert version.product_folder == folder / "product"
    assert version.key == "bolzano/spectral-10m-2022/v1"


def test_a_version_is_begun_then_finished(version):
    assert version.state() is None
    version.begin("abc", {"year": 2022})
    assert version.state() == {"finished": False, "fingerprint": "abc", "year": 2022}
    version.finish()
    assert version.state() == {"finished": True, "fingerprint": "abc", "year": 2022}


def test_facts_cannot_finish_a_version_that_begins(version):
    version.begin("abc", {})
    version.numbered(2).begin("def", {"year": 2023})
    version.finish()
    assert version.numbered(2).state()["finished"] is False


def test_the_latest_version_is_the_highest_number(version, tmp_path):
    assert latest_version(tmp_path, "bolzano", "spectral-10m-2022") is None
    for number in (9, 10, 2):
        version.numbered(number).begin("abc", {})
    version.numbered(11).path.mkdir()
    assert latest_version(tmp_path, "bolzano", "spectral-10m-2022") == version.numbered(10)
    assert latest_version(tmp_path, "bolzano", "spectral-10m-2023") is None


def test_versions_are_listed_by_city_product_and_number(version, tmp_path):
    wanted = [("berlin", "b", 1), ("bolzano", "a", 2), ("bolzano", "a", 10), ("bolzano", "b", 1)]
    for slug, product, number in reversed(wanted):
        Version(root=tmp_path, slug=slug, product=product, number=number).begin("abc", {})
    assert [(v.slug, v.product, v.number) for v in all_versions(tmp_path)] == wanted
    assert all(v.root == tmp_path for v in all_versions(tmp_path))


def test_a_root_without_cities_has_no_versions(tmp_path):
    assert list(all_versions(tmp_path / "nothing")) == []


# the lattice -------------------------------------------------------------------------------


def test_a_new_city_takes_the_grid_that_is_wanted(tmp_path):
    assert fixed_grid(tmp_path, BOLZANO, GRID, explicit_tile=True) == GRID


@pytest.mark.parametrize(
    "wanted",
    [
        Grid(epsg=32632, resolution=10, tile=512),
        Grid(epsg=32633, resolution=10, tile=2048),
        Grid(epsg=32633, resolution=10, tile=512),
    ],
)
def test_a_city_keeps_zone_and_tile_of_its_first_run(tmp_path, wanted):
    keep_grid(tmp_path, BOLZANO, GRID)
    assert fixed_grid(tmp_path, BOLZANO, wanted, explicit_tile=False) == GRID
    keep_grid(tmp_path, BOLZANO, wanted)
    assert fixed_grid(tmp_path, BOLZANO, wanted, explicit_tile=False) == GRID


def test_another_tile_size_is_refused_only_when_asked_for(tmp_path):
    keep_grid(tmp_path, BOLZANO, GRID)
    other = Grid(epsg=32632, resolution=10, tile=512)
    with pytest.raises(UsageError, match=r"bolzano .*2048.*--tile-size"):
        fixed_grid(tmp_path, BOLZANO, other, explicit_tile=True)
    assert fixed_grid(tmp_path, BOLZANO, GRID, explicit_tile=True) == GRID


def test_resolutions_and_cities_have_grids_of_their_own(tmp_path):
    keep_grid(tmp_path, BOLZANO, GRID)
    fine = Grid(epsg=32632, resolution=0.5, tile=512)
    assert fixed_grid(tmp_path, BOLZANO, fine, explicit_tile=True) == fine
    keep_grid(tmp_path, BOLZANO, fine)
    assert fixed_grid(tmp_path, BOLZANO, GRID, explicit_tile=False) == GRID
    other = Grid(epsg=32632, resolution=10, tile=512)
    assert fixed_grid(tmp_path, MERANO, other, explicit_tile=True) == other


# writing -----------------------------------------------------------------------------------


def test_json_is_written_for_people_and_always_the_same(tmp_path):
    path = tmp_path / "a" / "b.json"
    write_json(path, {"z": 1, "a": "São"})
    assert path.read_text(encoding="utf-8") == '{\n  "a": "São",\n  "z": 1\n}\n'
    before = path.read_bytes()
    write_json(path, {"a": "São", "z": 1})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["b.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"old": True})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StoreError, match="No space left"):
        write_json(path, {"old": False})
    monkeypatch.undo()
    assert json.loads(path.read_text()) == {"old": True}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="could not be written"):
        write_text(tmp_path / "file" / "a.json", "{}")


def test_another_place_of_the_same_name_is_refused(tmp_path):
    keep_grid(tmp_path, BOLZANO, GRID)
    elsewhere = AreaOfInterest(
        name="Bolzano", slug="bolzano", geometry=box(-95.6, 33.6, -95.5, 33.7)
    )
    with pytest.raises(UsageError, match="another place"):
        fixed_grid(tmp_path, elsewhere, GRID, explicit_tile=False)
