"""A search belongs to the tiles, and says what each filter took away."""

import itertools
import random

import numpy as np
import pytest
import shapely
from pyproj import Transformer
from shapely.geometry import Point, box, mapping

from mapper.area.grid import WGS84, Grid, cells_of, project
from mapper.catalog.footprint import lonlat
from mapper.catalog.observation import epsg_of
from mapper.catalog.search import (
    FootprintTest,
    lonlat_boxes,
    search_city,
    search_source,
)
from mapper.catalog.source import Period, open_catalog
from mapper.errors import CatalogError, NothingFoundError
from mapper.recipe import (
    Bands,
    ElevationSource,
    ImagerySource,
    Recipe,
    Sentinel1Source,
    Sentinel2Source,
)

GRID = Grid(epsg=32633, resolution=10, tile=512)
A = GRID.key(1000, 95)
B = A.neighbour(0, 1)
FAR = A.neighbour(0, 40)
YEAR = Period.year(2022)
S2 = Sentinel2Source(kind="sentinel-2", catalog="here", bands=Bands(required=["red", "nir"]))


def ids(result):
    return [i["id"] for i in result.items]


def removed(result):
    return {f.name: f.removed for f in result.filters if f.removed}


def test_every_filter_accounts_for_what_it_removed(scene, opener):
    items = [
        scene("good", [A], eo__cloud_cover=10),
        scene("far", [FAR]),
        scene("early", [A], datetime="2021-12-31T23:59:59Z"),
        scene("late", [A], datetime="2023-01-01T00:00:00Z"),
        scene("cloudy", [A], eo__cloud_cover=60.1),
        scene("unmasked", [A], bands=("red", "nir")),
        scene("colourless", [A], bands=("red", "scl")),
    ]
    wide = A.neighbour(5, 5), A.neighbour(-5, -5)
    items.append(scene("beside", [A.neighbour(3, -3)]))
    found = search_source("s2", S2, [A, *wide], YEAR, opener(*items))
    assert ids(found) == ["good"]
    assert removed(found) == {
        "the footprint test": 1,
        f"the period {YEAR.interval}": 2,
        "cloud cover above 60 %": 1,
        "the need for an scl mask": 1,
        "the need for band nir": 1,
    }
    assert found.filters[0].kept == 7
    kept = [f.kept for f in found.filters]
    assert [a - b for a, b in itertools.pairwise(kept)] == [f.removed for f in found.filters[1:]]
    assert found.account.startswith("7 found over the tiles")
    assert "cloud cover above 60 % removed 1" in found.account


def test_items_come_in_order_of_time_and_id_whatever_the_catalogs(scene, opener):
    items = [
        scene(n, [A], datetime=f"2022-0{d}-01T00:00:00Z")
        for n, d in zip("dcba", (3, 1, 3, 2), strict=True)
    ]
    for seed in range(5):
        random.Random(seed).shuffle(items)
        assert ids(search_source("s2", S2, [A], YEAR, opener(*items))) == ["c", "a", "b", "d"]


@pytest.mark.parametrize(
    "when", ["2022-01-01T00:00:00Z", "2022-12-31T23:59:59Z", "2022-06-01T02:00:00+02:00"]
)
def test_both_ends_of_a_period_belong_to_it(scene, opener, when):
    assert ids(search_source("s2", S2, [A], YEAR, opener(scene("a", [A], datetime=when)))) == ["a"]


def test_a_scene_with_a_time_range_counts_by_its_start(scene, opener):
    inside = scene("in", [A], datetime=None, start_datetime="2022-03-01T00:00:00Z")
    outside = scene("out", [A], datetime=None, start_datetime="2021-03-01T00:00:00Z")
    assert ids(search_source("s2", S2, [A], YEAR, opener(inside, outside))) == ["in"]


def test_a_time_without_zone_does_not_stop_the_search(scene, opener):
    items = [scene("good", [A]), scene("bare", [A], datetime="2022-06-01T00:00:00")]
    assert "good" in ids(search_source("s2", S2, [A], YEAR, opener(*items)))


def test_an_unknown_cloud_cover_does_not_stop_the_search(scene, opener):
    items = [scene("good", [A]), scene("null", [A], eo__cloud_cover=None)]
    assert "good" in ids(search_source("s2", S2, [A], YEAR, opener(*items)))


def test_a_malformed_footprint_does_not_stop_the_search(scene, opener):
    """Recorded from an archive: a MultiPolygon whose first polygon is empty."""
    odd = scene("odd", [A])
    odd["geometry"] = {"type": "MultiPolygon", "coordinates": [[], odd["geometry"]["coordinates"]]}
    assert ids(search_source("s2", S2, [A], YEAR, opener(odd, scene("good", [A])))) == [
        "good",
        "odd",
    ]


@pytest.mark.archive
def test_every_recorded_footprint_is_understood(archive, recorded):
    test = FootprintTest([A])
    for folder in sorted((archive / "stac").iterdir()):
        for item in recorded(folder.name):
            assert test.touches(item) in {True, False}


def tiles_items(source, tiles, tile, opened):
    """The items that a tile is made of when these tiles are searched together."""
    found = search_source("s2", source, tiles, YEAR, opened)
    return [i["id"] for i in FootprintTest(tiles).by_tile(found.items)[tile]]


def test_the_limit_of_a_tile_does_not_depend_on_the_neighbours_asked_for(scene, opener):
    source = S2.model_copy(update={"scenes_per_tile": 3})
    items = [
        scene(
            f"s{n}",
            [A, B],
            grid__code="MGRS-33TTM",
            eo__cloud_cover=n,
            datetime=f"2022-05-0{n}T00:00:00Z",
        )
        for n in range(1, 8)
    ]
    items += [scene(f"o{n}", [B], grid__code="MGRS-33TUM", eo__cloud_cover=n) for n in range(5)]
    alone = tiles_items(source, [A], A, opener(*items))
    assert alone == ["s1", "s2", "s3"]
    assert tiles_items(source, [A, B], A, opener(*items)) == alone
    assert tiles_items(source, [A, B, A.neighbour(1, 0)], A, opener(*items)) == alone


def test_nor_where_swaths_cover_a_part_of_the_mgrs_tile(scene, opener):
    """Clear scenes beside a tile must not take the places of the tile's own scenes."""
    source = S2.model_copy(update={"scenes_per_tile": 3})
    items = [scene(f"a{n}", [A], grid__code="MGRS-33TTM", eo__cloud_cover=20 + n) for n in range(4)]
    far = A.neighbour(0, 5)
    items += [scene(f"b{n}", [far], grid__code="MGRS-33TTM", eo__cloud_cover=n) for n in range(4)]
    alone = tiles_items(source, [A], A, opener(*items))
    assert alone == ["a0", "a1", "a2"]
    assert tiles_items(source, [A, far], A, opener(*items)) == alone


def test_the_first_collection_with_items_is_used(scene, opener):
    source = ElevationSource(kind="elevation", catalog="here")
    nasadem = scene(
        "n", [A], bands=("elevation",), collection="nasadem", datetime="2000-02-20T00:00:00Z"
    )
    copernicus = scene(
        "c", [A], bands=("data",), collection="cop-dem-glo-30", datetime="2021-04-22T00:00:00Z"
    )
    both = search_source("dem", source, [A], YEAR, opener(copernicus, nasadem))
    assert (both.collection, ids(both)) == ("nasadem", ["n"])
    one = search_source("dem", source, [A], YEAR, opener(copernicus))
    assert (one.collection, ids(one)) == ("cop-dem-glo-30", ["c"])
    none = search_source("dem", source, [FAR], YEAR, opener(copernicus))
    assert ids(none) == []


def test_a_collection_whose_items_are_all_filtered_gives_way_to_the_next(scene, opener):
    source = S2.model_copy(update={"collections": ["first", "second"]})
    items = [
        scene("x", [A], collection="first", eo__cloud_cover=99),
        scene("y", [A], collection="second"),
    ]
    assert ids(search_source("s2", source, [A], YEAR, opener(*items))) == ["y"]
    nothing = search_source("s2", source, [A], YEAR, opener(*items[:1]))
    assert "cloud cover above 60 % removed 1" in nothing.account


@pytest.mark.parametrize("ignore", [True, False])
def test_imagery_may_be_of_any_year(scene, opener, ignore):
    source = ImagerySource(kind="imagery", catalog="here", ignore_period=ignore)
    rgb = ("red", "green", "blue")
    items = [
        scene("old", [A], bands=rgb, datetime="2015-01-01T00:00:00Z"),
        scene("undated", [A], bands=rgb, datetime="1970-01-01T00:00:00Z", mapper__undated=True),
    ]
    found = ids(search_source("photo", source, [A], YEAR, opener(*items)))
    assert found == (["undated", "old"] if ignore else ["undated"])


def recipe(**sources):
    return Recipe(name="any", title="Any", resolution=10, sources=sources, model="none")


def test_an_optional_source_may_find_nothing(scene, opener):
    radar = Sentinel1Source(kind="sentinel-1", catalog="here", optional=True)
    found = search_city(
        recipe(s2=S2, s1=radar), [A], YEAR, opener(scene("a", [A], collection="sentinel-2-l2a"))
    )
    assert ids(found["s2"]) == ["a"]
    assert ids(found["s1"]) == []


@pytest.mark.parametrize("optional", [True, False])
def test_a_catalog_that_does_not_answer_stops_unless_optional(scene, opener, optional):
    radar = Sentinel1Source(kind="sentinel-1", catalog="dead", optional=optional)

    def open_either(address):
        if address == "dead":
            raise CatalogError("catalog dead cannot be opened")
        return opener(scene("a", [A]))(address)

    asked = recipe(s2=S2, s1=radar)
    if not optional:
        with pytest.raises(CatalogError, match="dead"):
            search_city(asked, [A], YEAR, open_either)
        return
    found = search_city(asked, [A], YEAR, open_either)
    assert ids(found["s2"]) == ["a"]
    assert "does not answer" in found["s1"].account


def test_nothing_found_says_which_filter_was_it(scene, opener):
    items = [scene("a", [A], eo__cloud_cover=80), scene("b", [A], datetime="2019-01-01T00:00:00Z")]
    with pytest.raises(NothingFoundError) as caught:
        search_city(recipe(s2=S2), [A], YEAR, opener(*items))
    for words in ("'s2'", "sentinel-2-l2a", "2 found", "cloud cover above 60 % removed 1", "widen"):
        assert words in str(caught.value)


def test_the_simulated_archive_is_found_whole(simulated):
    found = search_source(
        "s2",
        S2.model_copy(update={"catalog": str(simulated)}),
        Grid(epsg=32632, resolution=10, tile=512).tiles_in(
            Grid(epsg=32632, resolution=10, tile=512).box_of(
                (729_500, 5_158_500, 731_000, 5_160_000)
            )
        ),
        YEAR,
        open_catalog,
    )
    assert len(found.items) == 16
    assert {epsg_of(i) for i in found.items} == {32632, 32633}


def antimeridian(lat):
    """Tiles of 512 pixels around 180 degrees in the westernmost zone east of it, and in zone 60."""
    found = {}
    for zone in (60, 1):
        epsg = (32600 if lat > 0 else 32700) + zone
        grid = Grid(epsg=epsg, resolution=10, tile=512)
        middle = project(
            Point(180 if zone == 60 else -180, lat).buffer(1e-6), WGS84, grid.crs
        ).centroid
        x, y = middle.x, middle.y
        key = grid.tiles_in(grid.box_of((x, y, x + 1, y + 1)))[0]
        found[zone] = [key.neighbour(0, n) for n in range(-2, 3)]
    return found


@pytest.mark.parametrize("lat", [-17.5, 66.0])
@pytest.mark.parametrize("zone", [60, 1])
@pytest.mark.parametrize(
    "chosen", [(0,), (2,), (4,), (1, 2), (2, 3), (0, 4), (0, 1, 2, 3, 4)], ids=str
)
def test_boxes_hold_every_tile_across_the_antimeridian(lat, zone, chosen):
    tiles = [antimeridian(lat)[zone][n] for n in chosen]
    boxes = lonlat_boxes(tiles)
    assert sum(b[2] - b[0] for b in boxes) < 2, "no box around the world"
    for key in tiles:
        left, bottom, right, top = key.grid.bounds_of(key.box)
        back = Transformer.from_crs(key.grid.crs, WGS84, always_xy=True)
        for part in range(1, 20):
            lon, lat_ = back.transform(left + (right - left) * part / 20, (bottom + top) / 2)
            assert any(b[0] <= lon <= b[2] and b[1] <= lat_ <= b[3] for b in boxes), (key, lon)


def test_a_box_elsewhere_is_the_tiles_bounds_and_the_slack():
    (one,) = lonlat_boxes([A, B])
    bounds = shapely.union_all([lonlat(A), lonlat(B)]).bounds
    assert one == pytest.approx(np.add(bounds, (-0.01, -0.01, 0.01, 0.01)))
    (wide,) = lonlat_boxes([A, B], 100)
    kilometre = 1 / (111 * np.cos(np.radians(bounds[3])))
    assert np.subtract(wide, one) == pytest.approx(kilometre * np.array([-1, -1, 1, 1]), rel=0.001)


@pytest.mark.parametrize("zone", [60, 1])
def test_across_the_antimeridian_a_tile_takes_what_lies_on_either_side_alone(zone):
    tiles = antimeridian(-17.5)[zone]

    def square(west, south, side=0.02):
        corners = box(west, south, west + side, south + side)
        return {"id": f"{west:.3f}", "properties": {}, "geometry": mapping(corners)}

    found = {}
    for key in tiles:
        south = lonlat(key).bounds[1]
        lons = np.arange(-0.4, 0.4, 0.02)
        items = [square(lon + (180 if lon < 0 else -180), south) for lon in lons]
        items += [square(0.0, south), square(90.0, south), square(-90.0, south)]
        alone = FootprintTest([key]).by_tile(items)[key]
        together = FootprintTest(tiles).by_tile(items)[key]
        assert [i["id"] for i in alone] == [i["id"] for i in together]
        found[key] = {i["id"] for i in alone}
        assert 3 <= len(found[key]) <= 8, "5 km of scenes 2 km wide"
        assert not {"0.000", "90.000", "-90.000"} & found[key]
    straddling = [names for names in found.values() if any(n[0] == "-" for n in names)]
    assert any(any(n[0] != "-" for n in names) for names in straddling)


@pytest.mark.parametrize(("zone", "side"), [(1, -1), (60, 1)])
@pytest.mark.parametrize("reach", [0, 200])
def test_a_box_that_only_the_slack_takes_across_180_is_cut_there(zone, side, reach):
    grid = Grid(epsg=32700 + zone, resolution=2, tile=256)
    there = project(Point(side * 179.9999, -17).buffer(1e-6), WGS84, grid.crs).centroid
    (first,) = grid.tiles_in(grid.box_of((there.x, there.y, there.x + 1, there.y + 1)))
    row = (first.neighbour(0, -side * n) for n in range(3))
    key = next(k for k in row if lonlat(k).bounds[2] - lonlat(k).bounds[0] < 180)
    boxes = lonlat_boxes([key], reach)
    assert all(-180 <= b[0] < b[2] <= 180 for b in boxes)
    assert len(boxes) == 2
    assert sum(b[2] - b[0] for b in boxes) < 0.1


@pytest.mark.parametrize("reach", [0, 60])
def test_a_scene_beside_the_cell_is_found_whoever_asks(scene, opener, reach):
    """The box that is searched holds all that the footprint test would accept."""
    (cell,) = cells_of([A])
    tile = max((A.neighbour(n, 0) for n in range(4)), key=lambda k: lonlat(k).bounds[2])
    _, south, _, north = lonlat(tile).bounds
    beside, inside = scene("beside", [A]), scene("inside", [A])
    start = lonlat(cell).bounds[2] + (0.012 if reach else 0.004)
    ground = box(start, south - 0.1, start + 0.2, north + 0.1)
    beside |= {"geometry": mapping(ground), "bbox": list(ground.bounds)}
    inside |= {"geometry": mapping(ground.buffer(1)), "bbox": list(ground.buffer(1).bounds)}
    asked = recipe(s2=S2)

    def of_tile(*tiles):
        found = search_city(asked, tiles, YEAR, opener(beside, inside), lambda _: reach)["s2"]
        return [i["id"] for i in FootprintTest([tile], reach).by_tile(found.items)[tile]]

    alone = of_tile(tile)
    assert alone == ["beside", "inside"]
    assert of_tile(tile, tile.neighbour(0, 1)) == alone


def test_a_footprint_that_is_a_little_too_small_still_counts(scene):
    """Published footprints are simplified by some hundred metres."""
    beside = scene("x", [A])
    _, south, east, north = lonlat(A).bounds
    beside["geometry"] = mapping(box(east + 0.005, south, east + 0.1, north))
    assert FootprintTest([A]).touches(beside)
    beside["geometry"] = mapping(box(east + 0.02, south, east + 0.1, north))
    assert not FootprintTest([A]).touches(beside)


def test_an_item_without_footprint_may_be_anywhere():
    assert FootprintTest([A]).touches({"id": "x", "geometry": None})
