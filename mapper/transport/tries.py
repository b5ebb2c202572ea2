"""One request, tried until it succeeds, is refused, or its patience ends."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from mapper.errors import ReadError
from mapper.transport.address import host_name, unsigned
from mapper.transport.hosts import Host, find_host
from mapper.transport.policy import NetworkPolicy, current_policy
from mapper.transport.traffic import Traffic

T = TypeVar("T")


class PassingError(Exception):
    """A fault that may pass. The text goes into a message: it holds no secret."""

    def __init__(self, reason: str, *, after: float | None = None, hosts_fault: bool = True):
        """`after`: seconds the host asked to wait. `hosts_fault`: whether its breaker counts it."""
        super().__init__(reason)
        self.after = after
        self.hosts_fault = hosts_fault


class RefusedError(Exception):
    """401 or 403: another signature may help, another try will not."""


class AbsentError(ReadError):
    """There is nothing at an address (404, 410)."""


def persist(href: str, attempt: Callable[[], T], seen: Traffic) -> T:
    """Make a request under its host's gate, again where the fault may pass.

    Waits between tries are drawn evenly from zero to a bound that doubles (Brooker, "Exponential
    backoff and jitter", AWS Architecture Blog, 2015); a Retry-After holds back the whole host.

    Raises: ReadError, which names the unsigned address, when tries or time are used up, when the
    host asks for too long a pause or is left alone; RefusedError; whatever else `attempt` raises.
    """
    policy = current_policy()
    host = find_host(host_name(href), policy)
    seen.count_host(host.name)
    end = 0.0
    for number in range(policy.tries):
        try:
            with _timed_turn(host, seen):
                end = end or time.monotonic() + policy.deadline_s
                return _attempt(host, attempt)
        except PassingError as fault:
            wait = _wait(number, fault, policy)
            _check_patience(href, fault, policy)
            if number + 1 == policy.tries or time.monotonic() + max(wait, fault.after or 0) > end:
                raise ReadError(_gave_up(href, number + 1, fault)) from None
            if fault.after is not None:
                host.pause(fault.after)
        seen.count_retry(wait)
        time.sleep(wait)
    raise AssertionError("the last try returns or raises")


@contextmanager
def _timed_turn(host: Host, seen: Traffic) -> Iterator[None]:
    """A turn at a host; the seconds it was waited for are counted."""
    begin = time.monotonic()
    with host.turn():
        seen.count_wait(time.monotonic() - begin)
        yield


def _attempt(host: Host, attempt: Callable[[], T]) -> T:
    try:
        got = attempt()
    except PassingError as fault:
        if fault.hosts_fault:
            host.failed()
        raise
    except (ReadError, RefusedError):
        host.succeeded()
        raise
    host.succeeded()
    return got


def _wait(number: int, fault: PassingError, policy: NetworkPolicy) -> float:
    """Seconds before the next try, besides the pause that the host asked for."""
    bound = policy.backoff_s * (1 if fault.after is not None else 2**number)
    return random.uniform(0, min(policy.backoff_max_s, bound))  # noqa: S311


def _check_patience(href: str, fault: PassingError, policy: NetworkPolicy) -> None:
    if fault.after is not None and fault.after > policy.retry_after_max_s:
        raise ReadError(
            f"asset {unsigned(href)} cannot be read: its host asks to wait {fault.after:.0f} s "
            f"(Retry-After), more than the {policy.retry_after_max_s:g} s that are waited; "
            "run again later"
        ) from None


def _gave_up(href: str, tries: int, fault: PassingError) -> str:
    return (
        f"asset {unsigned(href)} cannot be read: {fault} (tried {tries} times); run again later, "
        "or leave the scene out (`failure_budget`)"
    )


def retry_after(text: str | None) -> float | None:
    """Seconds that a Retry-After header asks to wait, in either of its forms (RFC 9110, 10.2.3).

    Returns: None where there is none, or none that can be understood.
    """
    if text is None:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
