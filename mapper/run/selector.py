"""Which windows an AOI needs."""

from collections.abc import Callable

import shapely
from shapely import box

from mapper.area.grid import Grid
from mapper.area.window import Window
from mapper.inference.plan import InferencePlan


def window_selector(
    grid: Grid, area: shapely.Geometry, plan: InferencePlan
) -> Callable[[Window], bool]:
    """Which windows have a say inside an AOI (in the grid's CRS)."""
    shapely.prepare(area)

    def selected(window: Window) -> bool:
        mine = window.core if plan.mode == "core" else window.extent
        return bool(shapely.intersects(area, box(*grid.bounds_of(mine))))

    return selected
