"""A source that is served as tiles, looked at and ingested as a worker does it."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from mapper.area.grid import TileKey
from mapper.catalog import pyramid
from mapper.catalog.tilecatalog import TileCatalog
from mapper.cube.ingest import TileScenes, ingest_tile
from mapper.cube.inspect import inspect_item
from mapper.errors import ReadError
from mapper.recipe import Bands, ImagerySource, TileService
from tests.tileserver import tile_server

KEY = TileKey.parse("32630/100m/t256/r0170c0028")


@pytest.fixture(autouse=True)
def strangers(monkeypatch):
    """A process that no recipe has given a permission yet, and that has no tiles."""
    monkeypatch.setattr(pyramid, "_PERMITTED", {})
    monkeypatch.setattr(pyramid, "_SHARED", pyramid.KeptTiles())


def source_at(base, **changed):
    given = {"url": base + "/{z}/{x}/{y}.png", "zoom": 9, "attribution": "© Example Survey"}
    given |= {"license": "CC-BY-4.0", "permission": "terms of use, section 3"}
    service = TileService.model_validate(given | {"requests_per_second": 50} | changed)
    bands = Bands(required=["red", "green", "blue"], optional=["nir"])
    return ImagerySource(kind="imagery", tiles=service, bands=bands)


def item_of(source):
    return TileCatalog(source.tiles, lambda href: pytest.fail("asked")).item("tiles")


def plain(path):
    stream = BytesIO()
    Image.new("RGB", (256, 256), (10, 0, 250)).save(stream, "PNG")
    return 200, stream.getvalue()


def test_a_look_asks_for_nothing_and_tells_services_apart():
    with tile_server(plain) as (base, log):
        sources = [source_at(base), source_at(base, zoom=10), source_at(base, date="2022-06-01")]
        found = [inspect_item(item_of(s), s).contents for s in sources]
    assert found == [dict.fromkeys(["red", "green", "blue"], s.tiles.identity) for s in sources]
    assert len({s.tiles.identity for s in sources}) == 3
    assert log == []


def test_a_look_notices_a_key_that_is_not_set(monkeypatch):
    url = "https://tiles.example/{z}/{x}/{y}?key={key}"
    source = source_at("", url=url, key_variable="TILE_KEY")
    monkeypatch.setenv("TILE_KEY", "hush")
    item = item_of(source)
    monkeypatch.delenv("TILE_KEY")
    with pytest.raises(ReadError, match="TILE_KEY"):
        inspect_item(item, source)


def test_a_tile_is_ingested_and_missing_ones_are_never_observed():
    asked = []

    def north_alone(path):
        asked.append(path)
        return plain(path) if int(path.split("/")[3].split(".")[0]) < 195 else (404, b"")

    with tile_server(north_alone) as (base, _):
        source = source_at(base)
        item = item_of(source)
        looks = {item["id"]: inspect_item(item, source)}
        scenes = TileScenes(name="highres", key=KEY, items=(item,), inspections=looks)
        # a tile is often ingested by another worker than the one that looked
        pyramid._PERMITTED.clear()
        made = ingest_tile(scenes, source)
    arrays = {template.name: array for template, array in made.arrays}
    seen = arrays["highres_count"] == 1
    assert made.missing_bands == ("nir",)
    assert 0 < seen.mean() < 1
    assert seen[0].all()
    assert not seen[-1].any()
    np.testing.assert_array_equal(arrays["highres"][:, seen].T, [[10, 0, 250, 65535]] * seen.sum())
    assert (arrays["highres"][:, ~seen] == 65535).all()
    assert set(np.unique(arrays["highres_status"])) == {0, 2}
    assert len(asked) == len(set(asked)) > 1


def test_somebody_elses_item_is_not_read():
    """An item of a catalog that names a tile level without the recipe's permission."""
    source = ImagerySource(kind="imagery", catalog="./imagery")
    with (
        tile_server(plain) as (base, log),
        pytest.raises(ReadError, match="operator's permission"),
    ):
        inspect_item(item_of(source_at(base)), source)
    assert log == []
