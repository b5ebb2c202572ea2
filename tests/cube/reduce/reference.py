"""Plain ways to the same numbers, and the real series."""

import math
from fractions import Fraction

import numpy as np
import rasterio

INVALID_SCL = [0, 1, 3, 8, 9, 10]


def percentile_of(values, percent):
    """Percentile of a list between its closest ranks, exactly; halves up; 0 of none."""
    values = sorted(int(v) for v in values)
    if not values:
        return 0
    place = Fraction(str(percent)) / 100 * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    exact = values[low] + (place - low) * (values[high] - values[low])
    return math.floor(exact + Fraction(1, 2))


def sums_of_distances(looks):
    """Sum of the distances of each of `(look, band)` to all others, by all pairs at once."""
    looks = looks.astype(float)
    return np.linalg.norm(looks[:, None] - looks[None], axis=2).sum(axis=1)


def cost(looks, point):
    """Sum of the distances of a point to `(look, band)`."""
    return np.linalg.norm(looks.astype(float) - np.asarray(point, float), axis=1).sum()


def mol(archive):
    """Twelve real dates: `(time, band, y, x)` uint16 of four bands, and what is valid of them."""
    path = archive / "series" / "mol_cdse_sentinel2_l2a.nc"

    def load(name):
        with rasterio.open(f"netcdf:{path}:S2-L2A-{name}") as source:
            return source.read()

    bands = [load(name) for name in ("B01", "B04", "B08", "B11")]
    stack = np.clip(np.stack(bands, axis=1).astype("int32"), 0, 65534).astype("uint16")
    return stack, (stack > 0).all(axis=1) & ~np.isin(load("SCL"), INVALID_SCL)


def slovenia(archive):
    """68 real dates of NDVI as stored numbers `(time, y, x)` uint16, and what is clear."""
    with np.load(archive / "series" / "slovenia_ndvi_clouds_68_dates.npz") as series:
        stack = np.round((series["ndvi"] + 1) * 10_000).astype("uint16")
        return stack, series["cloud_mask"] == 0
