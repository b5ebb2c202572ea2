"""Which pixels of a scene are ground, in plain arrays. True is clear.

`scl` by the scene classification, `clouds` by cloud probability and shadow, `protocol` for what
a model must offer; `morphology` grows and shrinks masks.
"""

from mapper.cube.masks.clouds import CloudBands, clear_of_clouds, sun_azimuth, water_of
from mapper.cube.masks.morphology import dilate, erode
from mapper.cube.masks.protocol import Masker, Place
from mapper.cube.masks.scl import NEVER_DATA, always_masked, clear_of_scl, rescued

__all__ = [
    "NEVER_DATA",
    "CloudBands",
    "Masker",
    "Place",
    "always_masked",
    "clear_of_clouds",
    "clear_of_scl",
    "dilate",
    "erode",
    "rescued",
    "sun_azimuth",
    "water_of",
]
