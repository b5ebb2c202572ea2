"""Real servers on loopback answer as the archives' do."""

import json
import urllib.error
import urllib.request

import pytest
import rasterio

from mapper.simulate import serve_api, serve_files

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(address, **headers):
    with OPENER.open(urllib.request.Request(address, headers=headers), timeout=10) as answer:
        return answer.status, answer.headers, answer.read()


def post(address, body):
    request = urllib.request.Request(
        address, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with OPENER.open(request, timeout=10) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def band(catalog):
    path = next((catalog.parent / "sentinel-2-l2a").rglob("B04.tif"))
    return path, path.relative_to(catalog.parent).as_posix()


def test_ranges_of_a_file_are_served(catalog, band):
    path, name = band
    with serve_files(catalog.parent) as address:
        status, headers, body = get(f"{address}/{name}", Range="bytes=100-299")
        assert status == 206
        assert body == path.read_bytes()[100:300]
        assert headers["Content-Range"].startswith("bytes 100-299/")
        assert get(f"{address}/{name}")[2] == path.read_bytes()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(f"{address}/missing.tif")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(f"{address}/..%2f..%2f..%2f..%2fetc/hostname")


def test_gdal_reads_over_http(catalog, band):
    path, name = band
    options = rasterio.Env(GDAL_HTTP_PROXY="", GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR")
    with serve_files(catalog.parent) as address, options:
        source = rasterio.open(f"/vsicurl/{address}/{name}")
        remote = source.read(1)
        source.close()
    with rasterio.open(path) as source:
        assert (remote == source.read(1)).all()


def test_first_requests_fail_as_asked(catalog, band):
    _, name = band
    with serve_files(catalog.parent, fail_first=2) as address:
        for _ in range(2):
            with pytest.raises(urllib.error.HTTPError, match="500"):
                get(f"{address}/{name}")
        assert get(f"{address}/{name}")[0] == 200


def test_files_can_seem_cut_off(catalog, band):
    path, name = band
    with serve_files(catalog.parent, truncate={"B04.tif": 1000}) as address:
        assert get(f"{address}/{name}")[2] == path.read_bytes()[:1000]
        status, headers, body = get(f"{address}/{name}", Range="bytes=900-2000")
        assert (status, len(body)) == (206, 100)
        assert headers["Content-Range"] == "bytes 900-999/1000"
        with pytest.raises(urllib.error.HTTPError, match="416"):
            get(f"{address}/{name}", Range="bytes=1000-")
        other = name.replace("B04", "B03")
        assert len(get(f"{address}/{other}")[2]) > 1000


def test_the_api_finds_items_whose_assets_can_be_read(catalog, of):
    with serve_files(catalog.parent) as files, serve_api(catalog, base=files) as api:
        collections = json.loads(get(f"{api}/collections")[2])["collections"]
        assert {c["id"] for c in collections} >= {"sentinel-2-l2a", "nasadem"}
        found = post(
            f"{api}/search",
            {
                "collections": ["sentinel-2-l2a"],
                "bbox": [11.5, 46.0, 12.5, 47.0],
                "datetime": "2022-03-01T00:00:00Z/2022-12-31T00:00:00Z",
                "limit": 100,
            },
        )["features"]
        expected = [
            i["id"]
            for i in of("sentinel-2-l2a", "testburg")
            if i["properties"]["datetime"] > "2022-03-01"
        ]
        assert sorted(i["id"] for i in found) == sorted(expected)
        assert get(found[0]["assets"]["scl"]["href"], Range="bytes=0-3")[2][:2] == b"II"
