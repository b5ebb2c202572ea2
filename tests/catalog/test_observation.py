"""Granules of one pass are one observation; the grid's zone comes first."""

import itertools
import random

import pytest

from mapper.catalog.observation import (
    azimuth_of,
    datatake,
    epsg_of,
    group_observations,
    orbit_state,
)


def granule(name, take="T1", epsg=32632, when="2022-05-01T10:00:00Z", platform="sentinel-2a"):
    properties = {"platform": platform, "proj:epsg": epsg, "datetime": when}
    if take:
        properties["s2:datatake_id"] = take
    return {"id": name, "properties": properties}


def ids(looks):
    return [[i["id"] for i in look.items] for look in looks]


GRANULES = [
    granule("c", epsg=32633),
    granule("b"),
    granule("a", epsg=32633),
    granule("d"),
    granule("e", take="T0", when="2022-04-01T10:00:00Z"),
    granule("f", take="T2", platform="sentinel-2b"),
]


@pytest.mark.parametrize(
    ("epsg", "first"), [(32632, ["b", "d", "a", "c"]), (32633, ["a", "c", "b", "d"])]
)
def test_the_grids_zone_comes_first_and_time_orders_observations(epsg, first):
    assert ids(group_observations(GRANULES, epsg)) == [["e"], first, ["f"]]


def test_the_order_given_does_not_matter():
    expected = ids(group_observations(GRANULES, 32632))
    for seed in range(20):
        shuffled = list(GRANULES)
        random.Random(seed).shuffle(shuffled)
        assert ids(group_observations(shuffled, 32632)) == expected


def test_without_a_datatake_a_day_of_a_platform_is_one():
    times = ("2022-05-01T10:00:00Z", "2022-05-01T10:00:14Z", "2022-05-02T10:00:00Z")
    found = [granule(str(n), None, when=t) for n, t in enumerate(times)]
    assert ids(group_observations(found, 32632)) == [["0", "1"], ["2"]]


def test_two_platforms_on_a_day_are_two():
    found = [granule("a", None), granule("b", None, platform="sentinel-2b")]
    assert len(group_observations(found, 32632)) == 2


@pytest.mark.parametrize(
    ("properties", "epsg"),
    [
        ({"proj:epsg": 32632}, 32632),
        ({"proj:code": "EPSG:32632"}, 32632),
        ({"proj:code": "epsg:4326", "proj:epsg": 1}, 4326),
        ({"proj:epsg": None}, None),
        ({"proj:code": "IAU_2015:30100"}, None),
        ({}, None),
    ],
)
def test_old_and_new_projection_properties(properties, epsg):
    assert epsg_of({"properties": properties}) == epsg


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("ascending", "ascending"),
        ("DESCENDING", "descending"),
        ("unknown", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_an_orbit_is_ascending_descending_or_unknown(state, expected):
    assert orbit_state({"properties": {"sat:orbit_state": state}}) == expected


@pytest.mark.parametrize(
    ("properties", "azimuth"),
    [
        ({"view:sun_azimuth": 147.5}, 147.5),
        ({"s2:mean_solar_azimuth": -10}, 350.0),
        ({"eo:sun_azimuth": 360}, 0.0),
        ({"view:sun_azimuth": float("nan"), "eo:sun_azimuth": 12}, 12.0),
        ({"view:sun_azimuth": "147.5"}, None),
        ({"view:sun_azimuth": None, "s2:mean_solar_azimuth": True}, None),
        ({}, None),
    ],
)
def test_the_suns_azimuth_under_any_of_its_names(properties, azimuth):
    assert azimuth_of({"properties": properties}) == azimuth


@pytest.mark.archive
def test_recorded_radar_frames_of_a_pass_share_a_datatake(recorded):
    found = [i for i in recorded("sentinel-1-rtc") if "20240419" in i["id"]]
    assert len(found) == 3
    assert len({datatake(i) for i in found}) == 1
    assert len({datatake(i) for i in recorded("sentinel-1-rtc")}) == 3


@pytest.mark.archive
def test_recorded_granules_of_neighbouring_tiles_are_one_look(recorded):
    day = [i for i in recorded("sentinel-2-l2a") if "MSIL2A_20190101T000001_R116" in i["id"]]
    assert len(day) > 10
    looks = group_observations(day, 32659)
    assert len(looks) == 1
    zones = [epsg_of(i) == 32659 for i in looks[0].items]
    assert [k for k, _ in itertools.groupby(zones)] == [True, False]
