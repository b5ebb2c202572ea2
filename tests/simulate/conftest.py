"""One small archive, written once, that all tests of the simulator read."""

import json

import pytest

from mapper.simulate import TEST_CITIES, WorldOptions, write_archive

OPTIONS = WorldOptions(margin_m=600, bands=("coastal", "blue", "green", "red", "nir", "swir16"))


@pytest.fixture(scope="session")
def catalog(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("simulated"), TEST_CITIES, OPTIONS)


@pytest.fixture(scope="session")
def items(catalog):
    return json.loads((catalog.parent / "items.json").read_text())["features"]


@pytest.fixture(scope="session")
def of(items):
    """Items of a collection."""

    def select(collection, *parts):
        found = [i for i in items if i["collection"] == collection]
        found = [i for i in found if all(part in i["id"] for part in parts)]
        assert found, (collection, parts)
        return found

    return select
