"""What happened, as data: progress bars, JSON lines and logs are listeners to these."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened in a run."""

    kind: str
    """`run`, `plan`, `search`, `workers`, `step`, `city`, `image`, `warning` or `done`."""
    message: str
    """One line for people; never a signed address."""
    city: str = ""
    """Slug, where the event is about a city."""
    stage: str = ""
    """`inspect`, `ingest`, `predict` or `publish`."""
    state: str = ""
    """`planned`, `done`, `retried` or `failed`."""
    done: int = 0
    """Steps of this city and stage that are done."""
    total: int = 0
    """Steps of this city and stage."""
    data: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Without the fields that say nothing."""
        return {k: v for k, v in asdict(self).items() if v not in ("", {}, 0) or k == "message"}


Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """A listener that does nothing."""
