"""A class table and grids on both sides of the equator."""

import pytest

from mapper.area.grid import Grid, PixelBox
from mapper.classes import ClassTable, MapClass

CLASSES = ClassTable(
    classes=(
        MapClass(value=0, name="water", title="Water", color="1F77B4"),
        MapClass(value=2, name="green", title="Green & gardens", color="397D49"),
        MapClass(value=7, name="built", title='Built, "sealed"', color="C0392B"),
    )
)
NORTH = Grid(epsg=32632, resolution=10, tile=512)
SOUTH = Grid(epsg=32721, resolution=10, tile=512)
CORNERS = {"north": (NORTH, -515_700, 67_950), "south": (SOUTH, 613_700, 37_210)}


@pytest.fixture
def classes():
    return CLASSES


@pytest.fixture(params=sorted(CORNERS))
def place(request):
    """A grid, and a function that gives a box of that shape on it."""
    grid, row, col = CORNERS[request.param]

    def box(height, width):
        return PixelBox(row0=row, col0=col, row1=row + height, col1=col + width)

    return grid, box
