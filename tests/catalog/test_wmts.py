"""WMTS capabilities: the level that a recipe names, or what is wrong with it."""

import math
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pyproj import Transformer
from rasterio.windows import Window

from mapper.catalog.pyramid import open_pyramid
from mapper.catalog.tilecatalog import TileCatalog
from mapper.catalog.tilestore import KeptTiles
from mapper.catalog.wmts import layer_bounds, parse_capabilities, wmts_level
from mapper.errors import CatalogError, ReadError
from mapper.recipe.tiles import TileService

HALF = math.pi * 6378137
GOOGLE = 559082264.0287178
"""Scale denominator of level 0."""
TERMS = {
    "url": "https://maps.example/wmts?SERVICE=WMTS&REQUEST=GetCapabilities",
    "layer": "ortho",
    "zoom": 18,
    "attribution": "© Example Survey",
    "license": "CC-BY-4.0",
    "permission": "terms of use, section 3",
    "requests_per_second": 50,
}


def matrix(name, scale, corner, grid, size=(256, 256)):
    return f"""<TileMatrix><ows:Identifier>{name}</ows:Identifier>
    <ScaleDenominator>{scale}</ScaleDenominator><TopLeftCorner>{corner}</TopLeftCorner>
    <TileWidth>{size[0]}</TileWidth><TileHeight>{size[1]}</TileHeight>
    <MatrixWidth>{grid[0]}</MatrixWidth><MatrixHeight>{grid[1]}</MatrixHeight></TileMatrix>"""


def matrix_set(name, crs, matrices):
    return f"""<TileMatrixSet><ows:Identifier>{name}</ows:Identifier>
    <ows:SupportedCRS>{crs}</ows:SupportedCRS>{"".join(matrices)}</TileMatrixSet>"""


MERCATOR = matrix_set(
    "GoogleMapsCompatible",
    "urn:ogc:def:crs:EPSG::3857",
    [
        matrix(z, repr(GOOGLE / 2**z), "-20037508.34 20037508.34", (2**z, 2**z))
        for z in (0, 1, 17, 18)
    ],
)
DEGREES = matrix_set(
    "degrees",
    "urn:ogc:def:crs:OGC:1.3:CRS84",
    [matrix(0, 279541132.0143589, "-180 90", (2, 1))],
)
LATLON = matrix_set(
    "latlon", "urn:ogc:def:crs:EPSG::4326", [matrix(0, 279541132.0143589, "90 -180", (2, 1))]
)
REST = """<ResourceURL format="image/jpeg" resourceType="tile"
 template="https://maps.example/t/{TileMatrixSet}/{TileMatrix}/{TileCol}/{TileRow}.jpg"/>"""
KVP = """<ows:OperationsMetadata><ows:Operation name="GetTile"><ows:DCP><ows:HTTP>
<ows:Get xlink:href="https://maps.example/rest"><ows:Constraint name="GetEncoding">
<ows:AllowedValues><ows:Value>RESTful</ows:Value></ows:AllowedValues></ows:Constraint></ows:Get>
<ows:Get xlink:href="https://maps.example/kvp?map=5"><ows:Constraint name="GetEncoding">
<ows:AllowedValues><ows:Value>KVP</ows:Value></ows:AllowedValues></ows:Constraint></ows:Get>
</ows:HTTP></ows:DCP></ows:Operation></ows:OperationsMetadata>"""


def document(sets=(MERCATOR,), links=None, resource=REST, extra="", operations="", before=""):
    """A capabilities document with one layer."""
    if links is None:
        links = "<TileMatrixSetLink><TileMatrixSet>GoogleMapsCompatible</TileMatrixSet>"
        links += "</TileMatrixSetLink>"
    return f"""<?xml version="1.0" encoding="UTF-8"?>{before}
    <Capabilities xmlns="http://www.opengis.net/wmts/1.0" version="1.0.0"
      xmlns:ows="http://www.opengis.net/ows/1.1" xmlns:xlink="http://www.w3.org/1999/xlink">
    {operations}<Contents><Layer><ows:Title>Orthophoto</ows:Title>
    <ows:WGS84BoundingBox><ows:LowerCorner>-1 39</ows:LowerCorner>
    <ows:UpperCorner>0.5 40</ows:UpperCorner></ows:WGS84BoundingBox>
    <ows:Identifier>ortho</ows:Identifier>
    <Style><ows:Identifier>grey</ows:Identifier></Style>
    <Style isDefault="true"><ows:Identifier>plain colour</ows:Identifier></Style>
    <Format>application/pdf</Format><Format>image/png</Format>
    {links}{resource}{extra}</Layer>{"".join(sets)}</Contents></Capabilities>""".encode()


def link_to(name, limits=""):
    return f"<TileMatrixSetLink><TileMatrixSet>{name}</TileMatrixSet>{limits}</TileMatrixSetLink>"


def service(**changed):
    return TileService(**TERMS | changed)


def level(content, **changed):
    return wmts_level(content, service(**changed))


def test_a_mercator_level_is_the_xyz_level():
    found = level(document())
    assert found.template == "https://maps.example/t/GoogleMapsCompatible/18/{x}/{y}.jpg"
    assert (found.epsg, found.name, found.tile_size) == (3857, "18", 256)
    assert found.matrix == (2**18, 2**18)
    assert found.limits == (0, 0, 2**18, 2**18)
    # the rounded corner of the document would be 3 mm off
    assert found.left == pytest.approx(-HALF, abs=1e-6)
    assert found.top == pytest.approx(HALF, abs=1e-6)
    assert found.resolution * 2**18 * 256 == pytest.approx(2 * HALF, abs=1e-6)


def test_rounded_denominators_do_not_move_the_ground():
    rough = matrix_set(
        "GoogleMapsCompatible",
        "EPSG:900913",
        [matrix("a:18", "2132.73", "-20037508 20037508", (2**18, 2**18))],
    )
    assert level(document([rough])).resolution == level(document()).resolution
    # a matrix that is no XYZ level is left as it says
    other = rough.replace("2132.73", "2500")
    assert level(document([other])).resolution == pytest.approx(0.7)


def test_limits_are_kept():
    limits = "<TileMatrixSetLimits>" + "".join(
        f"""<TileMatrixLimits><TileMatrix>{name}</TileMatrix><MinTileRow>{row0}</MinTileRow>
        <MaxTileRow>{row1}</MaxTileRow><MinTileCol>{col0}</MinTileCol>
        <MaxTileCol>{col1}</MaxTileCol></TileMatrixLimits>"""
        for name, row0, row1, col0, col1 in ((17, 1, 2, 3, 4), (18, 99725, 99739, 130799, 9999999))
    )
    links = link_to("GoogleMapsCompatible", limits + "</TileMatrixSetLimits>")
    assert level(document(links=links)).limits == (130799, 99725, 2**18, 99740)
    bad = links.replace("99725", "-1")
    with pytest.raises(CatalogError, match="limits of matrix '18'"):
        level(document(links=bad))


def test_a_query_where_there_is_no_resource():
    found = level(document(resource="", operations=KVP))
    assert found.template == (
        "https://maps.example/kvp?map=5&SERVICE=WMTS&REQUEST=GetTile&VERSION=1.0.0"
        "&FORMAT=image%2Fpng&LAYER=ortho&STYLE=plain%20colour"
        "&TILEMATRIXSET=GoogleMapsCompatible&TILEMATRIX=18&TILEROW={y}&TILECOL={x}"
    )
    assert "STYLE=grey&" in level(document(resource="", operations=KVP), style="grey").template
    with pytest.raises(CatalogError, match="GetTile"):
        level(document(resource=""))


def test_styles_and_dimensions_are_filled_in():
    address = "https://maps.example/{Style}/{TIME}/{tilematrixset}/{TileMatrix}/{TileRow}/{TileCol}"
    resource = f'<ResourceURL format="image/png" resourceType="tile" template="{address}"/>'
    time = "<Dimension><ows:Identifier>Time</ows:Identifier>{}</Dimension>"
    given = time.format("<Default>2022-06-01</Default><Value>2022-06-01</Value>")
    found = level(document(resource=resource, extra=given))
    start = "https://maps.example/plain%20colour/2022-06-01/GoogleMapsCompatible/18/"
    assert found.template == start + "{y}/{x}"
    with pytest.raises(CatalogError, match="no default"):
        level(document(resource=resource, extra=time.format("<Value>2022</Value>")))
    with pytest.raises(CatalogError, match=r"wants \{TIME\}"):
        level(document(resource=resource))


UTM = matrix_set(
    "utm30",
    "urn:ogc:def:crs:EPSG::25830",
    [matrix("12", 1000 / 0.28, "-500000 6000000", (9000, 9000))],
)
LAEA = matrix_set(
    "laea",
    "http://www.opengis.net/def/crs/EPSG/0/3035",
    [matrix("12", 1000 / 0.28, "5500000 2000000", (20000, 20000), (512, 512))],
)
FEET = matrix_set(
    "feet",
    "urn:ogc:def:crs:EPSG::2263",
    [matrix("12", 304.8006096012192 / 0.28, "900000 300000", (1000, 1000))],
)


@pytest.mark.parametrize(
    ("one", "place", "size"),
    [
        (UTM, (25830, -500000, 6000000, 1.0), 256),
        # the authority's order is north first, the plain form's is x first
        (LAEA, (3035, 2000000, 5500000, 1.0), 512),
        (
            LAEA.replace("http://www.opengis.net/def/crs/EPSG/0/", "EPSG:").replace(
                "5500000 2000000", "2000000 5500000"
            ),
            (3035, 2000000, 5500000, 1.0),
            512,
        ),
        (FEET, (2263, 900000, 300000, 1.0), 256),
    ],
    ids=["utm", "laea", "plain laea", "feet"],
)
def test_other_projected_systems(one, place, size):
    name = one.partition("<ows:Identifier>")[2].partition("<")[0]
    found = level(document([one], link_to(name)), matrix_set=name, zoom="12")
    assert (found.epsg, found.left, found.top) == place[:3]
    assert found.resolution == pytest.approx(place[3])
    assert found.tile_size == size


def test_degrees_are_refused_and_a_projected_set_is_found_beside_them():
    links = link_to("degrees") + link_to("latlon") + link_to("GoogleMapsCompatible")
    sets = (DEGREES, LATLON, MERCATOR)
    assert level(document(sets, links)).epsg == 3857
    with pytest.raises(CatalogError, match="degrees; choose one in a projected CRS"):
        level(document(sets, links), matrix_set="latlon", zoom=0)
    with pytest.raises(CatalogError, match="no EPSG number"):
        level(document(sets, links), matrix_set="degrees", zoom=0)


@pytest.mark.parametrize(
    ("changed", "content", "said"),
    [
        ({"layer": "orto"}, document(), "no layer 'orto'; there are 'ortho'"),
        ({"style": "red"}, document(), "'grey', 'plain colour'"),
        ({"matrix_set": "other"}, document(), "'GoogleMapsCompatible'"),
        ({"zoom": 19}, document(), "no matrix '19'; there are '0', '1', '17', '18'"),
        ({}, document([UTM], link_to("utm30")), "no matrix set is in EPSG:3857; name one"),
        ({}, document([MERCATOR.replace("<TileHeight>256", "<TileHeight>128")]), "not square"),
        ({}, document([MERCATOR.replace("<TileWidth>256", "<TileWidth>-1")]), "TileWidth is '-1'"),
        ({}, document([MERCATOR.replace("-20037508.34 2", "west 2")]), "TopLeftCorner"),
        ({}, document([MERCATOR.replace("Denominator>2132", "Denominator>x")]), "ScaleDenominator"),
        ({}, document([MERCATOR.replace("EPSG::3857", "EPSG::999999")]), "EPSG:3857; name one"),
        ({}, document(resource=REST.replace("https", "file")), "no http address"),
        ({}, document(resource=REST.replace("maps.", "{TileRow}.")), "cannot be filled in"),
        ({}, document(resource=REST.replace("{TileRow}", "7")), "names no TileRow"),
        ({}, b"<html><body>hello</body></html>", "not WMTS 1.0.0"),
        ({}, b"hello", "no XML"),
        ({}, b"", "no XML"),
    ],
)
def test_what_is_wrong_is_said_with_the_choice(changed, content, said):
    with pytest.raises(CatalogError) as error:
        level(content, **changed)
    assert said in str(error.value)
    assert str(error.value).startswith("WMTS https://maps.example/wmts:")


def test_swapped_corners_are_noticed():
    swapped = LAEA.replace("5500000 2000000", "2000000 9500000")
    with pytest.raises(CatalogError, match="wrong order"):
        level(document([swapped], link_to("laea")), matrix_set="laea", zoom="12")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_document_types_are_refused_before_they_are_expanded(encoding, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("hush")
    entities = '<!ENTITY a "' + "ha" * 50 + '">'
    entities += "".join(
        f'<!ENTITY {new} "{f"&{old};" * 20}">'
        for old, new in zip("abcdefg", "bcdefgh", strict=True)
    )
    for inside in (entities, f'<!ENTITY h SYSTEM "{secret.as_uri()}">'):
        text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE Capabilities [{inside}]>'
        text += '<Capabilities xmlns="http://www.opengis.net/wmts/1.0">&h;</Capabilities>'
        with pytest.raises(CatalogError, match="declares a type"):
            parse_capabilities(text.encode(encoding))


KEYED = {"url": TERMS["url"] + "&apikey={key}", "key_variable": "TILE_KEY"}


def test_the_key_is_taken_out_of_a_document_that_repeats_it(monkeypatch):
    monkeypatch.setenv("TILE_KEY", "hush/1")
    asked = []
    repeated = REST.replace(".jpg", ".jpg?apikey=hush%2F1").replace("https://", "https://")

    def answer(content):
        return lambda href: asked.append(href) or content

    catalog = TileCatalog(service(**KEYED), answer(document(resource=repeated)))
    (item,) = catalog.search("ortho", [(-0.4, 39.4, -0.3, 39.5)], None)
    assert asked == [TERMS["url"] + "&apikey=hush%2F1"]
    href = item["assets"]["image"]["href"]
    assert "hush" not in str(item)
    assert "{y}.jpg?apikey={key}#" in href
    # one that leaves the key out gets it where the document has it
    (item,) = TileCatalog(service(**KEYED), answer(document())).search("o", [(0, 39, 1, 40)], None)
    assert "{y}.jpg?apikey={key}#" in item["assets"]["image"]["href"]
    # and no other host gets it
    away = document(resource=REST.replace("maps.", "thief."))
    with pytest.raises(CatalogError, match="key is not sent there"):
        next(TileCatalog(service(**KEYED), answer(away)).search("o", [(0, 39, 1, 40)], None))
    wrong = document().replace(b">ortho<", b">hush/1<")
    with pytest.raises(CatalogError, match="no layer") as error:
        next(TileCatalog(service(**KEYED), answer(wrong)).search("o", [(0, 39, 1, 40)], None))
    assert "hush" not in str(error.value)


def test_a_service_that_does_not_answer(monkeypatch):
    monkeypatch.setenv("TILE_KEY", "hush/1")

    def refuse(href):
        raise ReadError(f"{href} answers 503")

    for fetch, said in ((refuse, "answers 503"), (lambda href: b"", "no capabilities")):
        with pytest.raises(CatalogError, match=said) as error:
            next(TileCatalog(service(**KEYED), fetch).search("o", [(0, 39, 1, 40)], None))
        assert "hush" not in str(error.value)
        assert error.value.__suppress_context__ or error.value.__context__ is None


def test_the_item_covers_the_layer_within_the_bounds():
    content = document()
    assert layer_bounds(content, service()) == (-1, 39, 0.5, 40)
    catalog = TileCatalog(service(bounds=[-0.5, 30, 10, 39.5]), lambda href: content)
    (item,) = catalog.search("ortho", [(-0.4, 39.4, -0.3, 39.5)], None)
    assert item["bbox"] == [-0.5, 39, 0.5, 39.5]
    assert item["properties"]["proj:code"] == "EPSG:3857"
    assert list(catalog.search("ortho", [(5, 39.4, 6, 39.5)], None)) == []
    with pytest.raises(CatalogError, match="do not meet"):
        next(
            TileCatalog(service(bounds=[5, 30, 10, 39.5]), lambda href: content).search(
                "ortho", [(5, 39.4, 6, 39.5)], None
            )
        )


def test_pixels_of_a_matrix_in_utm_lie_where_the_document_says():
    content = document(
        [UTM], link_to("utm30"), REST.replace("https://maps.example", "http://127.0.0.1:1")
    )
    here = service(url="http://127.0.0.1:1/wmts", matrix_set="utm30", zoom="12")
    asked = []

    def fetch(href):
        if href.endswith("/wmts"):
            return content
        asked.append(href)
        x, y = (int(part) for part in href.removesuffix(".jpg").split("/")[-2:])
        rows, cols = np.mgrid[y * 256 : (y + 1) * 256, x * 256 : (x + 1) * 256]
        # red and green are the last two digits of northing and easting of a pixel's corner
        pixels = np.stack([(6000000 - rows) % 100, (-500000 + cols) % 100, 0 * rows], -1)
        stream = BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG")
        return stream.getvalue()

    (item,) = TileCatalog(here, fetch).search("ortho", [(-0.4, 39.4, -0.3, 39.5)], None)
    href = item["assets"]["image"]["href"]
    with open_pyramid(href, fetch, service=here, kept=KeptTiles()) as pyramid:
        assert pyramid.crs.to_epsg() == 25830
        east, north = Transformer.from_crs(4326, 25830, always_xy=True).transform(-0.37, 39.48)
        row, col = int(6000000 - north), int(east + 500000)
        values = pyramid.read(window=Window(col, row, 300, 2))
    assert values[0, 0, 0] == (6000000 - row) % 100
    np.testing.assert_array_equal(values[1, 0], (col - 500000 + np.arange(300)) % 100)
    assert abs((6000000 - row) - north) <= 1
    first = f"http://127.0.0.1:1/t/utm30/12/{col // 256}/{row // 256}.jpg"
    assert first in asked
