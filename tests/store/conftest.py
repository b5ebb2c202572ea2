"""Four tiles of two arrays, one tile missing, and the mosaic that they must equal."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mapper.area.grid import Grid, PixelBox, TileKey
from mapper.store.shards import Shard, shard_directory, write_shards
from mapper.store.template import ArrayTemplate
from mapper.store.view import extent_of

GRID = Grid(epsg=32633, resolution=10, tile=512)
REFLECTANCE = ArrayTemplate(
    name="s2",
    dtype="uint16",
    fill=0,
    bands=("red", "green", "swir16"),
    attributes={"scale_factor": 0.0001, "add_offset": 0.0, "_FillValue": 0, "units": "1"},
)
HEIGHT = ArrayTemplate(name="height", dtype="float32", fill=float("nan"))
STATUS = ArrayTemplate(name="status", dtype="uint8", fill=2)
TEMPLATES = (REFLECTANCE, HEIGHT, STATUS)
KEYS = tuple(GRID.key(row, col) for row, col in ((1055, 97), (1055, 98), (1054, 97)))
MISSING = GRID.key(1054, 98)


def pixels_of(template, key):
    """Values of a tile, different in every tile, band and pixel as far as the type allows."""
    shape = template.shape(key.tile, key.tile)
    rng = np.random.default_rng((key.row + 1_000_000, key.col, len(template.name)))
    if template.dtype == "float32":
        return rng.normal(400, 100, shape).astype(np.float32)
    return rng.integers(0, np.iinfo(template.dtype).max, shape, dtype=template.dtype)


@dataclass(frozen=True)
class Stored:
    """What was written, and what it has to be read as."""

    root: Path
    shards: dict[TileKey, list[Shard]]

    @property
    def extent(self) -> PixelBox:
        return extent_of(KEYS)

    def arrays(self, template):
        return {k: shard_directory(self.root, k, "step", "abc") / template.name for k in KEYS}

    def files(self, template):
        found = {k: next(s for s in v if s.array == template.name) for k, v in self.shards.items()}
        return {k: self.root / s.path for k, s in found.items()}

    def mosaic(self, template):
        """The whole extent as one plain array."""
        whole = np.full(template.shape(*self.extent.shape), template.fill, template.dtype)
        for key in KEYS:
            whole[(..., *key.box.slices_in(self.extent))] = pixels_of(template, key)
        return whole


@pytest.fixture(scope="session")
def stored(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    shards = {
        key: write_shards(root, key, "step", "abc", [(t, pixels_of(t, key)) for t in TEMPLATES])
        for key in KEYS
    }
    return Stored(root, shards)
