"""The driver's loop on a real scheduler, with tasks that fail, hang or kill their worker."""

import os
import signal
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from distributed import Client, LocalCluster

from mapper.cluster.members import Members
from mapper.errors import InputError, ReadError, StoppedError, UsageError
from mapper.run import attempts as attempts_module
from mapper.run.attempts import Attempts
from mapper.run.execute import Execution
from mapper.run.ledger import Entry, Ledger
from mapper.run.step import STAGES, Progress, Step
from mapper.run.stopping import Stop, drained
from mapper.run.tasks import Outcome


@dataclass(frozen=True)
class Noted:
    """A task that leaves a line in a file each time that it is tried."""

    folder: Path
    name: str

    def run(self):
        with open(self.folder / f"{self.name}.tries", "a") as file:
            file.write("x\n")
        self.act(len((self.folder / f"{self.name}.tries").read_text().split()))
        return Outcome(outputs={f"ingest/{self.name}": ()}, seconds=0.01)

    def act(self, time_tried):
        pass


class Failing(Noted):
    def act(self, time_tried):
        raise ReadError("https://example.org/a.tif?sig=secret is cut off")


class Recovering(Noted):
    def act(self, time_tried):
        if time_tried == 1:
            raise OSError("for once")


class Refused(Noted):
    def act(self, time_tried):
        raise InputError("never right")


class Poison(Noted):
    def act(self, time_tried):
        # the scheduler hears that it began
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)


class Hanging(Noted):
    def act(self, time_tried):
        if time_tried == 1:
            time.sleep(6)


class Slow(Noted):
    def act(self, time_tried):
        time.sleep(1.5)


@dataclass(frozen=True)
class Future:
    key: str


@dataclass
class City:
    """As much of a city's job as the loop asks for."""

    folder: Path
    tasks: list
    slug: str = "here"
    stage: str = "ingest"
    failures: list = field(default_factory=list)
    done: list = field(default_factory=list)
    known_keys: set = field(default_factory=set)

    def __post_init__(self):
        path = self.folder / self.slug
        path.mkdir(exist_ok=True)
        version = SimpleNamespace(path=path)
        self.plan = SimpleNamespace(predict_tiles=self.tasks, version=version)
        self.ready = {self.stage: deque()}
        self.progress = {stage: Progress() for stage in STAGES}

    def start(self):
        for task in self.tasks:
            key = f"ingest/{task.name}"
            step = Step(city=self.slug, stage=self.stage, task=task, entries={key: ("d", {})})
            self.ready[self.stage].append(step)
            self.progress[self.stage].total += 1

    def take(self, held):
        return None if self.stage in held or not self.ready[self.stage] else self._next()

    def _next(self):
        return self.ready[self.stage].popleft()

    def known(self, step):
        return None

    def finish(self, step, outcome):
        return [Entry(key=key, digest="d", outputs=()) for key in outcome.outputs]

    def committed(self, step, entries):
        self.progress[step.stage].done += 1
        self.done += [entry.key for entry in entries]

    def failed(self, step, reason):
        self.failures.append(reason)


@pytest.fixture(scope="module")
def threads():
    """Two workers in this process."""
    options = {"processes": False, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=2, **options) as cluster, Client(cluster) as client:
        yield client


def carried_out(client, tmp_path, *cities, **options):
    ledger, events = Ledger(tmp_path / "ledger"), []
    members = Members(client, check=dict, patience=options.pop("patience", 60))
    members.look()
    execution = Execution(cities, members, ledger, events.append, **options)
    try:
        execution.run()
    finally:
        ledger.close()
    return execution, events


def tries(folder, name):
    return len((folder / f"{name}.tries").read_text().split())


def test_steps_are_done_once_and_written_down(threads, tmp_path):
    city = City(tmp_path, [Noted(tmp_path, f"t{n}") for n in range(20)])
    carried_out(threads, tmp_path, city)
    assert sorted(city.done) == sorted(f"ingest/t{n}" for n in range(20))
    assert all(tries(tmp_path, f"t{n}") == 1 for n in range(20))
    assert len(Ledger(tmp_path / "ledger")) == 20


def test_two_cities_that_want_the_same_tile_share_one_task(threads, tmp_path):
    cities = [City(tmp_path, [Noted(tmp_path, "both")], slug=slug) for slug in ("one", "two")]
    carried_out(threads, tmp_path, *cities)
    assert [c.done for c in cities] == [["ingest/both"]] * 2
    assert tries(tmp_path, "both") == 1
    assert len(Ledger(tmp_path / "ledger")) == 1


def test_a_failing_step_is_tried_again_and_takes_no_other_along(threads, tmp_path):
    names = [Failing(tmp_path, "bad"), Recovering(tmp_path, "better"), Noted(tmp_path, "good")]
    city = City(tmp_path, names)
    execution, events = carried_out(threads, tmp_path, city)
    assert tries(tmp_path, "bad") == tries(tmp_path, "better") == 2
    assert sorted(city.done) == ["ingest/better", "ingest/good"]
    assert execution.attempts.retried == 2
    assert len(city.failures) == 1
    assert "is cut off" in city.failures[0]
    assert "secret" not in city.failures[0]
    assert [e.state for e in events if e.state == "failed"] == ["failed"]


def test_wrong_input_is_not_tried_again(threads, tmp_path):
    city = City(tmp_path, [Refused(tmp_path, "wrong")])
    carried_out(threads, tmp_path, city)
    assert tries(tmp_path, "wrong") == 1
    assert city.failures == ["never right"]


def test_publishing_is_never_tried_again_unasked(threads, tmp_path):
    city = City(tmp_path, [Failing(tmp_path, "product")], stage="publish")
    carried_out(threads, tmp_path, city)
    assert tries(tmp_path, "product") == 1


def test_a_straggler_gets_a_second_attempt_and_the_first_to_end_counts(
    threads, tmp_path, monkeypatch
):
    monkeypatch.setattr(attempts_module, "_SLOW_SECONDS", 1.0)
    fast = [Noted(tmp_path, f"t{n}") for n in range(8)]
    city = City(tmp_path, [*fast, Hanging(tmp_path, "slow")])
    began = time.monotonic()
    execution, _ = carried_out(threads, tmp_path, city)
    assert time.monotonic() - began < 20
    assert execution.attempts.copied == 1
    assert city.done.count("ingest/slow") == 1
    assert len(Ledger(tmp_path / "ledger")) == 9


def test_each_attempt_has_its_own_name(tmp_path):
    attempts = Attempts()
    city = City(tmp_path, [])
    step = Step(city="here", stage="ingest", task=None, entries={"ingest/a": ("d", {})})
    work = attempts.begin(city, step)
    first = work.next_name()
    attempts.started(work, Future(first))
    second = work.next_name()
    assert first == "ingest-here-00000000"
    assert second == "ingest-here-00000000-try2"


def test_what_no_worker_offers_is_said_instead_of_waited_for(threads, tmp_path):
    city = City(tmp_path, [Noted(tmp_path, "model")], stage="predict")
    with pytest.raises(UsageError, match="resource GPU"):
        carried_out(threads, tmp_path, city, resources={"predict": {"GPU": 1}}, patience=1.0)


def test_a_signal_lets_what_has_begun_end_and_begins_nothing(threads, tmp_path):
    city = City(tmp_path, [Slow(tmp_path, f"t{n}") for n in range(12)])
    stop = Stop(grace=20)
    threading.Timer(1.0, stop.ask, [signal.SIGTERM]).start()
    with pytest.raises(StoppedError, match="signal 15; run again") as caught:
        carried_out(threads, tmp_path, city, stop=stop)
    assert caught.value.exit_code == 143
    tried = len(list(tmp_path.glob("*.tries")))
    assert len(city.done) == tried == len(Ledger(tmp_path / "ledger"))
    assert tried < 12
    assert (tmp_path / "here" / "progress.json").exists()


def test_after_the_grace_nothing_is_waited_for(threads, tmp_path):
    city = City(tmp_path, [Hanging(tmp_path, "long")])
    stop = Stop(grace=0.5)

    def ask():
        while not (tmp_path / "long.tries").exists():
            time.sleep(0.05)
        # the scheduler passes on that it began
        time.sleep(1)
        stop.ask(signal.SIGINT)

    threading.Thread(target=ask).start()
    with pytest.raises(StoppedError, match="1 steps were not waited for") as caught:
        carried_out(threads, tmp_path, city, stop=stop)
    assert caught.value.exit_code == 130


def test_the_second_signal_ends_at_once():
    before = signal.getsignal(signal.SIGTERM)
    heard = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with drained() as stop:
            signal.raise_signal(signal.SIGTERM)
            assert stop.asked
            assert not heard
            signal.raise_signal(signal.SIGTERM)
            assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_task_that_kills_its_workers_is_given_up_and_the_others_go_on(tmp_path):
    settings = {"distributed.scheduler.allowed-failures": 2}
    import dask

    with dask.config.set(settings):
        options = {"processes": True, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
        with LocalCluster(n_workers=2, **options) as cluster, Client(cluster) as client:
            good = [Noted(tmp_path, f"t{n}") for n in range(6)]
            city = City(tmp_path, [Poison(tmp_path, "poison"), *good])
            carried_out(client, tmp_path, city)
    assert sorted(city.done) == sorted(f"ingest/t{n}" for n in range(6))
    assert city.failures == [
        "its worker died several times, out of memory perhaps; use smaller tiles"
    ]
    assert tries(tmp_path, "poison") == 3
