"""Slope and aspect on the metric grid."""

import numpy as np


def slope_aspect(elevation: np.ndarray, resolution: float) -> tuple[np.ndarray, np.ndarray]:
    """Slope and aspect by Horn's 3 x 3 differences (Horn 1981, Proc. IEEE 69, 14-47).

    Args:
        elevation: `(y + 2, x + 2)` metres, one pixel more on each side; NaN is a void.
        resolution: metres per pixel.

    Returns: slope in degrees and aspect in degrees clockwise from north, facing downhill;
        both `(y, x)` float32, NaN where a neighbour is a void; aspect is 0 on flat ground.
    """
    z = elevation.astype(np.float64)
    west, east = z[:, :-2], z[:, 2:]
    north, south = z[:-2, :], z[2:, :]
    eastward = ((east[:-2] - west[:-2]) + 2 * (east[1:-1] - west[1:-1]) + (east[2:] - west[2:])) / (
        8 * resolution
    )
    northward = (
        (north[:, :-2] - south[:, :-2])
        + 2 * (north[:, 1:-1] - south[:, 1:-1])
        + (north[:, 2:] - south[:, 2:])
    ) / (8 * resolution)
    known = np.isfinite(eastward) & np.isfinite(northward) & np.isfinite(z[1:-1, 1:-1])
    slope = np.degrees(np.arctan(np.hypot(eastward, northward)))
    aspect = (np.degrees(np.arctan2(-eastward, -northward)) % 360).astype(np.float32)
    flat = (eastward == 0) & (northward == 0)
    aspect[flat | (aspect >= 360)] = 0
    return (
        np.where(known, slope, np.nan).astype(np.float32),
        np.where(known, aspect, np.float32(np.nan)),
    )
