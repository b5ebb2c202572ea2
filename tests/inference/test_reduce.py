"""Maps of several dates become one by counting, whatever their order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapper.classes import ClassTable, MapClass
from mapper.inference.reduce import DatedMap, reduce_maps

TABLE = ClassTable(
    classes=tuple(
        MapClass(value=value, name=f"c{value}", title=f"C{value}", color="0A0B0C")
        for value in (3, 7, 1)
    )
)


def dates(seed: int, count: int = 4):
    """Random maps whose class is that of the highest probability, with holes."""
    rng = np.random.default_rng(seed)
    maps = []
    for _ in range(count):
        shares = rng.integers(0, 251, (3, 5, 6)).astype(np.uint8)
        classes = np.array(TABLE.values, dtype=np.uint8)[shares.argmax(axis=0)]
        confidence, hole = shares.max(axis=0), rng.random((5, 6)) < 0.3
        classes[hole], confidence[hole], shares[:, hole] = 255, 255, 255
        maps.append(DatedMap(classes=classes, confidence=confidence, probabilities=shares))
    return maps


def expected(maps, method, y, x):
    """Class, confidence, agreement and count of one pixel, in plain Python."""
    seen = [m for m in maps if m.classes[y, x] != 255]
    if not seen:
        return 255, 255, 255, 0
    ranks = []
    for channel, value in enumerate(TABLE.values):
        chosen = [int(m.confidence[y, x]) for m in seen if m.classes[y, x] == value]
        shares = sum(int(m.probabilities[channel, y, x]) for m in seen)
        weight = shares if method == "mean" else sum(chosen)
        first = {"mean": 0, "vote": len(chosen), "highest": max(chosen, default=0)}[method]
        ranks.append((first, weight, -channel, value, len(chosen)))
    first, weight, _, value, votes = max(ranks)
    confidence = {
        "mean": weight / len(seen),
        "vote": weight / max(1, votes),
        "highest": first,
    }[method]
    return value, int(confidence + 0.5), int(votes / len(seen) * 250 + 0.5), len(seen)


@given(st.integers(0, 10_000), st.sampled_from(["mean", "vote", "highest"]))
def test_each_pixel_is_what_plain_counting_gives(seed, method):
    maps = dates(seed)
    made = reduce_maps(maps, TABLE, method)
    for y in range(5):
        for x in range(6):
            found = (made.classes, made.confidence, made.agreement, made.count)
            assert tuple(int(a[y, x]) for a in found) == expected(maps, method, y, x)


@pytest.mark.parametrize("method", ["mean", "vote", "highest"])
def test_the_order_of_the_dates_has_no_say(method):
    maps = dates(5, count=7)
    one, other = (reduce_maps(m, TABLE, method) for m in (maps, maps[::-1]))
    for name in ("classes", "confidence", "agreement", "count"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_one_date_is_left_as_it_is():
    (only,) = maps = dates(9, count=1)
    for method in ("mean", "vote", "highest"):
        made = reduce_maps(maps, TABLE, method)
        np.testing.assert_array_equal(made.classes, only.classes)
        np.testing.assert_array_equal(made.confidence, only.confidence)


def test_no_map_at_all_is_a_defect_of_the_caller():
    with pytest.raises(ValueError, match="no map"):
        reduce_maps([], TABLE, "vote")
