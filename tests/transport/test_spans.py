"""Ranges to ask for, against sets of single bytes."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mapper.transport.spans import Spans, plan_pieces

SPAN = st.tuples(st.integers(0, 120), st.integers(0, 40)).map(lambda s: (s[0], s[0] + s[1]))


def as_set(spans):
    return {byte for start, end in spans for byte in range(start, end)}


@given(st.lists(SPAN, max_size=12), SPAN)
def test_spans_are_a_set_of_bytes(added, asked):
    known, bytes_ = Spans(), set()
    for start, end in added:
        new = set(range(start, end))
        assert known.add(start, end) == len(new & bytes_)
        bytes_ |= new
    gaps = known.gaps(*asked)
    assert as_set(gaps) == set(range(*asked)) - bytes_
    assert gaps == sorted(gaps)
    assert all(a[1] < b[0] for a, b in pairwise(gaps))


@given(
    st.lists(SPAN, max_size=8), st.lists(SPAN, max_size=8), st.integers(1, 30), st.integers(0, 12)
)
def test_pieces_cover_what_is_missing_and_nothing_that_is_known(wanted, held, piece, gap):
    known = Spans()
    for span in held:
        known.add(*span)
    pieces = plan_pieces(wanted, known, piece, gap)
    got = as_set(pieces)
    missing = as_set(wanted) - as_set(held)
    assert missing <= got
    assert not got & as_set(held)
    assert sum(end - start for start, end in pieces) == len(got), "no byte twice"
    assert all(0 < end - start <= piece for start, end in pieces)
    assert len(got - missing) <= gap * max(0, len(wanted) + len(held))
    if gap == 0:
        assert got == missing


def test_near_ranges_become_one_and_far_ones_do_not():
    assert plan_pieces([(0, 10), (14, 20)], Spans(), 100, 4) == [(0, 20)]
    assert plan_pieces([(0, 10), (15, 20)], Spans(), 100, 4) == [(0, 10), (15, 20)]
    assert plan_pieces([(0, 30)], Spans(), 10, 4) == [(0, 10), (10, 20), (20, 30)]
