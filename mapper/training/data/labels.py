"""Label files to class values: numbers, colours or a palette of them; nothing is guessed.

What stands in no table is an error that names the file, the value or colour and its pixels.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mapper.classes import ClassTable
from mapper.errors import DataError
from mapper.training.data.labelled import IGNORED, Box
from mapper.training.data.rasters import TIFF, Stored, kept, read_stored

_COLOR = re.compile(r"#?([0-9A-Fa-f]{6})")
_SHOWN = 5
_BLACK = 0
_UNKNOWN = -1

Codes = tuple[tuple[int, int], ...]
"""Pairs of what is stored and the class value, or IGNORED, that it stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCode:
    """What the pixels of label files stand for."""

    values: Codes
    """Of files with one band."""
    colors: Codes
    """Of files with colours, as 0xRRGGBB."""
    hint: str = ""
    """What to add to the message about a value that is in neither."""


def label_code(
    classes: ClassTable,
    ignored: Iterable[int | str],
    *,
    unlabelled: Iterable[int | str] = (),
    also: Mapping[int, int] | None = None,
    hint: str = "",
) -> LabelCode:
    """The code of a data set.

    Args:
        classes: of the labels; their values and colours.
        ignored: values and colours that the recipe ignores, even if they are those of a class.
        unlabelled: those that the layout ignores, unless a class has them.
        also: further values, by the class value that they stand for.
        hint: added to the message about a value that is in no table.

    A colour that two classes share stands for neither. Raises: DataError for what is neither a
    value nor a colour.
    """
    values: dict[int, int] = dict(also or {})
    colors: dict[int, int] = {}
    for entry in unlabelled:
        _set_ignored(entry, values, colors)
    shades = [int(c.color, 16) for c in classes.classes]
    for one, shade in zip(classes.classes, shades, strict=True):
        values[one.value] = one.value
        colors[shade] = one.value
    for shade in {s for s in shades if shades.count(s) > 1}:
        del colors[shade]
    for entry in ignored:
        _set_ignored(entry, values, colors)
    return LabelCode(
        values=tuple(sorted(values.items())), colors=tuple(sorted(colors.items())), hint=hint
    )


def read_label(path: Path, box: Box | None, code: LabelCode) -> np.ndarray:
    """`(y, x)` uint8 class values of a piece, IGNORED where nothing is known.

    One band holds class values, three hold class colours, a fourth is the alpha of colours:
    what is transparent, or has a declared nodata value that is no class, is IGNORED. A palette
    is read by its colours where one of those in use is a class's (black as number 0, which
    most palettes begin with, proves nothing), else by its numbers.

    Raises: DataError naming the file and what it holds that has no meaning.
    """
    if path.suffix.lower() in TIFF:
        piece = read_stored(path, box)
        if piece.palette is None:
            return _decoded(path, piece, code)
    # to tell what a palette means takes all of the file
    whole: np.ndarray = kept(
        path, code, lambda: _decoded(path, read_stored(path, None, keep=False), code)
    )
    row, col, height, width = box or (0, 0, *whole.shape)
    return whole[row : row + height, col : col + width].copy()


def _decoded(path: Path, piece: Stored, code: LabelCode) -> np.ndarray:
    found, unknown = _decode(path, piece, code)
    if not unknown:
        return found
    # the message counts the pixels of the whole file
    unknown = _decode(path, read_stored(path, None, keep=False), code)[1]
    some = ", ".join(f"{what} ({n} pixels)" for what, n in list(unknown.items())[:_SHOWN])
    more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    raise DataError(
        f"{path} holds {some}{more}, which stands for no class of the labels, or for two; list "
        "it in data.classes, or in data.ignored (colours in quotes) where it teaches nothing"
        + (f"; {code.hint}" if code.hint else "")
    )


def _decode(path: Path, stored: Stored, code: LabelCode) -> tuple[np.ndarray, dict[str, int]]:
    """Class values, and how many pixels hold what has no meaning."""
    values = stored.values
    if values.dtype.kind not in "ui" or len(values) > 4:
        raise DataError(
            f"{path} is no label: {len(values)} bands of {values.dtype}; labels hold whole "
            "numbers in one band, or colours in three"
        )
    if len(values) < 3:
        read, meaning, names = values[0], *_of_numbers(stored, code)
    elif values.dtype == np.uint8:
        read, meaning, names = _packed(values), dict(code.colors), None
    else:
        raise DataError(f"{path} is no label: its colours are {values.dtype}, not uint8")
    found = _look_up(read, meaning)
    if len(values) in (2, 4):
        found[values[-1] == 0] = IGNORED
    if stored.mask is not None:
        found[~stored.mask] = IGNORED
    unknown: dict[str, int] = {}
    if (found == _UNKNOWN).any():
        numbers, counts = np.unique(read[found == _UNKNOWN], return_counts=True)
        for i in np.argsort(-counts, kind="stable"):
            name = f"colour {numbers[i]:06X}" if names is None else names(int(numbers[i]))
            unknown[name] = unknown.get(name, 0) + int(counts[i])
    return found.astype(np.uint8), unknown


def _of_numbers(stored: Stored, code: LabelCode) -> tuple[dict[int, int], Callable[[int], str]]:
    """What the numbers of a band stand for, and how to call one that stands for nothing."""
    values = dict(code.values)
    marker = stored.nodata[0]
    if marker is not None and marker == int(marker):
        values.setdefault(int(marker), IGNORED)
    palette = stored.palette
    if palette is None:
        return values, "value {}".format
    colors = dict(code.colors)
    shades = {n: (red << 16) | (green << 8) | blue for n, (red, green, blue, _) in palette.items()}
    # transparent, unless it is a class that has this number and this colour
    clear = {n for n, c in palette.items() if c[3] == 0 and colors.get(shades[n]) != n}
    used = {int(n) for n in np.unique(stored.values[0])} - clear
    known = {n for n in used if shades.get(n) in colors}
    if known == used or known - {n for n in (0,) if shades.get(n) == _BLACK}:
        meaning = {n: colors[c] for n, c in shades.items() if c in colors}
        return meaning | dict.fromkeys(clear, IGNORED), lambda n: f"colour {shades.get(n, 0):06X}"
    for number in clear:
        values.setdefault(number, IGNORED)
    return values, "value {}".format


def _look_up(read: np.ndarray, meaning: dict[int, int]) -> np.ndarray:
    """Class values as int16, _UNKNOWN where there is none."""
    if read.dtype in (np.uint8, np.uint16):
        table = np.full(1 << 8 * read.dtype.itemsize, _UNKNOWN, dtype=np.int16)
        for what, value in meaning.items():
            if 0 <= what < len(table):
                table[what] = value
        looked_up: np.ndarray = table[read]
        return looked_up
    found = np.full(read.shape, _UNKNOWN, dtype=np.int16)
    for what, value in meaning.items():
        found[read == what] = value
    return found


def _packed(values: np.ndarray) -> np.ndarray:
    """Colours as 0xRRGGBB."""
    red, green, blue = (band.astype(np.int32) for band in values[:3])
    return (red << 16) | (green << 8) | blue


def _set_ignored(entry: int | str, values: dict[int, int], colors: dict[int, int]) -> None:
    if isinstance(entry, int):
        values[entry] = IGNORED
        return
    match = _COLOR.fullmatch(entry)
    if not match:
        raise DataError(
            f"data.ignored holds {entry!r}, neither a whole number nor a colour such as 9B9B9B"
        )
    colors[int(match[1], 16)] = IGNORED
