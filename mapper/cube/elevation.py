"""A tile of terrain: heights laid over each other, slope and aspect on the metric grid."""

import numpy as np

from mapper.catalog.bands import Item
from mapper.cube.failures import ReadFailures
from mapper.cube.load import Target, read_mosaic
from mapper.cube.made import Made
from mapper.cube.status import status_of
from mapper.cube.terrain import slope_aspect
from mapper.errors import ReadError
from mapper.recipe import ElevationSource


def elevation_tile(
    source: ElevationSource, target: Target, items: tuple[Item, ...], failures: ReadFailures
) -> Made:
    """Elevation in metres, slope and aspect in degrees; items in the order of their ids."""
    grown = Target(grid=target.grid, pixels=target.pixels.grow(1))
    heights = np.full(grown.shape, np.nan, dtype=np.float32)
    for item in sorted(items, key=lambda i: str(i["id"])):
        try:
            pixels = read_mosaic((item,), "elevation", grown, source.resampling)
        except ReadError as reason:
            failures.note((item,), reason)
            continue
        if pixels is not None:
            take = pixels.valid & np.isnan(heights)
            heights[take] = pixels.values[take]
    slope, aspect = slope_aspect(heights, target.grid.resolution)
    layers = {"elevation": heights[1:-1, 1:-1], "slope": slope, "aspect": aspect}
    data = np.stack([layers[band] for band in source.bands.all]).astype(np.float32)
    known = np.isfinite(layers["elevation"])
    status = status_of(known, known, failures.over(target))
    return Made(
        arrays=(data, known.astype(np.uint16), status), observations=1 if known.any() else 0
    )
