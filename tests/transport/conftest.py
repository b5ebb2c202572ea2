"""A raster to serve, and a network policy for the impatient."""

import numpy as np
import pytest
from affine import Affine
from rasterio.io import MemoryFile

FAST = {
    "BACKOFF_S": "0.01",
    "BACKOFF_MAX_S": "0.05",
    "READ_S": "0.2",
    "CONNECT_S": "1",
    "RETRY_AFTER_MAX_S": "3",
    "PIECE_BYTES": "131072",
}


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Short waits, and nobody's proxies or credentials."""
    for name, value in FAST.items():
        monkeypatch.setenv(f"MAPPER_NETWORK__{name}", value)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def write_tiff(pixels, compress="deflate", **options):
    """Bytes of a tiled GeoTIFF."""
    count, height, width = pixels.shape
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype,
            crs="EPSG:32633", transform=Affine(10, 0, 5e5, 0, -10, 5e6), tiled=True,
            blockxsize=128, blockysize=128, compress=compress, **options,
        ) as target:  # fmt: skip
            target.write(pixels)
        return bytes(memory.getbuffer())


@pytest.fixture(scope="session")
def pixels():
    """Two bands in which no two neighbours are alike."""
    return np.random.default_rng(5).integers(0, 60000, (2, 512, 512), "uint16")


@pytest.fixture(scope="session")
def tiff(pixels):
    """The same as a band-interleaved file of about 1 MB."""
    return write_tiff(pixels, interleave="band")
