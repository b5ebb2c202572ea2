"""Stages that overlap: in order, a bounded way ahead, and gone when nobody wants more."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapper.inference.stages import ahead, side_by_side


def stage_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("mapper-")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert stage_threads() == []


def wait_for(condition, seconds=5.0):
    """Waits until a condition holds; fails where it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def drain(stage, seen: list) -> None:
    """Takes all there is, as far as it gets."""
    for thing in stage:
        seen.append(thing)


class Counted:
    """Numbers that know how many of them were made, and whether they were closed."""

    def __init__(self, count, fails_at=None):
        self.made, self.closed = 0, False
        self._count, self._fails_at = count, fails_at

    def things(self):
        try:
            for number in range(self._count):
                if number == self._fails_at:
                    raise ZeroDivisionError("made wrong")
                self.made += 1
                yield number
        finally:
            self.closed = True


# ahead -------------------------------------------------------------------------------------


@given(st.lists(st.integers() | st.none(), max_size=20), st.integers(1, 5))
def test_what_was_made_ahead_comes_in_order(things, depth):
    assert list(ahead(things, depth)) == things


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_maker_is_no_further_ahead_than_told(depth):
    maker = Counted(50)
    made = ahead(maker.things(), depth)
    for taken in range(1, 10):
        next(made)
        # one more waits in the maker's hand for a free place
        wait_for(lambda most=taken + depth + 1: maker.made == most)
        time.sleep(0.002)
        assert maker.made == taken + depth + 1
    made.close()
    assert maker.made < 50


def test_nothing_is_made_before_the_first_is_wanted():
    maker = Counted(5)
    made = ahead(maker.things(), 2)
    time.sleep(0.01)
    assert maker.made == 0
    assert stage_threads() == []
    made.close()
    assert maker.made == 0


def test_making_and_using_happen_at_once():
    """Each side waits for the other within one item, which one thread could not do."""
    used, made = threading.Event(), threading.Event()

    def things():
        yield 0
        assert used.wait(5)
        made.set()
        yield 1

    stage = ahead(things(), 1)
    assert next(stage) == 0
    used.set()
    assert made.wait(5)
    assert list(stage) == [1]


@pytest.mark.parametrize("fails_at", [0, 1, 7])
def test_what_the_maker_raises_is_raised_after_what_it_made(fails_at):
    maker = Counted(20, fails_at)
    seen = []
    with pytest.raises(ZeroDivisionError, match="made wrong"):
        drain(ahead(maker.things(), 3), seen)
    assert seen == list(range(fails_at))
    assert maker.closed


@pytest.mark.parametrize("reason", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupted_maker_interrupts_its_consumer(reason):
    def things():
        yield 1
        raise reason

    made = ahead(things(), 1)
    assert next(made) == 1
    with pytest.raises(reason):
        next(made)


@pytest.mark.parametrize("taken", [1, 5])
def test_closing_early_stops_and_closes_the_maker(taken):
    maker = Counted(10**9)
    made = ahead(maker.things(), 2)
    for _ in range(taken):
        next(made)
    assert len(stage_threads()) == 1
    made.close()
    assert maker.closed
    assert maker.made <= taken + 3


def test_a_consumer_that_fails_stops_the_maker():
    maker = Counted(10**9)

    def consume():
        for number in ahead(maker.things(), 2):
            if number == 3:
                raise LookupError

    with pytest.raises(LookupError):
        consume()
    wait_for(lambda: maker.closed)


def test_stages_in_stages_stop_together():
    maker = Counted(10**9)
    inner = ahead(maker.things(), 1)
    middle = side_by_side(inner, lambda n: n + 1, 2)
    outer = ahead(middle, 1)
    assert [next(outer) for _ in range(3)] == [1, 2, 3]
    outer.close()
    assert maker.closed


def test_an_error_at_the_bottom_reaches_the_top():
    maker = Counted(20, fails_at=6)
    stages = ahead(side_by_side(ahead(maker.things(), 1), lambda n: n * 10, 3), 1)
    seen = []
    with pytest.raises(ZeroDivisionError):
        drain(stages, seen)
    assert seen == [0, 10, 20, 30, 40, 50][: len(seen)]


# side by side ------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.lists(st.integers(0, 3), max_size=12), st.integers(1, 4))
def test_results_come_in_the_order_of_the_things(delays, workers):
    def act(pair):
        number, delay = pair
        time.sleep(delay / 2000)
        return number

    assert list(side_by_side(enumerate(delays), act, workers)) == list(range(len(delays)))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_as_many_work_at_once_as_there_are_workers(workers):
    together = threading.Barrier(workers)
    lock, working, most = threading.Lock(), [0], [0]

    def act(number):
        with lock:
            working[0] += 1
            most[0] = max(most[0], working[0])
        together.wait(5)
        with lock:
            working[0] -= 1
        return number

    count = 3 * workers
    assert list(side_by_side(range(count), act, workers)) == list(range(count))
    assert most[0] == workers


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_than_one_more_than_the_workers_is_taken(workers):
    maker = Counted(50)
    results = side_by_side(maker.things(), lambda n: n, workers)
    for taken in range(1, 10):
        next(results)
        assert maker.made == taken + workers
    results.close()
    assert maker.closed


@pytest.mark.parametrize("fails_at", [0, 4])
def test_what_an_act_raises_is_raised_in_its_turn(fails_at):
    maker = Counted(50)

    def act(number):
        if number == fails_at:
            raise ZeroDivisionError("acted wrong")
        return number

    seen = []
    with pytest.raises(ZeroDivisionError, match="acted wrong"):
        drain(side_by_side(maker.things(), act, 2), seen)
    assert seen == list(range(fails_at))
    assert maker.closed
    assert maker.made <= fails_at + 3


def test_closing_early_waits_for_what_is_under_way():
    begun, finished = [], []

    def act(number):
        begun.append(number)
        time.sleep(0.005)
        finished.append(number)
        return number

    results = side_by_side(range(1000), act, 2)
    next(results)
    results.close()
    assert sorted(begun) == sorted(finished)
    assert len(begun) <= 3
