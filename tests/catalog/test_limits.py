"""The scene limit takes what a cell sees most of, and does not know who asked."""

import itertools

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from shapely import box
from shapely.geometry import mapping

from mapper.area.grid import Grid, cells_under
from mapper.catalog.footprint import FootprintTest, lonlat
from mapper.catalog.limits import best_coverage, clear_coverage
from mapper.catalog.search import search_source
from mapper.catalog.source import Period
from mapper.recipe import Bands, Sentinel2Source

GRID = Grid(epsg=32633, resolution=10, tile=512)
TILE = GRID.key(1000, 96)
(CELL,) = cells_under(TILE)
YEAR = Period.year(2022)
WEST, SOUTH, EAST, NORTH = lonlat(CELL).bounds


def part(scene, name, share=(0.0, 1.0), month=6, cloud=0, code="33TTM"):
    """A scene over some of the cell, west to east."""
    west, east = (WEST + s * (EAST - WEST) for s in share)
    found = scene(name, grid__code=f"MGRS-{code}", eo__cloud_cover=cloud,
                  datetime=f"2022-{month:02d}-01T00:00:00Z")  # fmt: skip
    ground = box(west, SOUTH, east, NORTH)
    return found | {"geometry": mapping(ground), "bbox": list(ground.bounds)}


def ids(items):
    return sorted(i["id"] for i in items)


def test_months_are_spread(scene):
    items = [part(scene, f"{m}{n}", month=m, cloud=n) for m in (4, 5, 6) for n in range(5)]
    assert ids(best_coverage(items, CELL, 3)) == ["40", "50", "60"]
    assert ids(best_coverage(items, CELL, 5)) == ["40", "41", "50", "51", "60"]


def test_a_clear_scene_goes_before_a_cloudy_one_of_the_same_month(scene):
    items = [part(scene, f"c{c}", cloud=c) for c in (40, 5, 30, 6, 0)]
    assert ids(best_coverage(items, CELL, 3)) == ["c0", "c5", "c6"]


def test_both_sides_of_a_swaths_edge_are_seen(scene):
    wide = [part(scene, f"w{n}", (0, 0.65)) for n in range(4)]
    narrow = [part(scene, f"n{n}", (0.6, 1)) for n in range(2)]
    assert ids(best_coverage([*wide, *narrow], CELL, 2)) == ["n0", "w0"]


def test_the_limit_counts_for_each_mgrs_tile(scene):
    items = [part(scene, f"{c}{n}", code=c) for c in ("33TTM", "33TTL") for n in range(3)]
    assert ids(best_coverage(items, CELL, 2)) == ["33TTL0", "33TTL1", "33TTM0", "33TTM1"]


def test_without_a_footprint_the_bbox_counts(scene):
    whole = part(scene, "a") | {"geometry": None}
    half = part(scene, "b", (0, 0.5))
    assert clear_coverage([whole], CELL).sum() == 64
    assert clear_coverage([half], CELL).sum() == pytest.approx(32, abs=8)
    assert ids(best_coverage([half, whole], CELL, 1)) == ["a"]


def value(items, cell):
    """What the rule maximises, written again point by point."""
    left, bottom, right, top = cell.grid.bounds_of(cell.box)
    back = Transformer.from_crs(cell.grid.crs, "EPSG:4326", always_xy=True)
    grounds = [shapely.geometry.shape(item["geometry"]) for item in items]
    total = 0.0
    for row, col in itertools.product(range(8), range(8)):
        x, y = left + (right - left) * (col + 0.5) / 8, bottom + (top - bottom) * (row + 0.5) / 8
        point = shapely.Point(back.transform(x, y))
        months = {}
        for item, ground in zip(items, grounds, strict=True):
            if ground.covers(point):
                month = item["properties"]["datetime"][:7]
                clear = 1 - item["properties"]["eo:cloud_cover"] / 100
                months[month] = months.get(month, 0) + clear
        total += sum(np.sqrt(v) for v in months.values())
    return total


shares = st.sampled_from([(0.0, 1.0), (0.0, 0.6), (0.5, 1.0), (0.2, 0.9)])
looks = st.lists(st.tuples(shares, st.integers(1, 4), st.integers(0, 60)), min_size=4, max_size=7)


@settings(max_examples=3)
@given(looks=looks, limit=st.integers(1, 3))
def test_each_choice_adds_the_most(scene, looks, limit):
    items = [part(scene, f"s{n}", *look) for n, look in enumerate(looks)]
    expected = []
    for _ in range(limit):
        rest = [i for i in items if i not in expected]
        expected.append(max(rest, key=lambda i: round(value([*expected, i], CELL), 7)))
    found = best_coverage(items[::-1], CELL, limit)
    assert value(found, CELL) == pytest.approx(value(expected, CELL), abs=1e-5)


def rectangles():
    span = st.tuples(st.integers(0, 7), st.integers(1, 4))
    return st.tuples(span, span)


def tiles_of(rectangle):
    (row, height), (col, width) = rectangle
    return [GRID.key(996 + r, 92 + c)
            for r in range(row, row + height) for c in range(col, col + width)]  # fmt: skip


@settings(max_examples=10)
@given(one=rectangles(), other=rectangles(), seed=st.integers(0, 9))
def test_a_tiles_scenes_do_not_depend_on_the_area_that_asked(scene, opener, one, other, seed):
    """Passes at random over 12 x 12 tiles; the same tile under two areas has the same scenes."""
    dice = np.random.default_rng(seed)
    items = []
    west, south, east, north = lonlat_of(12)
    for n in range(24):
        a, b = sorted(dice.uniform(west - 0.1, east + 0.1, 2))
        found = part(scene, f"s{n}", month=int(dice.integers(1, 13)), cloud=int(dice.integers(50)))
        ground = box(a, south - 0.1, b + 0.05, north + 0.1)
        found |= {"geometry": mapping(ground), "bbox": list(ground.bounds)}
        if n % 3 == 0:  # reprocessed
            found["properties"] |= {"s2:datatake_id": f"GS2A_{n}_N02.14",
                                    "s2:processing_baseline": "02.14"}  # fmt: skip
            newer = found | {"id": f"n{n}"}
            newer["properties"] = found["properties"] | {
                "s2:datatake_id": f"GS2A_{n}_N05.09",
                "s2:processing_baseline": "05.09",
            }
            items.append(newer)
        items.append(found)
    source = Sentinel2Source(kind="sentinel-2", catalog="x", scenes_per_tile=4,
                             bands=Bands(required=["red"]))  # fmt: skip
    made = []
    for rectangle in (one, other):
        tiles = tiles_of(rectangle)
        result = search_source("s2", source, tiles, YEAR, opener(*items))
        by_tile = FootprintTest(tiles).by_tile(result.items)
        made.append({tile: ids(found) for tile, found in by_tile.items()})
    for tile in made[0].keys() & made[1].keys():
        assert made[0][tile] == made[1][tile]


def test_a_tile_of_another_size_has_the_same_scenes(scene, opener):
    """The west of the cell is seen often; a tile in its west is not given more of that."""
    items = [part(scene, f"w{n}", (0, 0.65)) for n in range(4)]
    items += [part(scene, f"n{n}", (0.6, 1)) for n in range(4)]
    source = Sentinel2Source(
        kind="sentinel-2", catalog="x", scenes_per_tile=3, bands=Bands(required=["red"])
    )
    whole = ids(search_source("s2", source, [CELL], YEAR, opener(*items)).items)
    assert len(whole) == 3
    for tile in GRID.tiles_in(CELL.box)[:4]:
        found = search_source("s2", source, [tile], YEAR, opener(*items)).items
        near = FootprintTest([tile]).by_tile([i for i in items if i["id"] in whole])[tile]
        assert ids(found) == ids(near)


def lonlat_of(count):
    corners = [lonlat(GRID.key(996, 92)).bounds, lonlat(GRID.key(995 + count, 91 + count)).bounds]
    return (*np.min(corners, axis=0)[:2], *np.max(corners, axis=0)[2:])
