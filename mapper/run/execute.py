"""Run the steps of all cities on Dask, a bounded number at a time, and write down what is done."""

import logging
import queue
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mapper.cluster.members import Members
from mapper.errors import InputError, MapperError, StoppedError
from mapper.events import Listener
from mapper.run.attempts import Attempts, Work
from mapper.run.city import CityJob
from mapper.run.ledger import Ledger
from mapper.run.progress import Teller
from mapper.run.step import STAGES, Step
from mapper.run.stopping import Stop
from mapper.run.tasks import Outcome, Task
from mapper.transport.address import redact

logger = logging.getLogger(__name__)

_LOOK_AHEAD = 3
"""Steps submitted per worker: enough that none waits, few enough that the scheduler stays small."""
_TICK_SECONDS = 1.0
_TOPIC = "mapper-begun"


def run_task(task: Task, key: str) -> Outcome:
    """What a worker calls."""
    from distributed import get_worker

    # in a plain process there is nobody to be told
    with suppress(ValueError):
        get_worker().log_event(_TOPIC, key)
    return task.run()


@dataclass(slots=True)
class Execution:
    """The driver's loop over the steps of several cities."""

    jobs: Sequence[CityJob]
    members: Members
    ledger: Ledger
    listener: Listener
    resources: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Per stage, what of its worker's resources a step takes."""
    stop: Stop = field(default_factory=Stop)
    attempts: Attempts = field(default_factory=Attempts)
    _teller: Teller = field(init=False)
    _ended: "queue.SimpleQueue[Any]" = field(default_factory=queue.SimpleQueue)
    _looked: float = 0.0

    def __post_init__(self) -> None:
        self._teller = Teller(self.listener)

    @property
    def client(self) -> Any:
        """Of Dask."""
        return self.members.client

    def run(self) -> None:
        """Carry out every step that can be; failures stay with their city.

        Members have been waited for.

        Raises: StoreError where the ledger cannot be written; UsageError where no worker offers
            what a step needs; StoppedError after a signal.
        """
        self.client.subscribe_topic(_TOPIC, self._heard)
        try:
            self._loop()
        finally:
            self.client.unsubscribe_topic(_TOPIC)
            for job in self.jobs:
                self._teller.keep(job)

    def _loop(self) -> None:
        self.jobs = largest_first(self.jobs)
        for job in self.jobs:
            job.start()
            self._teller.planned(job)
        self._submit()
        while self.attempts and not self.stop.over:
            with suppress(queue.Empty):
                self._settle(self._ended.get(timeout=_TICK_SECONDS))
            self._tick()
            self._submit()
        if self.stop.asked:
            left = len(self.attempts)
            told = f"; {left} steps were not waited for" if left else ""
            raise StoppedError(
                f"stopped by signal {self.stop.number}{told}; run again to resume", self.stop.number
            )

    def _tick(self) -> None:
        """What is looked at now and then."""
        if time.monotonic() - self._looked < _TICK_SECONDS:
            return
        self._looked = time.monotonic()
        self.members.look()
        predicting = self.members.offering(self.resources.get("predict", {}))
        self._teller.workers(len(self.members.present), predicting)
        running = self.attempts.counts()
        waiting = {stage for job in self.jobs for stage, steps in job.ready.items() if steps}
        for stage in running.keys() | waiting:
            self.members.complain(self.resources.get(stage, {}))
        if self.stop.asked:
            self._cancel_unbegun()
            return
        if len(self.attempts) < len(self.members.present):
            for work in list(self.attempts.stragglers()):
                self._teller.retried(work.first, work.step, "it takes far longer than the others")
                self._attempt(work)

    def _cancel_unbegun(self) -> None:
        """Of what waits for a worker nothing would be lost."""
        for work in self.attempts:
            if work.began is None:
                self.client.cancel(self.attempts.settled(work), force=True)

    def _submit(self) -> None:
        """Fill the workers, taking turns among the cities."""
        limit = _LOOK_AHEAD * max(1, len(self.members.present))
        while len(self.attempts) < limit and not self.stop.asked:
            held = self._held()
            steps = [(job, step) for job in self.jobs if (step := job.take(held)) is not None]
            if not steps:
                return
            for job, step in steps:
                self._begin(job, step)

    def _held(self) -> set[str]:
        """Stages of which as many steps wait as the workers that may do them can look ahead to:
        more would keep the others from work that they can do.
        """
        running = self.attempts.counts()
        return {
            stage
            for stage in STAGES
            if (wanted := self.resources.get(stage))
            and running[stage] >= _LOOK_AHEAD * max(1, self.members.offering(wanted))
        }

    def _begin(self, job: CityJob, step: Step) -> None:
        entries = job.known(step)
        if entries is not None:
            job.committed(step, entries)
            self._teller.done(job, step)
            return
        same = self.attempts.same_as(step)
        if same is not None:
            # another city wants the same tile: one task serves both
            same.wanted.append((job, step))
            return
        self._attempt(self.attempts.begin(job, step))

    def _attempt(self, work: Work) -> None:
        """Submit one more attempt at a step, under its own name."""
        key = work.next_name()
        future = self.client.submit(
            run_task,
            work.step.task,
            key,
            key=key,
            pure=False,
            resources=self.resources.get(work.step.stage),
        )
        self.attempts.started(work, future)
        future.add_done_callback(self._ended.put)

    def _heard(self, event: Any) -> None:
        """A worker has begun an attempt. Called by another thread."""
        _, key = event
        self.attempts.taken_up(str(key))

    def _settle(self, future: Any) -> None:
        """Write down a step's result once, or its failure, and tell its cities."""
        work = self.attempts.ended(future)
        if work is None:
            return
        if future.status != "finished":
            self._failed(work, future)
            return
        outcome = future.result()
        if others := self.attempts.settled(work):
            self.client.cancel(others, force=True)
        for number, (job, step) in enumerate(work.wanted):
            entries = job.finish(step, outcome)
            for entry in entries if number == 0 else ():
                self.ledger.commit(entry)
            job.committed(step, entries)
            self._teller.done(job, step, outcome if number == 0 else None)
        future.release()

    def _failed(self, work: Work, future: Any) -> None:
        if future.status == "cancelled":
            # by a scheduler that lost it; what ended in good order is not asked for any more
            error: BaseException | None = None
            reason = "it was cancelled; is the scheduler still there?"
        else:
            error = future.exception()
            reason = _reason(error)
        if work.futures:
            # a copy is still under way
            return
        if self._may_retry(work, error) and not self.stop.asked:
            self._teller.retried(work.first, work.step, reason)
            self._attempt(work)
            return
        self.attempts.settled(work)
        for job, step in work.wanted:
            job.failed(step, reason)
            self._teller.failed(job, step, reason)

    def _may_retry(self, work: Work, error: BaseException | None) -> bool:
        if type(error).__name__ == "KilledWorker":
            return self.attempts.may_go_on(work)
        return not isinstance(error, InputError) and self.attempts.may_retry(work)


def _reason(error: BaseException | None) -> str:
    """One line, without secrets."""
    if isinstance(error, MapperError):
        return redact(str(error))
    name = type(error).__name__
    if name == "KilledWorker":
        return "its worker died several times, out of memory perhaps; use smaller tiles"
    return redact(f"{name}: {error}".splitlines()[0])


def largest_first(jobs: Iterable[CityJob]) -> list[CityJob]:
    """Cities by the tiles that they map: the largest takes longest to finish."""
    return sorted(jobs, key=lambda job: -len(job.plan.predict_tiles))
