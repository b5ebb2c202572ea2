"""A tile service as a catalog: what its item says, and where its level lies."""

from mapper.catalog.bands import check_item
from mapper.catalog.query import Period
from mapper.catalog.tilecatalog import TileCatalog, href_of, level_in, xyz_level
from tests.catalog.test_pyramid import fetch, service_at


def test_the_item_says_where_whose_and_when():
    box = (-0.4, 39.4, -0.3, 39.5)
    dated = service_at(
        "https://tiles.example", date="2022-06-01", terms_url="https://terms.example"
    )
    period = Period.year(2022)
    (item,) = TileCatalog(dated, fetch).search("ortho", [box, box], period)
    assert check_item(item)["collection"] == "ortho"
    assert item["properties"] == {
        "datetime": "2022-06-01T00:00:00Z",
        "proj:code": "EPSG:3857",
        "license": "CC-BY-4.0",
        "attribution": "© Example Survey",
        "mapper:permission": "terms of use, section 3",
        "mapper:terms": "https://terms.example",
    }
    undated = TileCatalog(service_at("https://tiles.example"), fetch)
    (other,) = undated.search("ortho", [box], period)
    assert other["properties"]["mapper:undated"] is True
    assert other["id"] != item["id"]
    far = service_at("https://tiles.example", bounds=[10, 10, 11, 11])
    assert list(TileCatalog(far, fetch).search("ortho", [box], period)) == []


def test_addresses_come_back_whole():
    for zoom in (0, 7, 23):
        service = service_at("https://tiles.example", zoom=zoom, bounds=[-1, 39, 0.5, 40])
        level = xyz_level(service)
        assert level_in(href_of(level, service)) == (level, service.identity)
