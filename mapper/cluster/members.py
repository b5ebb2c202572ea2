"""The workers of a cluster: who is there, what each offers, and whether it fits the driver."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mapper.cluster.likeness import differences, software, told
from mapper.errors import UsageError

logger = logging.getLogger(__name__)

Wanted = Mapping[str, float]
Check = Callable[[], Mapping[str, str]]
"""What is asked of every worker; its answer has to be the driver's."""


@dataclass(slots=True)
class Members:
    """What is known of the workers. Those whose software differs are sent away."""

    client: Any
    """A Dask client."""
    check: Check = software
    patience: float = 60.0
    clock: Callable[[], float] = time.monotonic
    present: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Those that fit, as the scheduler describes them, by address."""
    _strangers: dict[str, list[str]] = field(default_factory=dict)
    _known: set[str] = field(default_factory=set)
    _lacking: dict[tuple[tuple[str, float], ...], float] = field(default_factory=dict)
    """Since when nobody has offered something that is waited for."""

    def look(self) -> None:
        """See who is there now; newcomers are compared with the driver."""
        found = self.client.scheduler_info(n_workers=-1)["workers"]
        self._compare(sorted(found.keys() - self._known - self._strangers.keys()))
        self.present = {a: w for a, w in found.items() if a in self._known}

    def _compare(self, newcomers: list[str]) -> None:
        if not newcomers:
            return
        own = self.check()
        # one that dies meanwhile answers nothing, and is looked at again if it comes back
        answers = self.client.run(self.check, workers=newcomers, on_error="ignore")
        lost = {a: lines for a, there in answers.items() if (lines := differences(own, there))}
        self._known |= answers.keys() - lost.keys()
        if not lost:
            return
        self._strangers |= lost
        logger.warning("sent away, for other versions would change the maps: %s", told(lost))
        self.client.retire_workers(sorted(lost), close_workers=True)

    def wait(self, *wishes: Wanted) -> None:
        """Until somebody offers each of some resources.

        Raises: UsageError once nobody has for as long as the patience goes: what needs it would
            wait for ever.
        """
        while True:
            self.look()
            if all(self.offering(wanted) for wanted in wishes):
                return
            for wanted in wishes:
                self.complain(wanted)
            time.sleep(min(1.0, self.patience / 4))

    def offering(self, wanted: Wanted) -> int:
        """How many workers have enough of every resource."""
        return sum(
            all(w.get("resources", {}).get(n, 0) >= amount for n, amount in wanted.items())
            for w in self.present.values()
        )

    def complain(self, wanted: Wanted) -> None:
        """Note that something waits for a resource. Raises: UsageError as `wait` does."""
        key = tuple(sorted(wanted.items()))
        if self.offering(wanted):
            self._lacking.pop(key, None)
            return
        since = self._lacking.setdefault(key, self.clock())
        if self.clock() - since < self.patience:
            return
        raise UsageError(self._lack(wanted))

    def _lack(self, wanted: Wanted) -> str:
        if self._strangers:
            return (
                f"every worker has other versions than this machine ({told(self._strangers)}); "
                "install the same on both"
            )
        if not self.present:
            return f"no worker has come within {self.patience:.0f} seconds; start one"
        names = " and ".join(wanted)
        offer = " ".join(f"{name}={max(1, amount):g}" for name, amount in wanted.items())
        more = ", or run with --device cpu" if "GPU" in wanted else ""
        return (
            f"no worker offers the resource {names}, and steps that need it would wait for ever; "
            f'start some with `--resources "{offer}"`{more}'
        )

    @property
    def memory(self) -> int:
        """Bytes that the smallest worker may use; without limits, as much as there is."""
        limits = [int(w["memory_limit"]) for w in self.present.values() if w.get("memory_limit")]
        return min(limits, default=1 << 62)
