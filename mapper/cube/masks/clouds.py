"""Clouds by their probability, and the shadows they throw.

The rule with which the composites of GlobalUrbanMapper were made (Zhou & Weng, "Building up a
data engine for global urban mapping", Remote Sensing of Environment 311, 114242, 2024): cloud
where the probability is over 50 %; shadow where near infrared is below 0.15, there is no water
and a cloud lies within 1 km towards the sun; both worn away by a disc of 2 pixels and grown by
one of 5, at 20 m. Where the published rule is silent, or this one differs:

* On a finer grid, squares of pixels that make up 20 m are taken together: cloud and near infrared
  by the mean of their valid pixels, water where at least half of these are. The squares lie on
  the lattice, counted from the origin of the CRS, so that they are the same for every tile.
* Clouds are cast at the rule's 20 m, where the published rule casts them at 100 m.
* The sun's azimuth is taken as an angle on the grid: the convergence between grid north and true
  north, within a UTM zone at most 3 degrees at 60 degrees of latitude, is ignored.
* Pixels without data, and those beyond the array, neither wear a cloud away nor make it grow.
"""

import math
from dataclasses import dataclass

import numpy as np

from mapper.catalog.bands import Item
from mapper.catalog.observation import azimuth_of
from mapper.cube.masks.morphology import dilate, erode
from mapper.cube.masks.protocol import Place
from mapper.errors import CatalogError
from mapper.recipe.masks import CloudMask

WATER = 6
"""Of Sentinel-2's scene classification."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudBands:
    """What the rule looks at, `(y, x)` each."""

    probability: np.ndarray
    """Of cloud, in per cent; 0 is a probability and no nodata."""
    nir: np.ndarray
    """Reflectance, 0 to 1."""
    water: np.ndarray
    """bool, as `water_of` gives it."""
    valid: np.ndarray
    """bool, True where all of these are known."""


def clear_of_clouds(bands: CloudBands, rule: CloudMask, azimuth: float, place: Place) -> np.ndarray:
    """True where a scene shows ground by cloud probability and shadow.

    The value of a pixel depends on the ground within `rule.reach(place.resolution)` pixels.

    Args:
        bands: of one scene, over `place`.
        rule: the numbers.
        azimuth: of the sun in degrees clockwise from north, one for the whole scene.
        place: of the arrays on the lattice.

    Returns: `(y, x)` bool, False where the bands are not valid.
    """
    block = rule.block(place.resolution)
    pixel = block * place.resolution
    cloud, dark, known = _coarse(bands, rule, place)
    shadow = dark & cast(cloud, azimuth, rule.shadow_distance / pixel)
    worn = erode(cloud | shadow | ~known, rule.erode * rule.resolution / pixel) & known
    hidden = _fine(dilate(worn, rule.growth / pixel), block, place)
    clear: np.ndarray = bands.valid & ~hidden
    return clear


def cast(cloud: np.ndarray, azimuth: float, distance: float) -> np.ndarray:
    """Where shadows of clouds of any height may fall: away from the sun, up to a distance.

    Rows count southward and columns eastward, so with the sun in the south (180 degrees) shadows
    fall on lower rows. Steps are of one pixel, rounded to whole ones; the cloud itself is part.

    Args:
        cloud: `(y, x)` bool.
        azimuth: of the sun in degrees clockwise from north.
        distance: in pixels.

    Returns: a new `(y, x)` bool.
    """
    angle = math.radians(azimuth)
    found: np.ndarray = cloud.copy()
    if not cloud.any():
        return found
    steps = range(1, math.floor(distance + 1e-9) + 1)
    for down, right in dict.fromkeys(
        (_nearest(n * math.cos(angle)), _nearest(-n * math.sin(angle))) for n in steps
    ):
        found[_into(down), _into(right)] |= cloud[_into(-down), _into(-right)]
    return found


def water_of(scl: np.ndarray | None, green: np.ndarray, nir: np.ndarray) -> np.ndarray:
    """True where the scene classification says water; by NDWI > 0 where it says nothing.

    NDWI is (green - nir) / (green + nir), McFeeters 1996. It takes some shadows for water, and
    these are then missed: a scene classification is better.

    Args:
        scl: `(y, x)` uint8, 0 where there is none; None for a scene that has none.
        green: `(y, x)` reflectance.
        nir: `(y, x)` reflectance.

    Returns: `(y, x)` bool.
    """
    wet: np.ndarray = green > nir
    return wet if scl is None else np.where(scl == 0, wet, scl == WATER)


def sun_azimuth(item: Item) -> float:
    """Azimuth of the sun over a scene in degrees clockwise from north, 0 to 360.

    Raises: CatalogError where the item names none.
    """
    azimuth = azimuth_of(item)
    if azimuth is None:
        raise CatalogError(
            f"item {item['id']} has no view:sun_azimuth, so nobody knows where its shadows fall; "
            "use a mask of kind scl"
        )
    return azimuth


def _coarse(
    bands: CloudBands, rule: CloudMask, place: Place
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cloud, dark land and validity of the squares that the rule works on."""
    block = rule.block(place.resolution)
    valid = bands.valid
    count = _sums(valid, block, place)
    probability = _sums(np.where(valid, bands.probability, 0), block, place)
    nir = _sums(np.where(valid, bands.nir, 0), block, place)
    wet = _sums(valid & bands.water, block, place)
    cloud: np.ndarray = probability > np.float32(rule.probability) * count
    dark: np.ndarray = (nir < np.float32(rule.shadow_nir) * count) & (2 * wet < count)
    return cloud, dark, count > 0


def _sums(values: np.ndarray, block: int, place: Place) -> np.ndarray:
    """float32 sums over the lattice's squares, those at the border over what there is of them.

    Added one row and one column after the other, so that the last bit does not depend on where
    in the array a square lies.
    """
    (top, bottom), (left, right) = _margins(block, place)
    full = np.pad(values.astype(np.float32), ((top, bottom), (left, right)))
    rows = full[0::block].copy()
    for row in range(1, block):
        rows += full[row::block]
    total = rows[:, 0::block].copy()
    for col in range(1, block):
        total += rows[:, col::block]
    return total


def _fine(coarse: np.ndarray, block: int, place: Place) -> np.ndarray:
    """Squares back on the pixels of the place."""
    (top, _), (left, _) = _margins(block, place)
    height, width = place.shape
    full = coarse.repeat(block, axis=0).repeat(block, axis=1)
    return full[top : top + height, left : left + width]


def _margins(block: int, place: Place) -> tuple[tuple[int, int], tuple[int, int]]:
    """Pixels that the place lacks to whole squares: above and below, left and right."""
    box = place.box
    return (box.row0 % block, -box.row1 % block), (box.col0 % block, -box.col1 % block)


def _nearest(value: float) -> int:
    return math.floor(value + 0.5)


def _into(shift: int) -> slice:
    """The part of an axis that takes what is shifted so far; of the opposite, what gives it."""
    return slice(shift, None) if shift >= 0 else slice(None, shift)
