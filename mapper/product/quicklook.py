"""A picture of a map with its legend, for people who want to see before they download."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mapper.classes import ClassTable

_LONGEST = 1200
_MARGIN = 16
_LEGEND = 220
_PAPER = (255, 255, 255)
_INK = (40, 40, 40)
_NODATA = (232, 232, 232)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """Words of a quicklook."""

    title: str
    subtitle: str
    resolution: float
    """Metres per pixel of the map."""
    shares: Mapping[int, float]
    """Share of the mapped area per class value, 0 to 1."""


def shrink_factor(shape: tuple[int, int]) -> int:
    """By how much a map of `(y, x)` pixels is thinned so that it fits the picture."""
    return max(1, math.ceil(max(shape) / _LONGEST))


def write_quicklook(path: Path, thinned: np.ndarray, classes: ClassTable, caption: Caption) -> None:
    """Draw every n-th pixel of a class map, a legend with shares and a scale bar.

    Args:
        path: of the PNG.
        thinned: `(y, x)` uint8 classes, each n-th row and column, n by `shrink_factor`.
        classes: colours and names; nodata is grey.
        caption: title, subtitle, shares, and the resolution of the thinned map.
    """
    colors = np.full((256, 3), _NODATA, dtype=np.uint8)
    for entry in classes.classes:
        colors[entry.value] = entry.rgb
    picture = Image.fromarray(colors[thinned])
    zoom = max(1, 480 // max(picture.size))
    picture = picture.resize(
        (picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST
    )
    header = 56
    height = max(picture.height, 40 + 26 * (len(classes.classes) + 4)) + header + _MARGIN
    sheet = Image.new("RGB", (picture.width + _LEGEND + 3 * _MARGIN, height), _PAPER)
    sheet.paste(picture, (_MARGIN, header))
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 8), caption.title, fill=_INK, font=_font(20))
    draw.text((_MARGIN, 34), caption.subtitle, fill=_INK, font=_font(13))
    corner = (picture.width + 2 * _MARGIN, header)
    bottom = _draw_legend(draw, corner, classes, caption.shares)
    _draw_scale(draw, (corner[0], bottom + 16), caption.resolution / zoom)
    sheet.save(path, format="PNG", optimize=True)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _draw_legend(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    classes: ClassTable,
    shares: Mapping[int, float],
) -> int:
    """Colour, name and share of each class; returns the row below."""
    left, top = corner
    entries = [(c.rgb, f"{c.title}  {100 * shares.get(c.value, 0):.1f} %") for c in classes.classes]
    for color, text in [*entries, (_NODATA, "No data")]:
        draw.rectangle((left, top, left + 18, top + 18), fill=color, outline=_INK)
        draw.text((left + 28, top + 1), text, fill=_INK, font=_font(14))
        top += 26
    return top


def _draw_scale(draw: ImageDraw.ImageDraw, corner: tuple[int, int], resolution: float) -> None:
    """A bar of a round length, at most 160 pixels long."""
    left, top = corner
    metres = 10 ** math.floor(math.log10(160 * resolution))
    metres *= next(n for n in (5, 2, 1) if n * metres <= 160 * resolution)
    length = round(metres / resolution)
    draw.rectangle((left, top, left + length, top + 5), fill=_INK)
    label = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    draw.text((left, top + 9), label, fill=_INK, font=_font(12))
