"""Small image files as other people's data sets have them, and options to read them with."""

import warnings

import numpy as np
import rasterio
from affine import Affine
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from mapper.classes import ClassTable, MapClass
from mapper.recipe.training import Data
from mapper.training.data.layouts import open_data

RNG = np.random.default_rng(7)
LAND = {"value": 0, "name": "land", "color": "8429F6"}
ROAD = {"value": 1, "name": "road", "color": "6EC1E4"}
WATER = {"value": 7, "name": "water", "color": "E2A929"}
BANDS3 = ["highres:red", "highres:green", "highres:blue"]
BANDS4 = [*BANDS3, "highres:nir"]


def table(*entries):
    return ClassTable(classes=tuple(MapClass(title=e["name"], **e) for e in entries))


TABLE = table(LAND, ROAD, WATER)
MODEL = table({"value": 0, "name": "no", "color": "000000"}, {**ROAD, "name": "yes"})


def noise(bands=3, shape=(12, 16), dtype="uint8", top=250):
    return RNG.integers(1, top, (bands, *shape)).astype(dtype)


def numbers(shape=(12, 16), values=(0, 1, 7)):
    return RNG.choice(np.array(values, dtype=np.uint8), shape)


def painted(label, classes=TABLE, alpha=False):
    """A label in the colours of its classes, `(y, x, 3 or 4)`."""
    shades = np.zeros((*label.shape, 4 if alpha else 3), dtype=np.uint8)
    for one in classes.classes:
        shades[label == one.value] = (*one.rgb, 255)[: shades.shape[-1]]
    return shades


def tiff(path, values, place=None, pixel=0.5, crs="EPSG:32632", **profile):
    """A GeoTIFF with its north-west corner at `place`, or one that lies nowhere."""
    values = values[None] if values.ndim == 2 else values
    path.parent.mkdir(parents=True, exist_ok=True)
    where = {}
    if place is not None:
        where = {"crs": crs, "transform": Affine(pixel, 0, place[0], 0, -pixel, place[1])}
    count, height, width = values.shape
    colormap = profile.pop("colormap", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", height=height, width=width, count=count,
            dtype=values.dtype, **where, **profile,
        ) as target:  # fmt: skip
            if colormap:
                target.write_colormap(1, colormap)
            target.write(values)
    return path


def picture(path, values, **options):
    """A PNG, JPEG or TIFF of `(y, x)` or `(y, x, band)`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
    return path


def pallet(path, label, colors):
    """A PNG of numbers of colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(label).convert("L")
    image.putpalette([part for color in colors for part in bytes.fromhex(color)])
    image.save(path)
    return path


def cmyk(path, values, **options):
    """Four samples in a TIFF that calls them cyan, magenta, yellow and black."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(values.transpose(1, 2, 0)), "CMYK").save(path, **options)
    return path


def opened(root, model=TABLE, **options):
    return open_data(root, Data(**options), model)


def whole(found, number=0):
    return found.read(found.images[number], None)


def holds(found, number, values, label):
    """True where an image and its label are as they were written."""
    pixels = whole(found, number)
    same = np.array_equal(pixels.values, values)
    return same and (np.array_equal(pixels.label, label) if label is not None else True)


def check_pieces(found, number=0):
    """Boxes are the slices of the whole."""
    image, all_of_it = found.images[number], whole(found, number)
    height, width = image.shape
    for box in ((0, 0, height, width), (1, 2, height - 3, width - 4), (height - 1, 0, 1, 3)):
        row, col, rows, cols = box
        here = np.s_[row : row + rows, col : col + cols]
        piece = found.read(image, box)
        np.testing.assert_array_equal(piece.values, all_of_it.values[:, *here])
        for one, other in ((piece.label, all_of_it.label), (piece.valid, all_of_it.valid)):
            assert (one is None) == (other is None)
            if one is not None:
                np.testing.assert_array_equal(one, other[..., *here])
