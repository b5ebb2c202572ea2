"""Tiles by themselves: decoded as others decode them, and kept no longer than they may be."""

import threading
import time
import warnings
from io import BytesIO

import numpy as np
import pytest
import rasterio
from PIL import Image

from mapper.catalog.tilestore import KeptTiles, RateLimiter, decode_tile
from mapper.errors import ReadError
from tests.catalog.test_pyramid import encoded, ramp


def by_gdal(content):
    """An image file as GDAL decodes it: `(band, y, x)`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.MemoryFile(content) as file, file.open() as image:
            return image.read()


@pytest.mark.archive
def test_gdal_decodes_the_same_brightness(archive):
    content = (archive / "xyz/pnoa/18/130804/99731.jpg").read_bytes()
    ours, theirs = decode_tile(content, 256, 3)[:3].astype(float), by_gdal(content)
    # the tiles hold half as much colour as brightness, which decoders spread differently
    luma = np.tensordot([0.299, 0.587, 0.114], ours - theirs, 1)
    assert np.abs(luma).max() < 2
    assert np.abs(ours - theirs).mean() < 1


def test_every_kind_of_tile():
    colour = ramp(1, 1)
    alpha = np.full((256, 256), 255, dtype=np.uint8)
    alpha[:100], alpha[100:120] = 0, 128
    through = np.dstack([colour, alpha])
    for form, how in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True})):
        np.testing.assert_array_equal(
            decode_tile(encoded(colour, form, **how), 256, 3)[:3], colour.transpose(2, 0, 1)
        )
        part = decode_tile(encoded(through, form, **how), 256, 3)
        np.testing.assert_array_equal(part[3], alpha)
        np.testing.assert_array_equal(part[:3, 100:], colour.transpose(2, 0, 1)[:, 100:])
        assert not part[:3, :100].any()
    grey = encoded(colour[..., 0])
    np.testing.assert_array_equal(decode_tile(grey, 256, 1)[0], colour[..., 0])
    np.testing.assert_array_equal(decode_tile(grey, 256, 3)[2], colour[..., 0])
    jpeg = encoded(np.dstack([colour[..., 0]] * 3), "JPEG")
    np.testing.assert_array_equal(decode_tile(jpeg, 256, 3)[:3], by_gdal(jpeg))
    assert decode_tile(jpeg, 256, 1).shape == (2, 256, 256)
    palette = Image.fromarray(colour).quantize(16)
    stream = BytesIO()
    palette.save(stream, "PNG")
    np.testing.assert_array_equal(
        decode_tile(stream.getvalue(), 256, 3)[:3],
        np.asarray(palette.convert("RGB")).transpose(2, 0, 1),
    )


def test_kept_tiles_are_asked_for_once_by_many_threads():
    kept, asked = KeptTiles(), []
    gate = threading.Barrier(8)

    def ask():
        asked.append(1)
        time.sleep(0.05)
        return b"tile"

    found = []

    def take():
        gate.wait()
        found.append(kept.get("a", ask))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"tile"] * 8
    assert len(asked) == 1


def test_kept_tiles_are_bounded_and_forget_failures_and_age():
    kept, asked = KeptTiles(most_bytes=25, seconds=0.05), []

    def take(name, size=10):
        return kept.get(name, lambda: asked.append(name) or bytes(size))

    take("a"), take("b"), take("a"), take("c")
    assert asked == ["a", "b", "c"]
    take("a")
    assert asked == ["a", "b", "c"]
    take("b")
    assert asked == ["a", "b", "c", "b"]
    time.sleep(0.06)
    take("b")
    assert asked[4:] == ["b"]
    kept.drop("b", bytes(10))
    take("b")
    assert asked[5:] == [], "another content: it stays"
    kept.drop("b", take("b"))
    take("b"), take("b")
    assert asked[5:] == ["b"]
    kept.drop("none", b"")
    failing = KeptTiles()
    with pytest.raises(ReadError):
        failing.get("d", lambda: (_ for _ in ()).throw(ReadError("gone")))
    assert failing.get("d", lambda: b"back") == b"back"


def test_the_lowest_rate_agreed_holds():
    limiter = RateLimiter()
    begin = time.monotonic()
    limiter.wait(), limiter.wait()
    assert time.monotonic() - begin < 0.02, "no rate was agreed"
    for rate in (100, 20, 50):
        limiter.agree(rate)
    begin = time.monotonic()
    for _ in range(3):
        limiter.wait()
    assert time.monotonic() - begin > 1.9 / 20
