"""Several reads at once: waiting for a server costs no processor."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

_T = TypeVar("_T")


def read_each(read: Callable[[_T], None], things: Sequence[_T], at_once: int) -> None:
    """Call a function for each of several things, some at once; the first error ends it."""
    if len(things) <= 1:
        for thing in things:
            read(thing)
        return
    with ThreadPoolExecutor(min(at_once, len(things)), thread_name_prefix="read") as pool:
        started = [pool.submit(copy_context().run, read, thing) for thing in things]
        try:
            for future in started:
                future.result()
        finally:
            for future in started:
                future.cancel()
