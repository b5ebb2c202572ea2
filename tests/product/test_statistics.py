"""Areas per class, held against pixels measured one by one on the ellipsoid."""

import csv
import io
import json

import numpy as np
import pytest
import shapely
from pyproj import Geod, Transformer
from shapely import MultiPolygon, Polygon, box

from mapper.area.aoi import AreaOfInterest
from mapper.product.statistics import ClassAreas, PixelCounter, pixel_area_km2
from tests.product.conftest import CLASSES

GEOD = Geod(ellps="WGS84")
BOLZANO = box(11.30, 46.46, 11.40, 46.52)
PLACES = {
    "Bolzano": BOLZANO,
    "Buenos Aires": box(-58.6, -34.7, -58.3, -34.5),
    "edge of a zone": box(5.7, 50, 5.95, 50.2),
    "equator": box(6.5, -0.2, 6.7, 0.2),
    "Tromsoe": box(18.7, 69.6, 19.1, 69.7),
}


@pytest.fixture
def areas():
    return ClassAreas(pixels={0: 100, 7: 300, 255: 50}, pixel_area=0.0001, classes=CLASSES)


def measure(lonlat, resolution=10):
    """Area of one pixel by the function, and the mean of pixels measured on the ellipsoid."""
    area = AreaOfInterest(name="x", slug="x", geometry=lonlat)
    grid = area.grid(resolution, 512)
    projected = area.on(grid)
    back = Transformer.from_crs(grid.epsg, 4326, always_xy=True)
    measured = []
    rng = np.random.default_rng(0)
    left, bottom, right, top = projected.bounds
    while len(measured) < 60:
        x, y = rng.uniform(left, right), rng.uniform(bottom, top)
        if not projected.contains(shapely.Point(x, y)):
            continue
        xs, ys = np.array([0, 1, 1, 0]) * resolution + x, np.array([0, 0, 1, 1]) * resolution + y
        measured.append(abs(GEOD.polygon_area_perimeter(*back.transform(xs, ys))[0]) / 1e6)
    return pixel_area_km2(lonlat, projected, resolution), np.mean(measured)


@pytest.mark.parametrize("place", PLACES)
def test_a_pixel_is_as_large_as_on_the_ellipsoid(place):
    said, measured = measure(PLACES[place])
    assert said == pytest.approx(measured, rel=1e-3)


def test_the_factor_of_the_projection_is_not_ignored():
    said, measured = measure(box(8.95, 46.4, 9.05, 46.5))
    assert abs(measured / 1e-4 - 1) > 5e-4
    assert said == pytest.approx(measured, rel=2e-4)


RING = Polygon(
    BOLZANO.exterior.coords, [[(11.33, 46.48), (11.37, 46.48), (11.37, 46.50), (11.33, 46.50)]]
)
TURNED = {
    "as it is": RING,
    "both reversed": RING.reverse(),
    "hole reversed": Polygon(RING.exterior.coords, [RING.interiors[0].coords[::-1]]),
    "exterior reversed": Polygon(RING.exterior.coords[::-1], [RING.interiors[0].coords]),
    "two parts": MultiPolygon([BOLZANO, box(11.5, 46.4, 11.6, 46.5)]),
    "one part of two reversed": MultiPolygon([BOLZANO, box(11.5, 46.4, 11.6, 46.5).reverse()]),
    "antimeridian": MultiPolygon([box(179.8, -17, 180, -16.8), box(-180, -17, -179.8, -16.8)]),
}


@pytest.mark.parametrize("shape", TURNED)
def test_a_pixel_is_as_large_whichever_way_the_rings_turn(shape):
    said, measured = measure(TURNED[shape])
    assert said == pytest.approx(measured, rel=1e-3)


def test_the_map_is_as_large_as_the_polygon():
    said, _ = measure(BOLZANO)
    area = AreaOfInterest(name="x", slug="x", geometry=BOLZANO)
    pixels = round(area.on(area.grid(10, 512)).area / 100)
    whole = ClassAreas(pixels={0: pixels}, pixel_area=said, classes=CLASSES)
    ground = abs(GEOD.geometry_area_perimeter(BOLZANO)[0]) / 1e6
    assert whole.to_json()["area_km2"] == pytest.approx(ground, rel=1e-3)


# tables ------------------------------------------------------------------------------------


def test_rows_hold_every_class_and_nodata(areas):
    rows = areas.rows()
    assert [(r["value"], r["pixels"], r["km2"], r["share"]) for r in rows] == [
        (0, 100, 0.01, 0.25),
        (2, 0, 0.0, 0.0),
        (7, 300, 0.03, 0.75),
        (255, 50, 0.005, None),
    ]
    assert rows[-1]["name"] == "nodata"


def test_json_adds_up(areas):
    content = json.loads(json.dumps(areas.to_json()))
    assert content["area_km2"] == pytest.approx(0.045)
    assert content["mapped_km2"] == pytest.approx(0.04)
    assert content["mapped_share"] == pytest.approx(400 / 450, abs=1e-6)
    assert sum(r["km2"] for r in content["classes"]) == pytest.approx(content["area_km2"])
    assert sum(r["share"] or 0 for r in content["classes"]) == pytest.approx(1)


def test_csv_is_read_back_as_the_rows(areas):
    read = list(csv.DictReader(io.StringIO(areas.to_csv())))
    assert [r["title"] for r in read] == ["Water", "Green & gardens", 'Built, "sealed"', "No data"]
    for line, row in zip(read, areas.rows(), strict=True):
        assert int(line["pixels"]) == row["pixels"]
        assert float(line["km2"]) == row["km2"]
        assert line["share"] == ("" if row["share"] is None else str(row["share"]))
    assert "\r" not in areas.to_csv()


@pytest.mark.parametrize("pixels", [{}, {255: 9}])
def test_a_city_without_a_mapped_pixel_divides_by_nothing(pixels):
    empty = ClassAreas(pixels=pixels, pixel_area=1e-4, classes=CLASSES)
    assert empty.to_json()["mapped_share"] == 0
    assert all(r["share"] is None for r in empty.rows())
    assert len(empty.to_csv().splitlines()) == 5


def test_counting_by_strips_is_counting_at_once():
    rng = np.random.default_rng(0)
    values = rng.choice(np.array([0, 2, 7, 255], np.uint8), (50, 40))
    inside = rng.integers(0, 2, values.shape).astype(bool)
    counter = PixelCounter()
    for row in range(0, 50, 7):
        counter.add(values[row : row + 7], inside[row : row + 7])
    expected = {v: int((values[inside] == v).sum()) for v in (0, 2, 7, 255)}
    assert counter.counts() == expected


def test_nothing_counted_is_nothing():
    counter = PixelCounter()
    counter.add(np.zeros((3, 3), np.uint8), np.zeros((3, 3), bool))
    assert counter.counts() == {}
