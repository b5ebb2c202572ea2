"""A stac-geoparquet file gives the rows asked for, as its own library reads them."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import stac_geoparquet.arrow as geoparquet
from hypothesis import given
from hypothesis import strategies as st

from mapper.catalog.arrow import items_of
from mapper.catalog.geoparquet import BoxIndex, ParquetCatalog
from mapper.catalog.query import PropertyFilter, touches
from mapper.catalog.source import ItemList, Period, ask, open_catalog
from mapper.errors import CatalogError

YEAR = Period.year(2022)
WORLD = [(-180.0, -90.0, 180.0, 90.0)]


@pytest.fixture(scope="module")
def many(scene, tmp_path_factory):
    """1,000 items on a grid of degrees, and their file in row groups of 64."""
    items = []
    for n in range(1000):
        west, south = n % 40, n // 40
        ring = [[west, south], [west + 1, south], [west + 1, south + 1], [west, south]]
        items.append(
            scene(f"i{n:04d}", collection="a" if n % 2 else "b", eo__cloud_cover=n % 100,
                  datetime=f"{2021 + n % 3}-06-01T00:00:00Z")
            | {"geometry": {"type": "Polygon", "coordinates": [ring]},
               "bbox": [west, south, west + 1, south + 1]}
        )  # fmt: skip
    path = tmp_path_factory.mktemp("many") / "items.parquet"
    table = geoparquet.parse_stac_items_to_arrow(items).read_all()
    parquet.write_table(table, path, row_group_size=64)
    return items, path


def ids(items):
    return [i["id"] for i in items]


@pytest.mark.parametrize("box", [(3.5, 2.5, 5.5, 4.2), (0, 0, 0, 0), (100, 50, 101, 51), WORLD[0]])
@pytest.mark.parametrize("collection", ["a", "b", "c"])
def test_rows_are_found_by_box_collection_and_time(many, box, collection):
    items, path = many
    catalog = open_catalog(str(path))
    assert isinstance(catalog, ParquetCatalog)
    for period, years in ((None, "2021 2022 2023"), (YEAR, "2022")):
        found = list(catalog.search(collection, [box], period))
        expected = [
            i for i in items
            if i["collection"] == collection and touches(i, [box])
            and i["properties"]["datetime"][:4] in years.split()
        ]  # fmt: skip
        assert ids(found) == ids(expected)
        assert all(
            set(f["assets"]) == set(e["assets"]) for f, e in zip(found, expected, strict=True)
        )


def test_what_a_filter_leaves_out_comes_without_assets(many):
    items, path = many
    wanted = PropertyFilter(cloud_cover=30)
    found = ask(open_catalog(str(path)), "a", WORLD, None, wanted)
    assert found.asked == ""
    assert ids(found.items) == [i["id"] for i in items if i["collection"] == "a"]
    assert {bool(i["assets"]) == wanted.keeps(i) for i in found.items} == {True}


def test_a_file_is_indexed_once_until_it_changes(many, tmp_path):
    path = tmp_path / "copy.parquet"
    path.write_bytes(many[1].read_bytes())
    one, two = (open_catalog(str(path)) for _ in range(2))
    assert one._groups is two._groups
    parquet.write_table(parquet.read_table(path).slice(0, 3), path)
    assert len(list(open_catalog(str(path)).search("a", WORLD, None))) == 1


def test_only_row_groups_that_hold_a_scene_are_decoded(many):
    catalog = open_catalog(str(many[1]))
    catalog._groups.kept.clear()
    assert len(list(catalog.search("a", [(0.5, 0.5, 0.6, 0.6)], None))) == 0
    assert len(list(catalog.search("b", [(0.5, 0.5, 0.6, 0.6)], None))) == 1
    assert list(catalog._groups.kept) == [0]


def test_a_file_without_bboxes_is_searched_by_its_footprints(many, tmp_path):
    items, path = many
    bare = tmp_path / "bare.parquet"
    parquet.write_table(parquet.read_table(path).drop_columns(["bbox"]), bare)
    box = (3.5, 2.5, 5.5, 4.2)
    expected = [i["id"] for i in items if i["collection"] == "a" and touches(i, [box])]
    assert ids(open_catalog(str(bare)).search("a", [box], None)) == expected


def test_another_table_is_refused_with_the_column(tmp_path):
    path = tmp_path / "other.parquet"
    parquet.write_table(pa.table({"id": ["a"], "x": [1]}), path)
    with pytest.raises(CatalogError, match="no column assets"):
        open_catalog(str(path))
    path.write_bytes(b"PAR1 no more")
    with pytest.raises(CatalogError, match=r"other\.parquet is no stac-geoparquet file"):
        open_catalog(str(path))


@pytest.mark.archive
@pytest.mark.parametrize(
    "collection", ["sentinel-2-l2a", "sentinel-1-rtc", "nasadem", "naip", "io-lulc"]
)
def test_items_read_by_column_are_those_of_the_library(recorded, collection):
    items = [i for i in recorded(collection)[:12] if i["geometry"]["coordinates"][0]]
    table = geoparquet.parse_stac_items_to_arrow(items).read_all()
    expected = [plain(i) for i in geoparquet.stac_table_to_items(table)]
    found = items_of(table)
    assert [plain(i) for i in found] == expected
    assert len(found) == len(items)
    json.dumps(found)


def plain(value):
    """Without nulls."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if v is not None}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


number = st.floats(-180, 180)
boxes = st.one_of(
    st.none(),
    st.tuples(number, number, number, number).map(list),
    st.tuples(number, number, number, number, number, number).map(list),
)


@given(st.lists(boxes, max_size=6), st.tuples(number, number, number, number))
def test_the_index_finds_what_touches(listed, box):
    items = [{"id": str(n), "bbox": b} for n, b in enumerate(listed)]
    expected = [i["id"] for i in items if touches(i, [box])]
    assert ids(ItemList(items).search("x", [box], None)) == expected
    assert np.flatnonzero(BoxIndex.of(items).hits([box])).tolist() == [int(i) for i in expected]
