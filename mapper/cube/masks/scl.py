"""Which pixels Sentinel-2's scene classification calls ground, and when it is not believed."""

import numpy as np

from mapper.cube.masks.morphology import dilate
from mapper.recipe.masks import Mask, SclMask

NEVER_DATA = (0, 1)
"""SCL's nodata and saturated: masked whatever a recipe or the always-masked rule says."""
GROWING = (3, 8, 9, 10)
"""Cloud shadow, cloud of medium and high probability, thin cirrus."""
FEWEST_SCENES = 5
"""Of fewer the always-masked rule says nothing."""


def clear_of_scl(scl: np.ndarray, rule: SclMask, resolution: float) -> np.ndarray:
    """True where a scene classification names no class that the rule calls invalid.

    Cloud, shadow and cirrus among the invalid classes grow by `rule.dilate` metres first; no
    other class does. A tile needs a halo of `rule.reach(resolution)` pixels for that.

    Args:
        scl: `(y, x)` uint8, Sentinel-2's scene classification; 0 where there is none. Without
            growth any shape will do.
        rule: classes to leave out.
        resolution: of a pixel, in metres.

    Returns: bool of the same shape.
    """
    scl = scl.astype(np.uint8)
    clear = ~_among(scl, rule.invalid)
    if rule.dilate:
        growing = [value for value in rule.invalid if value in GROWING]
        clear &= ~dilate(_among(scl, growing), rule.dilate / resolution)
    return clear


def rescued(observed: np.ndarray, clear: np.ndarray, scl: np.ndarray, rule: Mask) -> np.ndarray:
    """Pixels that are masked so often that the mask must be wrong: bright roofs, mostly.

    Args:
        observed: `(time, y, x)` bool, True where a scene has data.
        clear: `(time, y, x)` bool, True where the mask lets it through.
        scl: `(time, y, x)` uint8.
        rule: its share of masked scenes.

    Returns: `(time, y, x)` bool, True where a masked observation is to be used after all.
    """
    seen = observed.sum(axis=0)
    masked = seen - (observed & clear).sum(axis=0)
    return always_masked(seen, masked, rule)[None] & observed & ~_among(scl, NEVER_DATA)


def always_masked(seen: np.ndarray, masked: np.ndarray, rule: Mask) -> np.ndarray:
    """The pixels of `rescued` from counts over time, for series that are not held in memory.

    Args:
        seen: `(y, x)` integers, scenes that have data.
        masked: `(y, x)` integers, those of them that the mask leaves out.
        rule: its share of masked scenes.

    Returns: `(y, x)` bool. Saturated observations of such a pixel stay masked: the caller uses
        those whose class is not in `NEVER_DATA`.
    """
    found: np.ndarray = (seen >= FEWEST_SCENES) & (masked > rule.always_masked_share * seen)
    return found


def _among(scl: np.ndarray, classes: list[int] | tuple[int, ...]) -> np.ndarray:
    """True where a class is one of some."""
    table = np.zeros(256, dtype=bool)
    table[list(classes)] = True
    found: np.ndarray = table[scl.astype(np.uint8)]
    return found
