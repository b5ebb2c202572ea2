"""Zones, MGRS codes and windows."""

import pytest

from mapper.simulate import DEMO_CITIES, TEST_CITIES, SimulatedCity
from mapper.simulate.extent import Extent
from mapper.simulate.granules import granules_of, imagery, zone_extent
from mapper.simulate.ground import mosaic_extent


@pytest.mark.parametrize(
    ("lon", "lat", "code"),
    [
        (11.35, 46.5, "32TPS"),
        (-105.53, 40.15, "13TDE"),
        (-16.85, 20.54, "28QCH"),
        (-11.42, 24.80, "29RKH"),
        (131.5, -33.43, "52HGH"),
        (2.18, 49.15, "31UDQ"),
        (35.29, 2.2156, "36NYH"),
        (27.51, -14.06, "35LNE"),
    ],
)
def test_mgrs_codes_are_those_of_the_real_grid(lon, lat, code):
    city = SimulatedCity(name="A", country="B", iso="XSA", lon=lon, lat=lat, size_m=1000, seed=1)
    north, south = granules_of(city, imagery(city, 500))
    assert north.code == code
    assert south.code != code


@pytest.mark.parametrize("city", [*DEMO_CITIES, *TEST_CITIES], ids=lambda c: c.slug)
def test_zones_come_from_the_longitude(city):
    expected = {(32633, 32632), (32632, 32633)} if abs(city.lon - 12) < 0.1 else {(city.epsg,)}
    assert city.zones in expected


@pytest.mark.parametrize("city", [*DEMO_CITIES, *TEST_CITIES], ids=lambda c: c.slug)
def test_granules_overlap_in_the_city_and_nest_at_all_resolutions(city):
    for zone in city.zones:
        extent = zone_extent(city, 1500, zone, whole=False)
        first, second = (g.extent for g in granules_of(city, extent))
        shared = first.intersection(second)
        assert shared.height >= 0.2 * extent.height
        for window in (first, second):
            assert all(edge % 60 == 0 for edge in window.bounds)
            assert window.at(60).bounds == window.bounds


def test_zones_together_cover_the_area_and_the_mosaic_contains_them():
    city = TEST_CITIES[0]
    mosaic = mosaic_extent(city, 600)
    for zone in city.zones:
        window = zone_extent(city, 600, zone, whole=True)
        left, bottom, right, top = window.projected_bounds(city.epsg)
        assert mosaic.bounds[0] < left < right < mosaic.bounds[2]
        assert mosaic.bounds[1] < bottom < top < mosaic.bounds[3]


def test_extents_snap_outward():
    extent = Extent.snapped(32632, (101, 99, 199, 201), 10, 60)
    assert extent.bounds == (60, 60, 240, 240)
    assert extent.shape == (18, 18)
    assert extent.slices(Extent.snapped(32632, (120, 120, 180, 180), 10)) == (
        slice(6, 12),
        slice(6, 12),
    )
