"""What a task remembers of the files that it read: their identity, and bytes to read again."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from mapper.errors import ReadError
from mapper.transport.policy import current_policy
from mapper.transport.spans import Spans


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What tells one content of an address from another."""

    size: int
    """Bytes."""
    tag: str
    """ETag, else Last-Modified, else empty."""


class Held(Protocol):
    """Bytes of one file."""

    @property
    def held_bytes(self) -> int:
        """How much memory they take."""


@dataclass(slots=True)
class _Loan:
    contents: Any
    users: int = 0


class Memory:
    """Keyed by unsigned address; safe for threads.

    Contents in use are always kept. Those of closed files are dropped, the longest unused first,
    when all together are over the policy's `cache_bytes`.
    """

    def __init__(self) -> None:
        """Nothing read yet."""
        self._lock = threading.Lock()
        self._loans: OrderedDict[str, _Loan] = OrderedDict()
        self._identities: dict[str, Identity] = {}
        self._ranges: dict[str, Spans] = {}

    def borrow(self, address: str, make: Callable[[], Any]) -> Any:
        """The contents of an address, made where there are none; `give_back` ends the loan."""
        with self._lock:
            loan = self._loans.setdefault(address, _Loan(make()))
            loan.users += 1
            self._loans.move_to_end(address)
            return loan.contents

    def give_back(self, address: str, contents: Held) -> None:
        """End a loan; contents that were forgotten meanwhile just go."""
        with self._lock:
            loan = self._loans.get(address)
            if loan is None or loan.contents is not contents:
                return
            loan.users -= 1
            self._drop_idle()

    def _drop_idle(self) -> None:
        over = sum(loan.contents.held_bytes for loan in self._loans.values())
        over -= current_policy().cache_bytes
        for address, loan in list(self._loans.items()):
            if over <= 0:
                return
            if loan.users == 0:
                over -= loan.contents.held_bytes
                del self._loans[address]

    def forget(self, address: str, contents: Held) -> None:
        """Never lend these contents again, because a byte of them is wrong."""
        with self._lock:
            loan = self._loans.get(address)
            if loan is not None and loan.contents is contents:
                del self._loans[address]

    def note_range(self, address: str, start: int, end: int) -> int:
        """Remember that bytes came in. Returns: how many of them had come in before."""
        with self._lock:
            return self._ranges.setdefault(address, Spans()).add(start, end)

    def check_identity(self, address: str, found: Identity) -> None:
        """Hold a file against what it was at its first read in this task.

        Raises: ReadError where it is another.
        """
        with self._lock:
            first = self._identities.setdefault(address, found)
        if first != found:
            raise ReadError(
                f"asset {address} was replaced while it was read ({_difference(first, found)}); "
                "run again with --refresh"
            )


def _difference(first: Identity, found: Identity) -> str:
    if first.size != found.size:
        return f"it had {first.size} bytes and has {found.size}"
    return f"its ETag was {first.tag or 'none'} and is {found.tag or 'none'}"
