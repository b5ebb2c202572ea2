"""Stages that overlap: each works ahead of the next by a bounded number of things."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


class _Failed:
    def __init__(self, reason: BaseException) -> None:
        self.reason = reason


_END = object()
_PATIENCE = 0.1


def ahead(things: Iterable[Given], depth: int) -> Iterator[Given]:
    """The same things in the same order, made in a thread of their own, `depth` of them ahead.

    What the maker raises is raised here. Where the consumer stops early, the maker stops too.
    """
    ready: queue.Queue[object] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(thing: object) -> bool:
        while not stop.is_set():
            try:
                ready.put(thing, timeout=_PATIENCE)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for thing in things:
                if not put(thing):
                    return
            put(_END)
        except BaseException as reason:  # handed over, whatever it is
            put(_Failed(reason))
        finally:
            close = getattr(things, "close", None)
            if close is not None:
                close()

    maker = threading.Thread(target=make, name="mapper-stage", daemon=True)
    maker.start()
    try:
        while (thing := ready.get()) is not _END:
            if isinstance(thing, _Failed):
                raise thing.reason
            yield thing  # type: ignore[misc]
    finally:
        stop.set()
        maker.join()


def side_by_side(
    things: Iterable[Given], act: Callable[[Given], Made], workers: int
) -> Iterator[Made]:
    """`act` of each thing, in order, several at once and never more than one more waiting."""
    waiting: deque[Future[Made]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="mapper-run")
    try:
        for thing in things:
            waiting.append(pool.submit(act, thing))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        pool.shutdown(wait=True, cancel_futures=True)
        close = getattr(things, "close", None)
        if close is not None:
            close()
