"""Run the steps of all cities on Dask, a bounded number at a time, and write down what is done."""

import itertools
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mapper.errors import DeviceError, MapperError, StoreError
from mapper.events import Event, Listener
from mapper.inference.devices import cuda_devices
from mapper.run.city import CityJob
from mapper.run.ledger import Ledger
from mapper.run.step import Step
from mapper.run.tasks import Outcome, Task
from mapper.store.files import write_json
from mapper.transport.address import redact

logger = logging.getLogger(__name__)

_LOOK_AHEAD = 3
"""Steps submitted per worker: enough that none waits, few enough that the scheduler stays small."""
_PROGRESS_SECONDS = 1.0


def run_task(task: Task) -> Outcome:
    """What a worker calls."""
    return task.run()


@dataclass(slots=True)
class Execution:
    """The driver's loop over the steps of several cities."""

    jobs: Sequence[CityJob]
    client: Any
    """A Dask client."""
    ledger: Ledger
    listener: Listener
    resources: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Per stage, what of its worker's resources a step takes."""
    _running: dict[Any, list[tuple[CityJob, Step]]] = field(default_factory=dict)
    _by_identity: dict[tuple[tuple[str, str], ...], Any] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _written: float = 0.0
    _devices: dict[str, int] = field(default_factory=dict)
    """CUDA devices of each worker."""

    def run(self) -> None:
        """Carry out every step that can be; failures stay with their city.

        Raises: StoreError where the ledger cannot be written.
        """
        from distributed import as_completed

        for job in self.jobs:
            job.start()
            self._tell_progress(job)
        completed = as_completed(loop=self.client.loop)
        self._submit(completed)
        while self._running:
            future = next(completed)
            for number, (job, step) in enumerate(self._running.pop(future)):
                self._by_identity.pop(step.identity, None)
                self._settle(job, step, future, first=number == 0)
            future.release()
            self._submit(completed)
        for job in self.jobs:
            self._keep_progress(job)

    def _submit(self, completed: Any) -> None:
        """Fill the workers, taking turns among the cities."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        limit = _LOOK_AHEAD * max(1, len(workers))
        while len(self._running) < limit:
            held = self._held(workers)
            steps = [(job, step) for job in self.jobs if (step := job.take(held)) is not None]
            if not steps:
                return
            for job, step in steps:
                self._submit_one(job, step, completed)

    def _held(self, workers: Iterable[Mapping[str, Any]]) -> set[str]:
        """Stages of which as many steps wait as the workers that may do them can look ahead to:
        more would keep the others from work that they can do.
        """
        running = Counter(steps[0][1].stage for steps in self._running.values())
        found = set()
        for stage, wanted in self.resources.items():
            offered = sum(
                all(w.get("resources", {}).get(n, 0) >= a for n, a in wanted.items())
                for w in workers
            )
            if running[stage] >= _LOOK_AHEAD * max(1, offered):
                found.add(stage)
        return found

    def _submit_one(self, job: CityJob, step: Step, completed: Any) -> None:
        entries = job.known(step)
        if entries is not None:
            job.committed(step, entries)
            self._tell_progress(job, step)
            return
        known = self._by_identity.get(step.identity)
        if known is not None:
            # another city wants the same tile: one task serves both
            self._running[known].append((job, step))
            return
        name = f"{step.stage}-{job.slug}-{next(self._numbers):08x}"
        try:
            where = self._workers_for(job, step)
        except DeviceError as reason:
            self._give_up(job, step, str(reason))
            return
        future = self.client.submit(
            run_task,
            step.task,
            key=name,
            pure=False,
            retries=1 if step.stage != "publish" else 0,
            workers=where,
            resources=self.resources.get(step.stage),
        )
        self._running[future] = [(job, step)]
        self._by_identity[step.identity] = future
        completed.add(future)

    def _settle(self, job: CityJob, step: Step, future: Any, first: bool) -> None:
        """Write down a step's result once, or its failure, and tell its city."""
        if future.status == "finished":
            entries = job.finish(step, future.result())
            for entry in entries if first else ():
                self.ledger.commit(entry)
            job.committed(step, entries)
            self._tell_progress(job, step)
            return
        self._give_up(job, step, _reason(future.exception()))

    def _workers_for(self, job: CityJob, step: Step) -> list[str] | None:
        """Workers with the device that the plan is for; None where any will do.

        Raises: DeviceError where no worker has it.
        """
        device = job.plan.request.inference.device
        if step.stage != "predict" or device == "cpu":
            return None
        present = set(self.client.scheduler_info(n_workers=-1)["workers"])
        if present - self._devices.keys():
            asked = sorted(present - self._devices.keys())
            self._devices.update(self.client.run(cuda_devices, workers=asked))
        found = sorted(w for w in present if self._devices.get(w))
        if not found:
            raise DeviceError(
                f"the plan is for {device}, and no worker has a CUDA device; start workers with "
                "one, or use --device cpu"
            )
        return found

    def _give_up(self, job: CityJob, step: Step, reason: str) -> None:
        job.failed(step, reason)
        self.listener(
            Event(
                kind="step",
                state="failed",
                city=job.slug,
                stage=step.stage,
                message=f"{step.stage} failed: {reason}",
                data={"keys": list(step.entries)},
            )
        )

    def _tell_progress(self, job: CityJob, step: Step | None = None) -> None:
        for stage, progress in job.progress.items():
            if step is not None and stage != step.stage:
                continue
            if progress.total:
                done = progress.done + progress.skipped
                self.listener(
                    Event(
                        kind="step",
                        state="done" if step else "planned",
                        city=job.slug,
                        stage=stage,
                        done=done,
                        total=progress.total,
                        message=f"{stage} {done} of {progress.total}",
                        data={"keys": list(step.entries)} if step else {},
                    )
                )
        if time.monotonic() - self._written > _PROGRESS_SECONDS:
            self._written = time.monotonic()
            self._keep_progress(job)

    def _keep_progress(self, job: CityJob) -> None:
        """Leave word for `mapper status`; losing it loses nothing."""
        content = {
            "stages": {
                stage: {"done": p.done + p.skipped, "skipped": p.skipped, "total": p.total}
                for stage, p in job.progress.items()
                # maps of a composite are not reduced
                if p.total or stage != "reduce"
            },
            "failures": job.failures,
        }
        try:
            write_json(job.plan.version.path / "progress.json", content)
        except StoreError as reason:
            logger.warning("%s", reason)


def _reason(error: BaseException | None) -> str:
    """One line, without secrets."""
    if isinstance(error, MapperError):
        return redact(str(error))
    name = type(error).__name__
    if name == "KilledWorker":
        return "its worker died several times, out of memory perhaps; use smaller tiles"
    return redact(f"{name}: {error}".splitlines()[0])
