"""Steps in flight: how often each has been tried, and which are taking too long."""

import itertools
import statistics
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mapper.run.city import CityJob
from mapper.run.step import Step

TRIES = 2
"""Times that a step is tried whose task fails."""
_DEATHS = 3
"""Workers that may die of a step."""
_GIVEN_BACK = 6
"""Times that Dask may give a step back without its having been begun so often."""
_SLOW_FACTOR = 4.0
_SLOW_SECONDS = 60.0
"""A step is a straggler after this, and so many times what half of its stage took."""
_LEAST_KNOWN = 5
_ONCE = frozenset({"publish"})
"""Stages that swap folders in their last move: never two at once, and never again unasked."""


@dataclass(slots=True, eq=False)
class Work:
    """One step, for every city that wants it."""

    step: Step
    wanted: list[tuple[CityJob, Step]]
    name: str
    failed: int = 0
    futures: dict[Any, str] = field(default_factory=dict)
    """Attempts under way, each with its own key."""
    began: float | None = None
    """When a worker took the last attempt up."""
    begun: int = 0
    """How often one did."""
    given_back: int = 0

    @property
    def first(self) -> CityJob:
        """The city that asked first."""
        return self.wanted[0][0]

    def next_name(self) -> str:
        """The key of another attempt: that of the first, or the same with its number."""
        tried = self.failed + self.given_back + len(self.futures)
        return self.name if not tried else f"{self.name}-try{tried + 1}"


@dataclass(slots=True)
class Attempts:
    """All work under way."""

    tries: int = TRIES
    clock: Callable[[], float] = time.monotonic
    retried: int = 0
    copied: int = 0
    _by_future: dict[Any, Work] = field(default_factory=dict)
    _by_key: dict[str, Work] = field(default_factory=dict)
    _by_identity: dict[tuple[tuple[str, str], ...], Work] = field(default_factory=dict)
    _took: dict[str, deque[float]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=200))
    )
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __len__(self) -> int:
        """Attempts, copies too."""
        return len(self._by_future)

    def __iter__(self) -> Iterator[Work]:
        """Work under way, each once."""
        return iter(list(self._by_identity.values()))

    def same_as(self, step: Step) -> Work | None:
        """Work that will give the very entries of a step."""
        return self._by_identity.get(step.identity)

    def begin(self, job: CityJob, step: Step) -> Work:
        """New work."""
        name = f"{step.stage}-{job.slug}-{next(self._numbers):08x}"
        work = Work(step=step, wanted=[(job, step)], name=name)
        self._by_identity[step.identity] = work
        return work

    def started(self, work: Work, future: Any) -> None:
        """An attempt was submitted."""
        work.futures[future] = future.key
        work.began = None
        self._by_future[future] = work
        self._by_key[future.key] = work

    def taken_up(self, key: str) -> None:
        """A worker says that it has begun an attempt."""
        if work := self._by_key.get(key):
            work.began = self.clock()
            work.begun += 1

    def ended(self, future: Any) -> Work | None:
        """Take an attempt out; None where its work was settled by another."""
        work = self._by_future.pop(future, None)
        if work is None:
            return None
        self._by_key.pop(work.futures.pop(future), None)
        return work

    def settled(self, work: Work) -> list[Any]:
        """The work is over. Returns: further attempts at it, to be cancelled."""
        self._by_identity.pop(work.step.identity, None)
        left = list(work.futures)
        for future in left:
            self._by_future.pop(future, None)
            self._by_key.pop(work.futures.pop(future), None)
        if work.began is not None:
            self._took[work.step.stage].append(self.clock() - work.began)
        return left

    def may_retry(self, work: Work) -> bool:
        """Count a failure; True where the step may be tried once more."""
        work.failed += 1
        again = work.step.stage not in _ONCE and work.failed < self.tries and not work.futures
        self.retried += again
        return again

    def may_go_on(self, work: Work) -> bool:
        """Whether a step that Dask gave back, because its workers died, is to be tried again.

        Dask counts what only waited on a worker that died too: a tile that kills its workers
        would take its neighbours along.
        """
        work.given_back += 1
        again = work.begun < _DEATHS and work.given_back < _GIVEN_BACK and not work.futures
        self.retried += again
        return again

    def stragglers(self) -> Iterable[Work]:
        """Work that has been with its worker for far longer than its stage takes."""
        now = self.clock()
        for work in self:
            if len(work.futures) != 1 or work.began is None or work.step.stage in _ONCE:
                continue
            known = self._took[work.step.stage]
            if len(known) < _LEAST_KNOWN:
                continue
            if now - work.began > max(_SLOW_SECONDS, _SLOW_FACTOR * statistics.median(known)):
                self.copied += 1
                yield work

    def counts(self) -> Counter[str]:
        """Attempts of each stage."""
        return Counter(work.step.stage for work in self._by_future.values())
