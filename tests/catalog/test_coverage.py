"""The scene plan counts what is seen clear, over the area and by month."""

import numpy as np
import pytest
import rasterio.features
from affine import Affine
from shapely import MultiPolygon, Point, box, unary_union
from shapely.geometry import mapping

from mapper.catalog.coverage import scene_plan
from mapper.catalog.source import Period

YEAR = Period.year(2022)
AREA = box(10, 50, 11, 51)


def look(scene, name, ground=None, cloud=0, month=6, take=None):
    ground = ground or box(9, 49, 12, 52)
    found = scene(name, eo__cloud_cover=cloud, datetime=f"2022-{month:02d}-03T10:00:00Z",
                  s2__datatake_id=take or f"GS2A_{name}_N05.09")  # fmt: skip
    return found | {"geometry": mapping(ground), "bbox": list(ground.bounds)}


def plan(*items, area=AREA, fewest=3):
    return scene_plan({"s2": items}, area, YEAR, fewest).sources["s2"]


def test_views_are_what_is_not_cloud(scene):
    found = plan(*(look(scene, f"s{n}", cloud=c) for n, c in enumerate((0, 50, 25))))
    assert found.views == pytest.approx(2.25)
    assert found.share_below == 1
    assert plan(*(look(scene, f"s{n}", cloud=c) for n, c in enumerate((0, 0, 0)))).share_below == 0


def test_the_share_with_too_few_views_is_that_of_the_ground(scene):
    items = [look(scene, f"a{n}") for n in range(2)] + [look(scene, "b", box(9, 49, 10.25, 52))]
    found = plan(*items)
    assert found.share_below == pytest.approx(0.75, abs=0.01)
    assert found.views == pytest.approx(2.25, abs=0.01)


def test_months_are_told_apart_and_the_empty_ones_named(scene):
    found = plan(look(scene, "a", month=3), look(scene, "b", month=3), look(scene, "c", month=11))
    by_month = {m.month: (m.scenes, m.views) for m in found.months}
    assert len(by_month) == 12
    assert by_month["2022-03"] == (2, pytest.approx(2))
    assert by_month["2022-11"] == (1, pytest.approx(1))
    assert found.empty_months == tuple(f"2022-{m:02d}" for m in range(1, 13) if m not in (3, 11))
    assert "none in 2022-01" in found.text
    assert found.to_dict()["months"]["2022-03"] == {"scenes": 2, "views": 2.0}


def test_granules_of_a_pass_are_one_view(scene):
    take = "GS2A_20220603T100031_036000_N05.09"
    left = look(scene, "l", box(9, 49, 10.6, 52), 20, take=take)
    right = look(scene, "r", box(10.4, 49, 12, 52), 40, take=take)
    found = plan(left, right)
    assert found.scenes == 2
    assert found.views == pytest.approx(0.6 * 0.8 + 0.4 * 0.6, abs=0.01)


def test_no_scene_is_no_view():
    found = plan()
    assert (found.views, found.share_below, found.scenes) == (0, 1, 0)
    assert len(found.empty_months) == 12


def test_an_area_thinner_than_the_raster_still_counts(scene):
    sliver = unary_union([box(10, 50, 10.0001, 50.0001), box(10.9999, 50.9999, 11, 51)])
    assert plan(look(scene, "a"), area=sliver).views == 1


def test_the_count_is_that_of_rasterised_footprints(scene):
    """Against rasterio at four times the resolution, on shapes at random."""
    dice = np.random.default_rng(3)
    area = MultiPolygon([Point(10.3, 50.4).buffer(0.25), box(10.6, 50.1, 10.95, 50.9)])
    corners = dice.uniform((9.8, 49.8, 0.3), (10.6, 50.6, 1), (9, 3))
    grounds = [box(x, y, x + w, y + w) for x, y, w in corners]
    clouds = dice.integers(0, 80, 9)
    looks = enumerate(zip(grounds, clouds, strict=True))
    found = plan(*(look(scene, f"s{n}", g, int(c)) for n, (g, c) in looks), area=area)
    west, south, east, north = area.bounds
    there = Affine((east - west) / 256, 0, west, 0, (south - north) / 256, north)
    views = sum(
        (1 - c / 100) * rasterio.features.rasterize([(g, 1)], (256, 256), transform=there)
        for g, c in zip(grounds, clouds, strict=True)
    )
    inside = rasterio.features.rasterize([(area, 1)], (256, 256), transform=there) == 1
    assert found.views == pytest.approx(views[inside].mean(), abs=0.03)
    assert found.share_below == pytest.approx((views[inside] < 3).mean(), abs=0.03)
