"""Every reducer over a simulated tile equals plain numpy over the whole stack."""

import itertools

import numpy as np
import pytest

from mapper.area.grid import Grid
from mapper.catalog.observation import group_observations
from mapper.cube.ingest import TileScenes, ingest_tile
from mapper.cube.inspect import inspect_item
from mapper.cube.load import Target, read_mosaic, read_reflectance
from mapper.recipe import Bands, BestScore, Compositing, SclMask, Sentinel1Source, Sentinel2Source

REQUIRED = ["red", "nir", "green"]


def source_with(**changes):
    bands = Bands(required=REQUIRED)
    return Sentinel2Source(kind="sentinel-2", bands=bands, mask=SclMask(), **changes)


@pytest.fixture(scope="module")
def tile(items):
    found = items("sentinel-2-l2a", "probetown")
    epsg = found[0]["properties"]["proj:epsg"]
    transform, shape = (found[0]["assets"]["red"][f"proj:{p}"] for p in ("transform", "shape"))
    grid = Grid(epsg=epsg, resolution=10, tile=512)
    x, y = transform[2] + 5 * shape[1], transform[5] - 5 * shape[0]
    key = grid.tiles_in(grid.box_of((x, y, x + 1, y + 1)))[0]
    looks = {i["id"]: inspect_item(i, source_with()) for i in found}
    return TileScenes(name="s2", key=key, items=tuple(found), inspections=looks)


@pytest.fixture(scope="module")
def stack(tile):
    """`(time, band, y, x)` float with NaN where not clear, and days, by the one-look readers."""
    target, values, days = Target(grid=tile.key.grid, pixels=tile.key.box), [], []
    for observation in group_observations(tile.items, tile.key.grid.epsg):
        scl = read_mosaic(observation.items, "scl", target, "nearest")
        clear = scl.valid & ~np.isin(scl.values, [0, 1, 3, 8, 9, 10])
        how = (tile.inspections, "bilinear")
        bands = [read_reflectance(observation, b, target, how) for b in REQUIRED]
        clear = clear & np.logical_and.reduce([b.valid for b in bands])
        values.append(np.stack([np.where(clear, b.values, np.nan) for b in bands]))
        when = min(i["properties"]["datetime"] for i in observation.items)[:10]
        days.append(np.datetime64(when).astype(int))
    return np.stack(values), np.array(days)


def made(tile, **changes):
    layers = ingest_tile(tile, source_with(**changes))
    return {template.name: array for template, array in layers.arrays}


def half_up(values):
    return np.floor(np.nan_to_num(values) + 0.5)


@pytest.fixture(autouse=True)
def _small_strips(monkeypatch):
    """Several strips, of which none begins at a block's border."""
    monkeypatch.setattr("mapper.cube.scratch.StackShape.strips", _strips)


def _strips(self, most=0):
    edges = [*range(0, self.height, 103), self.height]
    return (slice(a, b) for a, b in itertools.pairwise(edges))


@pytest.mark.filterwarnings("ignore:(All-NaN|Mean of empty):RuntimeWarning")
class TestAgainstNumpy:
    def test_mean(self, tile, stack):
        found = made(tile, composite=Compositing(method="mean"))
        np.testing.assert_array_equal(found["s2"], half_up(np.nanmean(stack[0], axis=0)))
        np.testing.assert_array_equal(found["s2_count"], np.isfinite(stack[0][:, 0]).sum(axis=0))

    def test_percentiles(self, tile, stack):
        rule = Compositing(method="percentiles", percentiles=[20, 75])
        found = made(tile, composite=rule)
        rows = slice(190, 220)
        expected = np.nanpercentile(stack[0][:, :, rows], [20, 75], axis=0)
        merged = half_up(expected.transpose(1, 0, 2, 3).reshape(6, 30, 512))
        part = found["s2"][:, rows].astype(int)
        assert (np.abs(part - merged) <= 1).all()
        assert (part == merged).mean() > 0.999

    def test_medoid_and_its_date(self, tile, stack):
        values, days = stack
        found = made(tile, composite=Compositing(method="medoid", dates=True))
        apart = np.linalg.norm(values[:, None] - values[None], axis=2)
        total = np.where(np.isfinite(values[:, 0]), np.nansum(apart, axis=1), np.inf)
        clear = np.isfinite(total).any(axis=0)
        chosen = found["s2"].astype(float)
        which = np.array([(values[t] == chosen).all(axis=0) for t in range(len(values))])
        assert which.any(axis=0)[clear].all()
        cost = np.where(which, total, np.inf).min(axis=0)
        np.testing.assert_allclose(cost[clear], total.min(axis=0)[clear], rtol=1e-5)
        dated = (which & (days[:, None, None] == found["s2_date"])).any(axis=0)
        assert dated[clear].all()
        assert (found["s2_date"][~clear] == 0).all()

    def test_geometric_median_and_mads(self, tile, stack):
        found = made(tile, composite=Compositing(method="geomedian", mads=True))
        clear = np.isfinite(stack[0][:, 0]).any(axis=0)

        def cost(point):
            return np.nansum(np.linalg.norm(stack[0] - point, axis=1), axis=0)

        centre = found["s2"].astype(float)
        assert (cost(centre)[clear] <= cost(np.nanmedian(stack[0], axis=0))[clear] + 2).all()
        emad = np.nanmedian(np.linalg.norm(stack[0] - centre, axis=1), axis=0)[clear] / 10_000
        assert np.median(np.abs(found["s2_mads"][0][clear] - emad)) < 2e-4
        assert np.isnan(found["s2_mads"][:, ~clear]).all()

    def test_best_pixel_near_a_day(self, tile, stack):
        values, days = stack
        score = BestScore(day=200, spread=30, clouds=0, distance=0)
        rule = Compositing(method="best", score=score, dates=True)
        found = made(tile, composite=rule)
        when = days.astype("datetime64[D]")
        doy = (when - when.astype("datetime64[Y]")).astype(int) + 1
        apart = np.abs(doy - 200).astype(float)
        apart = np.minimum(apart, 365 - apart)[:, None, None] + np.where(
            np.isfinite(values[:, 0]), 0, np.inf
        )
        clear = np.isfinite(apart).any(axis=0)
        best = apart.argmin(axis=0)
        expected = np.take_along_axis(values, best[None, None], axis=0)[0]
        np.testing.assert_array_equal(found["s2"][:, clear], expected[:, clear])
        np.testing.assert_array_equal(found["s2_date"][clear], days[best][clear])

    def test_indices_are_those_of_the_composite(self, tile):
        found = made(tile, indices=["ndvi", "ndwi"])
        red, nir, green = found["s2"].astype(float)
        with np.errstate(invalid="ignore"):
            expected = np.stack([(nir - red) / (nir + red), (green - nir) / (green + nir)])
        np.testing.assert_allclose(found["s2_indices"], expected, atol=1e-6)
        assert np.isnan(found["s2_indices"][:, red == 0]).all()


def test_strips_do_not_show(tile, monkeypatch):
    rule = Compositing(method="best", score=BestScore(distance=300), dates=True)
    parts = made(tile, composite=rule)
    monkeypatch.undo()
    whole = made(tile, composite=rule)
    assert (parts["s2_count"] > 0).any()
    for name, array in parts.items():
        np.testing.assert_array_equal(array, whole[name])


def test_best_pixels_do_not_depend_on_the_tile(tile, items):
    rule = Compositing(method="best", score=BestScore(distance=300))
    large = made(tile, composite=rule)["s2"]
    grid = Grid(epsg=tile.key.grid.epsg, resolution=10, tile=256)
    for key in grid.tiles_in(tile.key.box):
        small = TileScenes(name="s2", key=key, items=tile.items, inspections=tile.inspections)
        part = large[(slice(None), *key.box.slices_in(tile.key.box))]
        np.testing.assert_array_equal(made(small, composite=rule)["s2"], part)


def test_a_growing_scl_mask_takes_more_and_does_not_depend_on_the_tile(tile):
    plain = made(tile)["s2_count"]

    def grown(scenes):
        source = source_with().model_copy(update={"mask": SclMask(dilate=60)})
        return {t.name: a for t, a in ingest_tile(scenes, source).arrays}["s2_count"]

    large = grown(tile)
    assert (large <= plain).all()
    assert (large < plain).any()
    grid = Grid(epsg=tile.key.grid.epsg, resolution=10, tile=256)
    for key in grid.tiles_in(tile.key.box):
        small = TileScenes(name="s2", key=key, items=tile.items, inspections=tile.inspections)
        np.testing.assert_array_equal(grown(small), large[key.box.slices_in(tile.key.box)])


def test_a_speckle_filter_smooths_and_does_not_depend_on_the_tile(items):
    found = tuple(items("sentinel-1-rtc", "probetown"))
    plain = Sentinel1Source(kind="sentinel-1", bands=Bands(required=["vv"]))
    source = plain.model_copy(update={"speckle": 5})
    item = found[0]
    epsg = item["properties"].get("proj:epsg") or int(item["properties"]["proj:code"][5:])
    grid = Grid(epsg=epsg, resolution=10, tile=512)
    west, south, east, north = item["properties"]["proj:bbox"]
    x, y = (west + east) / 2, (south + north) / 2
    key = grid.tiles_in(grid.box_of((x, y, x + 1, y + 1)))[0]
    looks = {i["id"]: inspect_item(i, source) for i in found}

    def mean(at, using):
        scenes = TileScenes(name="s1", key=at, items=found, inspections=looks)
        return ingest_tile(scenes, using).arrays[0][1][0]

    rough, smooth = mean(key, plain), mean(key, source)
    known = np.isfinite(rough) & np.isfinite(smooth)
    assert known.sum() > 10_000
    # over all dates the mean hardly changes: the filter takes speckle out of each date
    assert 0 < np.abs(smooth - rough)[known].mean() < 1
    assert abs(smooth[known].mean() - rough[known].mean()) < 0.5
    small = Grid(epsg=epsg, resolution=10, tile=256)
    for part in small.tiles_in(key.box):
        np.testing.assert_array_equal(mean(part, source), smooth[part.box.slices_in(key.box)])
