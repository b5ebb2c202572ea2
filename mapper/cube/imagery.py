"""A tile of mosaics: high-resolution imagery, and maps that others made."""

from collections.abc import Iterator, Sequence

import numpy as np

from mapper.catalog.bands import Item, cloud_cover
from mapper.catalog.observation import moment
from mapper.catalog.pyramid import permit
from mapper.cube.failures import ReadFailures
from mapper.cube.load import Target, read_mosaic
from mapper.cube.made import Made
from mapper.cube.sample import Pixels
from mapper.cube.status import status_of
from mapper.errors import ReadError
from mapper.recipe import ImagerySource, LayerSource

_Mosaic = ImagerySource | LayerSource


def mosaic_tile(
    source: _Mosaic,
    target: Target,
    items: tuple[Item, ...],
    failures: ReadFailures,
    limits: tuple[int, int],
) -> Made:
    """The first image that has all required bands of a pixel gives it; none is mixed.

    Args:
        source: bands and order of preference.
        target: where.
        items: images or maps.
        failures: what to do about those that cannot be read.
        limits: nodata of the result and its greatest value.
    """
    if isinstance(source, ImagerySource) and source.tiles is not None:
        permit(source.tiles)
    fill, most = limits
    dtype = np.uint16 if most > 255 else np.uint8
    data = np.full((len(source.bands.all), *target.shape), fill, dtype=dtype)
    used = np.zeros(target.shape, dtype=bool)
    found: set[str] = set()
    for layers in _images(source, target, items, failures):
        required = [p for p in layers[: len(source.bands.required)] if p is not None]
        if len(required) < len(source.bands.required):
            continue
        whole = np.logical_and.reduce([p.valid for p in required]) & ~used
        for index, pixels in enumerate(layers):
            if pixels is not None:
                found.add(source.bands.all[index])
                take = whole & pixels.valid
                rounded = np.floor(pixels.values[take].astype(np.float64) + 0.5)
                _check_classes(source, rounded, most)
                data[index][take] = np.clip(rounded, 0, most)
        used |= whole
        if used.all():
            break
    status = status_of(used, used, failures.over(target))
    missing = tuple(b for b in source.bands.all if b not in found) if used.any() else ()
    return Made(
        arrays=(data, used.astype(np.uint16), status), observations=len(items), missing=missing
    )


def _check_classes(source: _Mosaic, values: np.ndarray, most: int) -> None:
    """A class that does not fit must not become another. Raises: ReadError."""
    if not isinstance(source, LayerSource) or not values.size:
        return
    if values.min() < 0 or values.max() > most:
        worst = values.max() if values.max() > most else values.min()
        raise ReadError(
            f"{', '.join(source.collections)} has the class {worst:g}, and a layer holds 0 to "
            f"{most}; leave this source out"
        )


def _images(
    source: _Mosaic, target: Target, items: tuple[Item, ...], failures: ReadFailures
) -> Iterator[Sequence[Pixels | None]]:
    for item in _in_order(items, source):
        try:
            yield [read_mosaic((item,), b, target, source.resampling) for b in source.bands.all]
        except ReadError as reason:
            failures.note((item,), reason)


def _in_order(items: tuple[Item, ...], source: _Mosaic) -> list[Item]:
    """Items with the preferred one first; ties by id."""
    by_id = sorted(items, key=lambda i: str(i["id"]))
    newest = sorted(by_id, key=moment, reverse=True)
    if isinstance(source, LayerSource) or source.order == "newest":
        return newest
    return sorted(newest, key=cloud_cover)
