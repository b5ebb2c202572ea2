"""Scenes that cannot be read: a budget for each tile, and a ground for each scene."""

import numpy as np
import pytest

from mapper.area.grid import Grid
from mapper.cube.failures import ReadFailures
from mapper.cube.ingest import TileScenes, ingest_tile
from mapper.cube.inspect import inspect_item
from mapper.cube.load import Target
from mapper.errors import ReadError
from mapper.recipe import Bands, Sentinel1Source


def scenes(count):
    return tuple({"id": f"s{n}", "properties": {}, "assets": {}} for n in range(count))


@pytest.mark.parametrize(
    ("budget", "count", "allowed"), [(0, 4, 0), (0.25, 4, 1), (0.3, 4, 1), (0.5, 10, 5), (1, 3, 3)]
)
def test_the_budget_is_a_share_of_the_scenes(budget, count, allowed):
    items = scenes(count)
    failures = ReadFailures(budget, items)
    for item in items[:allowed]:
        failures.note((item,), ReadError(f"{item['id']} is gone"))
        failures.note((item,), ReadError("said again"))
    assert failures.messages == tuple(f"s{n} is gone" for n in range(allowed))
    if allowed < count:
        with pytest.raises(ReadError, match="is gone"):
            failures.note((items[allowed],), ReadError(f"s{allowed} is gone"))


def test_every_granule_of_a_pass_counts():
    items = scenes(4)
    failures = ReadFailures(0.25, items)
    with pytest.raises(ReadError, match="2 of 4 scenes of the tile"):
        failures.note(items[:2], ReadError("their pass is gone"))


def test_the_ground_of_a_lost_scene_is_its_footprint():
    target = Target(grid=Grid(epsg=32633, resolution=10, tile=256), pixels=None)
    key = target.grid.key(2000, 200)
    target = Target(grid=target.grid, pixels=key.box)
    left, bottom, right, top = key.grid.bounds_of(key.box)
    from pyproj import Transformer

    back = Transformer.from_crs(32633, 4326, always_xy=True).transform
    middle = (left + right) / 2
    ring = [back(x, y) for x, y in ((left, bottom), (middle, bottom), (middle, top), (left, top))]
    west = {"id": "a", "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}}
    failures = ReadFailures(1, scenes(3))
    assert not failures.over(target).any()
    failures.note((west,), ReadError("gone"))
    lost = failures.over(target)
    assert lost[:, :127].all()
    assert not lost[:, 130:].any()
    failures.note(({"id": "b"},), ReadError("gone, and nobody knows where it was"))
    assert failures.over(target).all()


def test_a_radar_look_is_used_in_all_bands_or_in_none(items, tmp_path):
    source = Sentinel1Source(
        kind="sentinel-1", bands=Bands(required=["vv", "vh"]), failure_budget=1
    )
    found = [dict(i) for i in items("sentinel-1-rtc", "probetown")]
    epsg = int(found[0]["properties"]["proj:code"][5:])
    west, south, east, north = found[0]["properties"]["proj:bbox"]
    grid = Grid(epsg=epsg, resolution=10, tile=512)
    x, y = (west + east) / 2, (south + north) / 2
    key = grid.tiles_in(grid.box_of((x, y, x + 1, y + 1)))[0]
    looks = {i["id"]: inspect_item(i, source) for i in found}
    for item in found:
        cut = tmp_path / f"{item['id']}.tif"
        with open(item["assets"]["vh"]["href"], "rb") as whole:
            content = whole.read()
        cut.write_bytes(content[: len(content) // 3])
        item["assets"] = item["assets"] | {"vh": item["assets"]["vh"] | {"href": str(cut)}}
    layers = ingest_tile(
        TileScenes(name="s1", key=key, items=tuple(found), inspections=looks), source
    )
    data, count, status = (array for _, array in layers.arrays)
    assert np.isnan(data).all()
    assert not count.any()
    assert set(np.unique(status)) <= {2, 4}
    assert (status == 4).any()
