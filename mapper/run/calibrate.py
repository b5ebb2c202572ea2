"""Windows of real pixels for calibrating and measuring models: from images, and from cubes."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mapper.area.grid import PixelBox
from mapper.errors import ImageError
from mapper.inference.card import ModelCard
from mapper.inference.coding import Coding, Layer
from mapper.inference.rows import Source, Stored
from mapper.run.images import ImageWishes, describe_image, image_source

_TRIES = 20
"""Places looked at for each window that is wanted."""
_LEAST_USABLE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """Somewhere to cut windows from."""

    source: Source
    coding: Coding
    pixels: PixelBox


def calibration_windows(
    paths: Sequence[Path], card: ModelCard, size: int, count: int, wishes: ImageWishes
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Windows as a model takes them, the same ones every time.

    Args:
        paths: images, and `cube.zarr` groups of runs.
        card: of the model.
        size: side of a window.
        count: windows in all, shared evenly among the paths.
        wishes: bands and scale of the images.

    Returns: scaled image and validity, `(1, band, y, x)` float32 each; windows of which less than
        half is usable are left out.

    Raises: ImageError where a path does not fit the model, or no window is usable.
    """
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for number, path in enumerate(paths):
        share = count * (number + 1) // len(paths) - count * number // len(paths)
        with _opened(path, card, wishes) as opened:
            found += _cut(opened, card, size, share)
    if not found:
        names = ", ".join(p.name for p in paths)
        raise ImageError(f"no window of {size} pixels in {names} is half filled with data")
    return found


def _cut(
    opened: _Opened, card: ModelCard, size: int, count: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Usable windows at places drawn at random, from a seed."""
    rng, box = np.random.default_rng(20), opened.pixels
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(_TRIES * count):
        if len(found) == count:
            break
        row = box.row0 + int(rng.integers(max(1, box.row1 - box.row0 - size + 1)))
        col = box.col0 + int(rng.integers(max(1, box.col1 - box.col0 - size + 1)))
        window = PixelBox(row0=row, col0=col, row1=row + size, col1=col + size)
        stored = opened.source.read(window)
        if opened.coding.usable(stored, card.required_channels).mean() >= _LEAST_USABLE:
            image, valid = opened.coding.physical(stored)
            scaled = card.scale(image[None], valid[None])
            found.append((scaled.astype(np.float32), valid[None].astype(np.float32)))
    return found


@contextmanager
def _opened(path: Path, card: ModelCard, wishes: ImageWishes) -> Iterator[_Opened]:
    if path.suffix == ".zarr":
        yield _cube(path, card)
        return
    image = describe_image(path, card, wishes)
    with image_source(image) as source:
        yield _Opened(source=source, coding=image.coding, pixels=image.pixels)


def _cube(path: Path, card: ModelCard) -> _Opened:
    """A run's cube: model bands `source:band` by the names of each array's bands."""
    arrays: dict[str, Any] = {}
    places: dict[str, list[int]] = {}
    layers = []
    for name in dict.fromkeys(band.split(":")[0] for band in card.bands):
        stored = _array(path, name)
        if stored is None:
            continue
        array, names = stored
        wanted = [
            (c, b.split(":")[1]) for c, b in enumerate(card.bands) if b.startswith(f"{name}:")
        ]
        here = [(c, names.index(band)) for c, band in wanted if band in names]
        if here:
            arrays[name], places[name] = array, [place for _, place in here]
            layers.append(_layer(name, array, tuple(channel for channel, _ in here)))
    known = {channel for layer in layers for channel in layer.channels}
    lacking = [card.bands[c] for c in card.required_channels if c not in known]
    if lacking or not layers:
        raise ImageError(
            f"{path} lacks {', '.join(lacking) or 'every band'}, which model {card.name!r} needs; "
            "give a cube of a recipe with them"
        )
    height, width = next(iter(arrays.values())).shape[1:]

    def read(box: PixelBox) -> Stored:
        return tuple(_read(arrays[la.name], places[la.name], la, box) for la in layers)

    return _Opened(
        source=Source(read=read),
        coding=Coding(layers=tuple(layers), bands=len(card.bands)),
        pixels=PixelBox(row0=0, col0=0, row1=height, col1=width),
    )


def _array(path: Path, name: str) -> tuple[Any, list[str]] | None:
    """A source's array and the names of its bands; None where the cube has no such source."""
    import zarr

    with warnings.catch_warnings():
        # fixed-length strings have no v3 specification yet; zarr reads them
        warnings.simplefilter("ignore")
        try:
            group = zarr.open_group(store=path, mode="r")
            if name not in group or f"{name}_band" not in group:
                return None
            return group[name], [str(band) for band in np.asarray(group[f"{name}_band"])]
        except (OSError, ValueError, KeyError) as reason:
            raise ImageError(f"{path} is no cube that can be read ({reason})") from reason


def _layer(name: str, array: Any, channels: tuple[int, ...]) -> Layer:
    return Layer(
        name=name,
        dtype=str(array.dtype),
        scale=float(array.attrs.get("scale_factor", 1.0)),
        offset=float(array.attrs.get("add_offset", 0.0)),
        nodata=float(array.fill_value),
        channels=channels,
    )


def _read(array: Any, places: list[int], layer: Layer, box: PixelBox) -> np.ndarray:
    """Bands of a window in the model's order; beyond the cube there is nodata."""
    whole = PixelBox(row0=0, col0=0, row1=array.shape[1], col1=array.shape[2])
    values, common = layer.empty(*box.shape), box.intersect(whole)
    if not common.empty:
        rows, cols = common.slices_in(whole)
        values[(slice(None), *common.slices_in(box))] = array[:, rows, cols][places]
    return values
