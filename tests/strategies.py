"""Hypothesis strategies for the nouns of mapper."""

from hypothesis import strategies as st

from mapper.area.grid import Grid, PixelBox, TileKey
from mapper.area.window import WindowPlan
from mapper.run.ledger import Entry, Output

RESOLUTIONS = (0.25, 0.3, 0.5, 1.0, 2.5, 10.0, 20.0, 60.0)
ZONES = (32601, 32632, 32650, 32660, 32701, 32733, 32756)

grids = st.builds(
    Grid,
    epsg=st.sampled_from(ZONES),
    resolution=st.sampled_from(RESOLUTIONS),
    tile=st.sampled_from((256, 512, 2048)),
)


@st.composite
def boxes(draw, reach=3000, longest=2000, shortest=1):
    """A box with its corner within `reach` of the lattice's origin."""
    row, col = draw(st.integers(-reach, reach)), draw(st.integers(-reach, reach))
    side = st.integers(shortest, longest)
    return PixelBox(row0=row, col0=col, row1=row + draw(side), col1=col + draw(side))


keys = st.builds(
    TileKey,
    epsg=st.sampled_from(ZONES),
    resolution=st.sampled_from(RESOLUTIONS),
    tile=st.sampled_from((256, 512, 2048)),
    row=st.integers(-2000, 90_000),
    col=st.integers(-2000, 90_000),
)


@st.composite
def window_plans(draw, longest=20):
    """Any layout of windows that `WindowPlan` accepts."""
    size = draw(st.integers(1, longest))
    mode = draw(st.sampled_from(("core", "blend")))
    strides = range(size, 0, -2) if mode == "core" else range(size, 0, -1)
    return WindowPlan(size=size, stride=draw(st.sampled_from(strides)), mode=mode)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)

outputs = st.builds(
    Output,
    path=st.text(min_size=1, max_size=20),
    size=st.integers(0, 2**40),
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    name=st.text(max_size=8),
)

entries = st.builds(
    Entry,
    key=st.text(min_size=1, max_size=20),
    digest=st.text("0123456789abcdef", min_size=4, max_size=64),
    outputs=st.lists(outputs, max_size=2).map(tuple),
    components=st.dictionaries(st.text(max_size=6), json_values, max_size=3),
    facts=st.dictionaries(st.text(max_size=6), json_values, max_size=3),
    seconds=st.floats(0, 1e6),
)
