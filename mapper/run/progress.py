"""How far cities are, told to listeners and left in their folders for `mapper status`."""

import logging
import time
from dataclasses import dataclass, field
from typing import Any

from mapper.errors import StoreError
from mapper.events import Event, Listener
from mapper.run.city import CityJob
from mapper.run.step import Step
from mapper.run.tasks import Outcome
from mapper.store.files import write_json

logger = logging.getLogger(__name__)

_KEEP_SECONDS = 1.0


@dataclass(slots=True)
class Teller:
    """Tells what happens to steps."""

    listener: Listener
    _kept: dict[str, float] = field(default_factory=dict)
    _workers: tuple[int, int] = (0, 0)

    def workers(self, count: int, predicting: int) -> None:
        """How many there are, and how many of them run models; told where it changes."""
        if (count, predicting) == self._workers:
            return
        self._workers = (count, predicting)
        some = "" if predicting == count else f", {predicting} of them for the model"
        data = {"workers": count, "predicting": predicting}
        self.listener(Event(kind="workers", message=f"{count} workers{some}", data=data))

    def planned(self, job: CityJob) -> None:
        """The first steps of a city are known."""
        for stage in job.progress:
            self._tell(job, stage, None)

    def done(self, job: CityJob, step: Step, outcome: Outcome | None = None) -> None:
        """A step is done; `outcome` where it was done here and now."""
        self._tell(job, step.stage, step, outcome)

    def _tell(
        self, job: CityJob, stage: str, step: Step | None, outcome: Outcome | None = None
    ) -> None:
        progress = job.progress[stage]
        if progress.total:
            done = progress.done + progress.skipped
            data: dict[str, Any] = {"keys": list(step.entries)} if step else {}
            if outcome is not None:
                data |= {"seconds": round(outcome.seconds, 3), **outcome.measures}
            self.listener(
                Event(
                    kind="step",
                    state="done" if step else "planned",
                    city=job.slug,
                    stage=stage,
                    done=done,
                    total=progress.total,
                    message=f"{stage} {done} of {progress.total}",
                    data=data,
                )
            )
        if time.monotonic() - self._kept.get(job.slug, 0.0) > _KEEP_SECONDS:
            self.keep(job)

    def retried(self, job: CityJob, step: Step, reason: str) -> None:
        """A step is given to another worker, after a failure or beside a slow one."""
        self._told(job, step, "retried", f"tried again: {reason}")

    def failed(self, job: CityJob, step: Step, reason: str) -> None:
        """A step failed for good."""
        self._told(job, step, "failed", f"failed: {reason}")

    def _told(self, job: CityJob, step: Step, state: str, what: str) -> None:
        self.listener(
            Event(
                kind="step",
                state=state,
                city=job.slug,
                stage=step.stage,
                message=f"{step.stage} {what}",
                data={"keys": list(step.entries)},
            )
        )

    def keep(self, job: CityJob) -> None:
        """Leave word for `mapper status`; losing it loses nothing."""
        self._kept[job.slug] = time.monotonic()
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
