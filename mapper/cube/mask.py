"""Which pixels of a scene are ground."""

import numpy as np

from mapper.recipe import SclMask

_NEVER_DATA = (0, 1)
"""SCL's nodata and saturated: masked whatever a recipe or the always-masked rule says."""
_FEWEST_SCENES = 5


def clear_of_scl(scl: np.ndarray, rule: SclMask) -> np.ndarray:
    """True where a scene classification names no class that the rule calls invalid.

    Args:
        scl: `(y, x)` uint8, Sentinel-2's scene classification; 0 where there is none.
        rule: classes to leave out.
    """
    invalid = np.zeros(256, dtype=bool)
    invalid[list(rule.invalid)] = True
    return ~invalid[scl.astype(np.uint8)]


def rescued(observed: np.ndarray, clear: np.ndarray, scl: np.ndarray, rule: SclMask) -> np.ndarray:
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
    always = (seen >= _FEWEST_SCENES) & (masked > rule.always_masked_share * seen)
    return always[None] & observed & ~np.isin(scl, _NEVER_DATA)
