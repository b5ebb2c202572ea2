"""What a recipe has to say of a tile service before a tile is asked for."""

import datetime

import pytest
import yaml
from pydantic import ValidationError

from mapper.recipe.section import problems
from mapper.recipe.tiles import TileService

GOOD = {
    "url": "https://tiles.example/{z}/{x}/{y}.jpg",
    "zoom": 18,
    "attribution": "© Example Survey",
    "license": "CC-BY-4.0",
    "permission": "CC-BY 4.0, terms of use, section 3",
    "requests_per_second": 5,
}


def refused(**changed):
    """What the recipe's author is told; a value of None takes the key away."""
    content = {k: v for k, v in (GOOD | changed).items() if v is not None}
    with pytest.raises(ValidationError) as error:
        TileService.model_validate(content)
    return problems(error.value, "tiles")


def test_a_whole_section_from_yaml():
    service = TileService.model_validate(
        yaml.safe_load(yaml.safe_dump(GOOD | {"date": "2022-06-01"}))
    )
    assert service.bands == ["red", "green", "blue"]
    assert (service.tile_size, service.empty, service.is_wmts) == (256, "nodata", False)
    assert service.date == datetime.date(2022, 6, 1)


@pytest.mark.parametrize("text", [None, "", "   ", True, "yes", "TODO", "n/a", "granted"])
def test_without_permission_nothing_is_accepted(text):
    said = refused(permission=text)
    assert "permission" in said
    assert "where and how the operator permits" in said


@pytest.mark.parametrize("name", ["attribution", "license"])
@pytest.mark.parametrize("text", [None, "", " "])
def test_credit_and_licence_are_required(name, text):
    assert name in refused(**{name: text})


@pytest.mark.parametrize("rate", [None, 0, -1, 50.5, float("inf"), float("nan")])
def test_the_rate_is_required_and_bounded(rate):
    assert "requests_per_second" in refused(requests_per_second=rate)


@pytest.mark.parametrize("zoom", [-1, 24, 1.5, "18", True, None])
def test_the_level_is_a_whole_number(zoom):
    assert "zoom" in refused(zoom=zoom)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://{s}.tiles.example/{z}/{x}/{y}.jpg", "one host"),
        ("https://tiles.example/{q}.jpg", "quadkeys"),
        ("https://tiles.example/{z}/{x}/{y}{r}.jpg", "tile_size"),
        ("https://tiles.example/{z}/{x}/{y}/{time}.jpg", "time"),
        ("https://tiles.example/{z}/{x}.jpg", "no XYZ template"),
        ("https://tiles.example/{z}/{x}/{y}/{-y}.jpg", "no XYZ template"),
        ("https://tiles.example/wmts", "layer"),
        ("ftp://tiles.example/{z}/{x}/{y}.jpg", "https://"),
        ("file:///etc/{z}/{x}/{y}", "https://"),
        ("https://{x}.example/{z}/{x}/{y}.jpg", "host"),
        ("https://me:hush@tiles.example/{z}/{x}/{y}.jpg", "key_variable"),
        ("https://tiles.example/{z}/{x}/{y}.jpg#top", "#"),
    ],
)
def test_addresses_that_cannot_be_asked(url, said):
    message = refused(url=url)
    assert said in message
    assert "hush" not in message


@pytest.mark.parametrize("name", ["api_key", "token", "sig", "Apikey", "access_token", "password"])
def test_a_key_in_the_recipe_is_refused_and_not_repeated(name):
    said = refused(url=f"https://tiles.example/{{z}}/{{x}}/{{y}}.jpg?{name}=hush-hush")
    assert name in said
    assert "hush" not in said


def test_the_key_and_its_variable_go_together():
    with_key = "https://tiles.example/{z}/{x}/{y}.jpg?key={key}"
    assert TileService.model_validate(GOOD | {"url": with_key, "key_variable": "MY_KEY"})
    assert "go together" in refused(url=with_key)
    assert "go together" in refused(key_variable="MY_KEY")
    assert "unencrypted" in refused(url=with_key.replace("https", "http"), key_variable="MY_KEY")
    said = refused(url=with_key, key_variable="hush-hush")
    assert "name of an environment variable" in said
    assert "hush" not in said


def test_wmts_parts():
    wmts = {"url": "https://tiles.example/wmts?request=GetCapabilities", "layer": "ortho"}
    service = TileService.model_validate(GOOD | wmts | {"zoom": "EPSG:3857:18"})
    assert service.is_wmts
    assert "capabilities" in refused(layer="ortho")
    assert "name the layer" in refused(matrix_set="GoogleMapsCompatible")


@pytest.mark.parametrize("bands", [[], ["red", "green"], ["red", "red", "blue"]])
def test_bands_are_channels(bands):
    assert "channel" in refused(bands=bands)


@pytest.mark.parametrize(
    "bounds", [[0, 0, 1], [1, 0, 0, 1], [0, 0, 181, 1], [0, 0, 1, float("nan")]]
)
def test_bounds_are_a_box(bounds):
    assert "bounds" in refused(bounds=bounds)


def test_unknown_keys_and_sizes_are_refused():
    assert "unknown key" in refused(api_key="hush")
    assert "tile_size" in refused(tile_size=1024)


def test_identity_follows_the_pixels_alone():
    def identity(**changed):
        return TileService.model_validate(GOOD | changed).identity

    same = {"requests_per_second": 1, "attribution": "others", "permission": "letter of 2024"}
    assert identity(**same) == identity()
    pixels = [{"zoom": 17}, {"tile_size": 512}, {"bands": ["nir", "red", "green"]}]
    pixels += [{"empty": "fail"}, {"bounds": [0, 0, 1, 1]}, {"date": "2022-06-01"}]
    pixels += [{"url": "https://tiles.example/{z}/{x}/{-y}.jpg"}]
    assert len({identity(), *(identity(**one) for one in pixels)}) == len(pixels) + 1
