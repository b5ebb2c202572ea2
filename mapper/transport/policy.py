"""How patient the network code is: every limit in one place, each settable by the environment."""

import os
from dataclasses import dataclass, fields
from functools import lru_cache

from mapper.errors import UsageError

PREFIX = "MAPPER_NETWORK__"
KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPolicy:
    """Limits of the network code. `MAPPER_NETWORK__PER_HOST=8` sets `per_host`; times in seconds.

    Raises: UsageError where a limit is not above zero.
    """

    per_host: int = 16
    """Requests at once to one host."""
    tries: int = 6
    """How often one request is made before it fails for good."""
    connect_s: float = 10.0
    read_s: float = 30.0
    """Longest silence of a connection."""
    deadline_s: float = 300.0
    """Longest time for one request with all its tries, from its first one."""
    backoff_s: float = 0.5
    """Upper end of the first wait; doubles with every try (full jitter)."""
    backoff_max_s: float = 20.0
    retry_after_max_s: float = 120.0
    """A server that asks for a longer pause is an error."""
    breaker_failures: int = 24
    """Failures in a row after which a host is left alone."""
    breaker_pause_s: float = 15.0
    """How long it is left alone before one request is tried."""
    breaker_wait_s: float = 60.0
    """How long a request waits for a host that is left alone."""
    first_bytes: int = 64 * KIB
    """Of the first read of a file: the header of a COG."""
    piece_bytes: int = MIB
    """Largest range asked for at once."""
    gap_bytes: int = 16 * KIB
    """Ranges closer than this are asked for as one."""
    whole_bytes: int = MIB
    """Largest file taken from a server that does not do ranges."""
    cache_bytes: int = 256 * MIB
    """Bytes of closed files kept in one `traffic()`."""
    check_blocks: int = 1
    """1: hold deflated blocks that came over plain http against their checksum; 0: do not."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for field in fields(self):
            least_zero = field.name in {"gap_bytes", "cache_bytes", "check_blocks"}
            value = getattr(self, field.name)
            if value < 0 or (value == 0 and not least_zero):
                raise UsageError(f"{PREFIX}{field.name.upper()} is {value}; give a number above 0")


def current_policy() -> NetworkPolicy:
    """The limits in force, read from the environment at each call.

    Raises: UsageError where a variable does not hold a number.
    """
    return _policy(tuple(os.environ.get(PREFIX + field.name.upper()) for field in _FIELDS))


_FIELDS = fields(NetworkPolicy)


@lru_cache(maxsize=32)
def _policy(texts: tuple[str | None, ...]) -> NetworkPolicy:
    given: dict[str, int | float] = {}
    for field, text in zip(_FIELDS, texts, strict=True):
        if text is None:
            continue
        try:
            given[field.name] = int(text) if field.type is int else float(text)
        except ValueError:
            raise UsageError(f"{PREFIX}{field.name.upper()} is {text!r}; give a number") from None
    return NetworkPolicy(**given)  # type: ignore[arg-type]
