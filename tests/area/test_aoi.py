"""Areas of interest: every vector file people have, and every name they give."""

import json
import logging
import re

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import example, given
from hypothesis import strategies as st
from pyproj import Geod, Transformer
from shapely import MultiPolygon, Point, Polygon, box

from mapper.area.aoi import AreaOfInterest, pick_areas, read_areas, slugify
from mapper.errors import AreaError, UsageError

SLUG = re.compile(r"^[a-z0-9]+(-[a-z0-9]+)*$")
BOLZANO = Polygon([(11.30, 46.46), (11.38, 46.45), (11.40, 46.51), (11.31, 46.52)])
MERANO = Polygon([(11.12, 46.65), (11.19, 46.64), (11.20, 46.69), (11.13, 46.69)])
BOWTIE = Polygon([(10, 45), (10.2, 45.2), (10.2, 45), (10, 45.2)])
FIJI = MultiPolygon([box(179.2, -17.2, 180, -16.0), box(-180, -17.2, -179.6, -16.0)])
TAVEUNI = MultiPolygon([box(179.8, -17.0, 180, -16.8), box(-180, -17.0, -179.0, -16.8)])


def frame_of(geometries, names=None, crs="EPSG:4326"):
    columns = {} if names is None else {"name": names}
    return geopandas.GeoDataFrame(columns, geometry=list(geometries), crs=crs)


@pytest.fixture
def write(tmp_path):
    """Writes a frame under a file name; gives its path."""

    def write_frame(frame, name="areas.geojson"):
        path = tmp_path / name
        frame.to_parquet(path) if path.suffix.endswith("parquet") else frame.to_file(path)
        return path

    return write_frame


@pytest.fixture
def write_features(tmp_path):
    """Writes GeoJSON features from (properties, geometry); gives the file's path."""

    def write_json(*features):
        path = tmp_path / "areas.geojson"
        content = [
            {
                "type": "Feature",
                "properties": properties,
                "geometry": json.loads(shapely.to_geojson(geometry) or "null"),
            }
            for properties, geometry in features
        ]
        path.write_text(json.dumps({"type": "FeatureCollection", "features": content}))
        return path

    return write_json


def assert_same_ground(one, other, share=1e-6):
    assert one.symmetric_difference(other).area < share * other.area


# formats and CRS ---------------------------------------------------------------------------

FORMATS = ["areas.geojson", "areas.gpkg", "areas.shp", "areas.parquet", "areas.geoparquet"]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_areas(write, name):
    areas = read_areas(write(frame_of([BOLZANO, MERANO], ["Bolzano", "Merano"]), name))
    assert [(a.name, a.slug) for a in areas] == [("Bolzano", "bolzano"), ("Merano", "merano")]
    assert_same_ground(areas[0].geometry, BOLZANO)
    assert_same_ground(areas[1].geometry, MERANO)


@pytest.mark.parametrize("crs", [25832, 3857, 32632, 4258])
@pytest.mark.parametrize("name", ["areas.gpkg", "areas.shp", "areas.parquet"])
def test_areas_in_another_crs_come_back_as_longitude_and_latitude(write, name, crs):
    there = Transformer.from_crs(4326, crs, always_xy=True)
    moved = shapely.transform(BOLZANO, lambda xy: np.column_stack(there.transform(*xy.T)))
    (area,) = read_areas(write(frame_of([moved], ["Bolzano"], crs), name))
    assert_same_ground(area.geometry, BOLZANO)


def test_a_shapefile_without_prj_is_refused(write):
    path = write(frame_of([BOLZANO], ["Bolzano"]), "areas.shp")
    path.with_suffix(".prj").unlink()
    with pytest.raises(AreaError, match=r"CRS.*\.prj"):
        read_areas(path)


def test_a_geometry_column_of_any_name_is_found(tmp_path):
    path = tmp_path / "areas.parquet"
    frame_of([BOLZANO], ["Bolzano"]).rename_geometry("outline").to_parquet(path)
    (area,) = read_areas(path)
    assert_same_ground(area.geometry, BOLZANO)


def test_multipolygons_stay_whole(write):
    islands = MultiPolygon([BOLZANO, MERANO])
    (area,) = read_areas(write(frame_of([islands], ["Both"])))
    assert area.geometry.geom_type == "MultiPolygon"
    assert_same_ground(area.geometry, islands)


def test_heights_are_dropped(write):
    (area,) = read_areas(write(frame_of([shapely.force_3d(BOLZANO, 260)], ["Bolzano"])))
    assert not area.geometry.has_z
    assert_same_ground(area.geometry, BOLZANO)


def test_holes_are_kept(write):
    ring = box(10, 45, 11, 46).difference(box(10.4, 45.4, 10.6, 45.6))
    (area,) = read_areas(write(frame_of([ring], ["Ring"])))
    assert_same_ground(area.geometry, ring)


def test_the_country_is_read_where_there_is_one(write_features):
    first, second = read_areas(
        write_features(
            ({"name": "Bolzano", "country": "Italy"}, BOLZANO),
            ({"name": "Merano", "country": None}, MERANO),
        )
    )
    assert (first.country, second.country) == ("Italy", "")


# geometries --------------------------------------------------------------------------------


def test_a_self_intersecting_polygon_is_repaired_with_a_warning(write, caplog):
    path = write(frame_of([BOLZANO, BOWTIE], ["Bolzano", "Bowtie"]))
    with caplog.at_level(logging.WARNING):
        areas = read_areas(path)
    (record,) = caplog.records
    assert "feature 1 ('Bowtie')" in record.getMessage()
    assert "repaired" in record.getMessage()
    assert areas[1].geometry.is_valid
    triangles = Polygon([(10, 45), (10.1, 45.1), (10, 45.2)]).area * 2
    assert areas[1].geometry.area == pytest.approx(triangles)


def test_valid_polygons_are_read_without_a_word(write, caplog):
    read_areas(write(frame_of([BOLZANO, MERANO], ["Bolzano", "Merano"])))
    assert caplog.records == []


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (Point(11, 46), "Point"),
        (shapely.LineString([(11, 46), (12, 47)]), "LineString"),
        (shapely.MultiPoint([(11, 46), (12, 47)]), "MultiPoint"),
        (Polygon([(11, 46), (12, 47), (11, 46)]), "without area"),
    ],
)
def test_what_has_no_area_is_refused_with_its_index(write_features, wrong, kind):
    path = write_features(
        ({"name": "Bolzano"}, BOLZANO), ({"name": "Merano"}, MERANO), ({"name": "Bad"}, wrong)
    )
    with pytest.raises(AreaError, match=rf"feature 2 \('Bad'\).*{kind}"):
        read_areas(path)


@pytest.mark.parametrize("wrong", [None, Polygon()])
def test_a_feature_without_geometry_is_refused_with_its_index(write_features, wrong):
    path = write_features(({"name": "Bolzano"}, BOLZANO), ({"name": "Gap"}, wrong))
    with pytest.raises(AreaError, match=r"feature 1 \('Gap'\) has no geometry"):
        read_areas(path)


def test_polygons_are_taken_out_of_a_collection(write_features):
    mixed = shapely.GeometryCollection([BOLZANO, shapely.LineString([(11, 46), (12, 47)])])
    (area,) = read_areas(write_features(({"name": "Mixed"}, mixed)))
    assert_same_ground(area.geometry, BOLZANO)


@pytest.mark.parametrize(
    "metres",
    [
        box(677_000, 5_147_000, 690_000, 5_160_000),
        box(12_960_000, 4_850_000, 12_980_000, 4_870_000),
        box(0, 91, 1, 92),
    ],
)
def test_metres_declared_as_degrees_are_refused(write_features, metres):
    with pytest.raises(AreaError, match=r"feature 0 \('Wrong'\).*CRS"):
        read_areas(write_features(({"name": "Wrong"}, metres)))


@pytest.mark.parametrize(
    ("declared", "shape"),
    [
        (32632, box(1e12, 1e12, 2e12, 2e12)),
        (3857, box(1e9, 1e9, 2e9, 2e9)),
    ],
)
def test_coordinates_beyond_their_crs_are_refused(write, declared, shape):
    path = write(frame_of([shape], ["Wrong"], declared), "areas.gpkg")
    with pytest.raises(AreaError, match="feature 0"):
        read_areas(path)


def test_identical_features_are_refused_with_both_indices(write):
    turned = Polygon([*BOLZANO.exterior.coords[2:], *BOLZANO.exterior.coords[1:3]])
    path = write(frame_of([BOLZANO, MERANO, turned], ["Bolzano", "Merano", "Bolzano"]))
    with pytest.raises(AreaError, match="features 0 and 2 are the same area 'Bolzano'"):
        read_areas(path)


# files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_a_missing_file_is_refused(tmp_path, name):
    with pytest.raises(AreaError, match="does not exist"):
        read_areas(tmp_path / name)


@pytest.mark.parametrize("name", [*FORMATS, "areas.txt", "areas"])
@pytest.mark.parametrize("content", [b"", b"\x00\x01garbage\xff" * 50, b"{not json"])
def test_a_file_that_is_no_vector_file_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AreaError, match=re.escape(str(path))):
        read_areas(path)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(AreaError):
        read_areas(tmp_path)


def test_a_file_without_features_is_refused(write_features):
    with pytest.raises(AreaError, match="no feature"):
        read_areas(write_features())


@pytest.mark.parametrize("name", ["areas.gpkg", "areas.shp", "areas.parquet"])
def test_an_empty_layer_is_refused(write, name):
    frame = frame_of([BOLZANO], ["Bolzano"]).iloc[:0]
    with pytest.raises(AreaError):
        read_areas(write(frame, name))


def test_a_table_without_geometry_is_refused(tmp_path):
    path = tmp_path / "areas.csv"
    path.write_text("name,population\nBolzano,107000\n")
    with pytest.raises(AreaError, match="geometry"):
        read_areas(path)


def test_a_parquet_without_geometry_is_refused(tmp_path):
    path = tmp_path / "areas.parquet"
    pd.DataFrame({"name": ["Bolzano"]}).to_parquet(path)
    with pytest.raises(AreaError):
        read_areas(path)


# names -------------------------------------------------------------------------------------

NAMES = [
    "../../etc",
    "/etc/passwd",
    "..",
    ".",
    "CON",
    "nul",
    "C:\\temp",
    "北京市",
    "القاهرة",
    "São Paulo",
    "Ægir",
    "-",
    "x" * 300,
    "x" * 59 + " y",
    "two\nlines",
    "🌍",
]


@given(st.text())
@example("con")
@example("")
@example("İstanbul")
@example("x" * 60 + "-y")
def test_any_name_becomes_a_safe_slug(name):
    slug = slugify(name)
    assert SLUG.match(slug)
    assert "\n" not in slug
    assert len(slug) <= 80
    assert slug not in {"con", "prn", "aux", "nul"}
    assert slugify(name) == slug


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_are_kept_for_people_and_made_safe_for_paths(write_features, name):
    (area,) = read_areas(write_features(({"name": name}, BOLZANO)))
    assert SLUG.fullmatch(area.slug)
    assert area.name == name.strip()


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("São Paulo", "sao-paulo"),
        ("Frankfurt (Main)", "frankfurt-main"),
        ("../../etc", "etc"),
        ("CON", "area-con"),
        ("ＴＯＫＹＯ", "tokyo"),
    ],
)
def test_readable_names_give_readable_slugs(name, slug):
    assert slugify(name) == slug


def test_names_without_latin_letters_have_different_slugs():
    slugs = {slugify(n) for n in ("北京", "上海", "القاهرة", "Москва", "")}
    assert len(slugs) == 5


@pytest.mark.parametrize("name", [None, "", "   ", "None", "nan"])
def test_an_area_without_name_is_called_after_the_file(write_features, name):
    areas = read_areas(write_features(({"name": "Merano"}, MERANO), ({"name": name}, BOLZANO)))
    assert [a.name for a in areas] == ["Merano", "areas-1"]


@pytest.mark.parametrize("kind", ["object", "string"])
def test_missing_names_in_geoparquet_are_called_after_the_file(write, kind):
    names = pd.Series(["Merano", None], dtype=kind)
    areas = read_areas(write(frame_of([MERANO, BOLZANO], names), "areas.parquet"))
    assert [a.name for a in areas] == ["Merano", "areas-1"]


def test_a_file_without_name_column_numbers_its_areas(write):
    areas = read_areas(write(frame_of([BOLZANO, MERANO])))
    assert [a.slug for a in areas] == ["areas-0", "areas-1"]


@pytest.mark.parametrize("column", ["NAME", "City", "nom", "label", "id"])
def test_usual_name_columns_are_found(tmp_path, column):
    path = tmp_path / "areas.gpkg"
    frame = geopandas.GeoDataFrame(
        {"kind": ["x"], column: ["Bolzano"]}, geometry=[BOLZANO], crs=4326
    )
    frame.to_file(path)
    assert read_areas(path)[0].name == "Bolzano"


def test_numbers_are_names_too(write_features):
    areas = read_areas(write_features(({"id": 0}, BOLZANO), ({"id": 7}, MERANO)))
    assert [a.name for a in areas] == ["0", "7"]


def test_two_names_with_one_slug_are_told_apart_whatever_their_order(write):
    names = ["Bozen!", "bozen"]
    forward = read_areas(write(frame_of([BOLZANO, MERANO], names)))
    backward = read_areas(write(frame_of([MERANO, BOLZANO], names[::-1]), "other.geojson"))
    slugs = {a.name: a.slug for a in forward}
    assert slugs == {a.name: a.slug for a in backward}
    assert len(set(slugs.values())) == 2
    assert all(SLUG.match(s) and s.startswith("bozen-") for s in slugs.values())


def test_one_name_with_two_geometries_is_two_areas(write):
    areas = read_areas(write(frame_of([BOLZANO, MERANO], ["Same", "Same"])))
    assert len({a.slug for a in areas}) == 2


# picking -----------------------------------------------------------------------------------


@pytest.fixture
def areas():
    shapes = {"Berlin": BOLZANO, "Bern": MERANO, "São Paulo": BOWTIE}
    return [AreaOfInterest(name=n, slug=slugify(n), geometry=g) for n, g in shapes.items()]


def test_without_names_all_areas_are_picked(areas):
    assert pick_areas(areas, []) == areas


@pytest.mark.parametrize("name", ["São Paulo", "SÃO PAULO", "sao-paulo"])
def test_areas_are_picked_by_name_or_slug(areas, name):
    assert [a.name for a in pick_areas(areas, [name])] == ["São Paulo"]


def test_picked_areas_keep_the_order_of_the_file(areas):
    assert [a.name for a in pick_areas(areas, ["Bern", "berlin", "Bern"])] == ["Berlin", "Bern"]


def test_an_unknown_name_is_refused_with_near_ones(areas):
    with pytest.raises(UsageError, match=r"'Berln'; did you mean Berlin, Bern\?"):
        pick_areas(areas, ["Bern", "Berln"])


def test_a_name_near_none_is_refused_without_a_guess(areas):
    with pytest.raises(UsageError, match="'Zzz'") as caught:
        pick_areas(areas, ["Zzz"])
    assert "did you mean" not in str(caught.value)


# grids -------------------------------------------------------------------------------------


def area_of(geometry):
    return AreaOfInterest(name="x", slug="x", geometry=geometry)


@pytest.mark.parametrize(
    ("geometry", "epsg"),
    [
        (BOLZANO, 32632),
        (box(-58.6, -34.7, -58.3, -34.5), 32721),
        (box(151.0, -34.0, 151.4, -33.7), 32756),
        (box(-0.3, 5.5, -0.1, 5.7), 32630),
        (box(0.1, -0.4, 0.5, 0.3), 32731),
        (box(5.0, 50, 6.8, 51), 32631),
        (FIJI, 32760),
        (TAVEUNI, 32701),
    ],
)
def test_the_zone_is_that_of_the_middle(geometry, epsg):
    assert area_of(geometry).grid(10, 512).epsg == epsg


@pytest.mark.parametrize("geometry", [FIJI, TAVEUNI, BOLZANO, box(150, -34, 151, -33)])
def test_an_area_on_its_grid_is_as_large_as_on_the_ground(geometry):
    area = area_of(geometry)
    projected = area.on(area.grid(10, 512))
    ground = sum(abs(Geod(ellps="WGS84").geometry_area_perimeter(p)[0]) for p in parts(geometry))
    assert projected.area == pytest.approx(ground, rel=2e-3)
    left, bottom, right, top = projected.bounds
    assert max(right - left, top - bottom) < 200_000


def parts(geometry):
    return shapely.get_parts(geometry)


@pytest.mark.parametrize("geometry", [box(20, 84.2, 21, 85), box(20, -82, 21, -81)])
def test_polar_areas_are_refused(geometry):
    with pytest.raises(AreaError, match="latitude"):
        area_of(geometry).grid(10, 512)


def test_the_digest_is_that_of_the_ground():
    turned = Polygon([*BOLZANO.exterior.coords[2:], *BOLZANO.exterior.coords[1:3]])
    assert turned.equals(BOLZANO)
    assert area_of(turned).digest == area_of(BOLZANO).digest
    assert area_of(BOLZANO.reverse()).digest == area_of(BOLZANO).digest
    moved = shapely.transform(BOLZANO, lambda xy: xy + 1e-9)
    assert area_of(moved).digest != area_of(BOLZANO).digest


def test_geojson_gives_the_geometry_back():
    content = json.loads(json.dumps(area_of(BOLZANO).to_geojson()))
    assert_same_ground(shapely.geometry.shape(content), BOLZANO)
