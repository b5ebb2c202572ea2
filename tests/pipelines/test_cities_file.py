"""The shipped list of cities: complete, well formed, and in the right place."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from pyproj import Geod
from shapely.geometry import Point, shape

FILE = Path(__file__).parents[2] / "pipelines" / "cities.geojson"

UGS_1M = re.findall(
    r"\S+",
    """
    Beijing Shanghai Tianjin Chongqing Hohhot Nanning Lhasa Yinchuan Urumqi Harbin Changchun
    Shenyang Shijiazhuang Taiyuan Lanzhou Xining Xi'an Zhengzhou Jinan Hefei Changsha Wuhan
    Nanjing Chengdu Guiyang Kunming Hangzhou Nanchang Guangzhou Fuzhou Haikou Macau Taipei
    """,
)

FIELDS = {
    "name",
    "country",
    "iso",
    "group",
    "population",
    "population_year",
    "population_source",
}

# Town halls, central squares and stations, longitude and latitude.
LANDMARKS = {
    "Abidjan": [(-4.019, 5.323)],
    "Accra": [(-0.193, 5.547), (-0.187, 5.605)],
    "Addis Ababa": [(38.761, 9.011)],
    "Algiers": [(3.061, 36.776)],
    "Amsterdam": [(4.893, 52.373), (4.873, 52.339)],
    "Ankara": [(32.854, 39.920)],
    "Athens": [(23.735, 37.976), (23.643, 37.943)],
    "Auckland": [(174.764, -36.848)],
    "Baghdad": [(44.393, 33.312)],
    "Bangalore": [(77.591, 12.980), (77.728, 12.970)],
    "Bangkok": [(100.493, 13.750), (100.534, 13.746)],
    "Barcelona": [(2.170, 41.387), (2.174, 41.404)],
    "Beijing": [(116.391, 39.906), (116.275, 39.999), (116.379, 39.865)],
    "Berlin": [(13.378, 52.516), (13.413, 52.522), (13.287, 52.505)],
    "Bogota": [(-74.076, 4.598)],
    "Brussels": [(4.352, 50.847), (4.341, 50.895)],
    "Bucharest": [(26.087, 44.427)],
    "Budapest": [(19.046, 47.507)],
    "Buenos Aires": [(-58.372, -34.608), (-58.382, -34.604)],
    "Cairo": [(31.236, 30.044), (31.209, 30.013)],
    "Cape Town": [(18.424, -33.925), (18.513, -33.894)],
    "Caracas": [(-66.915, 10.506)],
    "Casablanca": [(-7.619, 33.589), (-7.633, 33.608)],
    "Changchun": [(125.324, 43.886)],
    "Changsha": [(112.977, 28.196)],
    "Chengdu": [(104.066, 30.657)],
    "Chennai": [(80.271, 13.082)],
    "Chicago": [(-87.632, 41.884), (-87.904, 41.979)],
    "Chongqing": [(106.577, 29.557), (106.551, 29.562)],
    "Dakar": [(-17.438, 14.669), (-17.495, 14.722)],
    "Dar es Salaam": [(39.289, -6.817)],
    "Delhi": [(77.229, 28.613), (77.241, 28.656), (77.089, 28.495)],
    "Dhaka": [(90.379, 23.762), (90.407, 23.709)],
    "Dubai": [(55.274, 25.197), (55.296, 25.264)],
    "Fuzhou": [(119.306, 26.075)],
    "Guangzhou": [(113.264, 23.129), (113.325, 23.107)],
    "Guiyang": [(106.713, 26.578)],
    "Haikou": [(110.331, 20.031)],
    "Hangzhou": [(120.155, 30.252), (120.213, 30.246)],
    "Hanoi": [(105.852, 21.029), (105.837, 21.037)],
    "Harbin": [(126.632, 45.757)],
    "Havana": [(-82.359, 23.135)],
    "Hefei": [(117.283, 31.861)],
    "Ho Chi Minh City": [(106.700, 10.776), (106.652, 10.819)],
    "Hohhot": [(111.670, 40.818)],
    "Hong Kong": [(114.159, 22.282), (114.172, 22.296), (114.188, 22.382)],
    "Hyderabad": [(78.475, 17.362), (78.381, 17.443)],
    "Istanbul": [(28.980, 41.009), (29.023, 40.991), (28.985, 41.037)],
    "Jakarta": [(106.827, -6.175), (106.798, -6.244)],
    "Jinan": [(117.021, 36.662)],
    "Johannesburg": [(28.043, -26.204), (28.057, -26.107), (27.917, -26.233)],
    "Kabul": [(69.178, 34.526)],
    "Karachi": [(67.033, 24.875), (67.031, 24.850)],
    "Kathmandu": [(85.307, 27.704), (85.325, 27.673)],
    "Khartoum": [(32.530, 15.601), (32.480, 15.650)],
    "Kinshasa": [(15.309, -4.304), (15.310, -4.332)],
    "Kolkata": [(88.342, 22.545), (88.342, 22.583)],
    "Kuala Lumpur": [(101.712, 3.158), (101.607, 3.107)],
    "Kunming": [(102.712, 25.041)],
    "Kyiv": [(30.524, 50.450)],
    "Lagos": [(3.396, 6.453), (3.346, 6.601), (3.421, 6.428)],
    "Lahore": [(74.310, 31.588), (74.344, 31.512)],
    "Lanzhou": [(103.834, 36.061)],
    "Lhasa": [(91.132, 29.653), (91.117, 29.656)],
    "Lima": [(-77.030, -12.046), (-77.030, -12.122)],
    "Lisbon": [(-9.137, 38.708), (-9.097, 38.768)],
    "London": [(-0.127, 51.508), (-0.020, 51.505), (-0.280, 51.556)],
    "Los Angeles": [(-118.243, 34.054), (-118.498, 34.010), (-118.189, 33.767)],
    "Luanda": [(13.230, -8.814)],
    "Macau": [(113.540, 22.193), (113.559, 22.148)],
    "Madrid": [(-3.704, 40.417), (-3.688, 40.453)],
    "Manila": [(120.979, 14.583), (121.043, 14.651), (121.019, 14.555)],
    "Melbourne": [(144.967, -37.814)],
    "Mexico City": [(-99.133, 19.433), (-99.187, 19.333)],
    "Milan": [(9.190, 45.464), (9.124, 45.478)],
    "Moscow": [(37.621, 55.754), (37.530, 55.703)],
    "Mumbai": [(72.835, 18.940), (72.866, 19.066), (72.849, 19.119)],
    "Nairobi": [(36.822, -1.288)],
    "Nanchang": [(115.899, 28.676)],
    "Nanjing": [(118.779, 32.041), (118.797, 32.087)],
    "Nanning": [(108.321, 22.817)],
    "New York": [(-74.006, 40.713), (-73.986, 40.758), (-73.990, 40.692)],
    "Osaka": [(135.502, 34.694), (135.526, 34.687)],
    "Paris": [(2.352, 48.857), (2.238, 48.892), (2.360, 48.936)],
    "Quito": [(-78.512, -0.220)],
    "Rio de Janeiro": [(-43.178, -22.911), (-43.230, -22.912), (-43.182, -22.971)],
    "Riyadh": [(46.710, 24.631), (46.674, 24.711)],
    "Rome": [(12.483, 41.893), (12.454, 41.902)],
    "Santiago": [(-70.651, -33.438), (-70.606, -33.417)],
    "Sao Paulo": [(-46.634, -23.550), (-46.656, -23.561)],
    "Seoul": [(126.978, 37.566), (127.028, 37.498)],
    "Shanghai": [(121.474, 31.230), (121.500, 31.240), (121.321, 31.194)],
    "Shenyang": [(123.459, 41.797), (123.432, 41.805)],
    "Shijiazhuang": [(114.514, 38.043)],
    "Singapore": [(103.851, 1.290), (103.743, 1.333)],
    "Stockholm": [(18.055, 59.327), (18.072, 59.325)],
    "Sydney": [(151.206, -33.873), (151.004, -33.815), (151.215, -33.857)],
    "Taipei": [(121.564, 25.034), (121.517, 25.048), (121.465, 25.012)],
    "Taiyuan": [(112.549, 37.870)],
    "Tashkent": [(69.279, 41.311)],
    "Tehran": [(51.338, 35.700), (51.420, 35.680)],
    "Tel Aviv": [(34.781, 32.081)],
    "Tianjin": [(117.201, 39.084), (117.210, 39.136)],
    "Tokyo": [(139.767, 35.681), (139.700, 35.690), (139.796, 35.715)],
    "Toronto": [(-79.384, 43.653), (-79.411, 43.768)],
    "Ulaanbaatar": [(106.917, 47.919)],
    "Urumqi": [(87.617, 43.793)],
    "Vienna": [(16.373, 48.208), (16.312, 48.185)],
    "Warsaw": [(21.012, 52.247), (21.006, 52.232)],
    "Wuhan": [(114.305, 30.593), (114.302, 30.545)],
    "Xi'an": [(108.947, 34.261), (108.964, 34.220)],
    "Xining": [(101.778, 36.617)],
    "Yangon": [(96.159, 16.774), (96.150, 16.798)],
    "Yinchuan": [(106.278, 38.467)],
    "Zhengzhou": [(113.665, 34.758), (113.727, 34.771)],
}


@pytest.fixture(scope="module")
def features():
    return json.loads(FILE.read_text(encoding="utf-8"))["features"]


@pytest.fixture(scope="module")
def boxes(features):
    return {f["properties"]["name"]: shape(f["geometry"]) for f in features}


def test_enough_cities_in_enough_countries(features):
    groups = Counter(f["properties"]["group"] for f in features)
    assert set(groups) == {"ugs-1m", "world"}
    assert groups["ugs-1m"] == 34
    assert groups["world"] >= 30
    further = {f["properties"]["iso"] for f in features if f["properties"]["group"] == "world"}
    assert len(further - {"CN", "HK", "MO", "TW"}) >= 20


def test_all_areas_of_ugs_1m(features):
    names = {f["properties"]["name"] for f in features if f["properties"]["group"] == "ugs-1m"}
    assert names == {*UGS_1M, "Hong Kong"}


def test_taipei_says_what_it_stands_for(features):
    (note,) = [f["properties"]["note"] for f in features if "note" in f["properties"]]
    assert "Taiwan area of UGS-1m" in note


def test_names_are_unique_and_sorted(features):
    names = [f["properties"]["name"] for f in features]
    assert names == sorted(set(names))
    assert all(name.isascii() and name == name.strip() for name in names)


def test_fields(features):
    for feature in features:
        fields = feature["properties"]
        assert set(fields) - {"note"} == FIELDS
        assert re.fullmatch("[A-Z]{2}", fields["iso"]), fields["name"]
        assert fields["country"]


def test_one_country_per_code(features):
    pairs = {(f["properties"]["iso"], f["properties"]["country"]) for f in features}
    assert len(pairs) == len({iso for iso, _ in pairs}) == len({name for _, name in pairs})


def test_population_states_its_source(features):
    for feature in features:
        fields = feature["properties"]
        known = fields["population"] is not None
        assert known == bool(fields["population_source"]) == bool(fields["population_year"])
        if known:
            assert type(fields["population"]) is int
            assert 10_000 < fields["population"] < 40_000_000
            assert 2000 < fields["population_year"] < 2030
    assert sum(f["properties"]["population"] is not None for f in features) > 40


def test_polygons_follow_rfc_7946(features):
    for feature in features:
        polygon = shape(feature["geometry"])
        assert polygon.is_valid
        assert polygon.exterior.is_ccw, feature["properties"]["name"]
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        for lon, lat in ring:
            assert -180 <= lon <= 180
            assert -90 <= lat <= 90
            assert (round(lon, 3), round(lat, 3)) == (lon, lat)


def test_areas_are_those_of_cities(boxes):
    geod = Geod(ellps="WGS84")
    for name, box in boxes.items():
        area = geod.geometry_area_perimeter(box)[0] / 1e6
        assert (50 if name == "Macau" else 100) < area < 6000, (name, area)


def test_cities_do_not_overlap(boxes):
    names = sorted(boxes)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert not boxes[one].intersects(boxes[other]), (one, other)


def test_every_city_has_a_landmark(boxes):
    assert set(LANDMARKS) == set(boxes)


@pytest.mark.parametrize("name", LANDMARKS)
def test_landmarks_lie_in_their_city(boxes, name):
    for landmark in LANDMARKS[name]:
        assert boxes[name].contains(Point(landmark)), landmark
        inside = [other for other, box in boxes.items() if box.contains(Point(landmark))]
        assert inside == [name]


def test_one_line_per_city():
    lines = FILE.read_text(encoding="utf-8").splitlines()
    assert lines[0] == '{"type":"FeatureCollection","features":['
    assert lines[-1] == "]}"
    assert all(json.loads(line.rstrip(","))["type"] == "Feature" for line in lines[1:-1])
