"""What Prometheus is told."""

import socket
import urllib.request

import pytest

from mapper.errors import UsageError
from mapper.events import Event, ignore
from mapper.run.watch import Rate, Watch, watched


def step(state="done", stage="predict", done=0, total=0, **data):
    return Event(
        kind="step",
        message="",
        city="here",
        stage=stage,
        state=state,
        done=done,
        total=total,
        data=data,
    )


def values(watch):
    """By name and labels, the run's apart."""
    return {
        (sample.name, *(v for k, v in sorted(sample.labels.items()) if k != "run")): sample.value
        for family in watch.registry.collect()
        for sample in family.samples
    }


def test_steps_are_counted_by_city_and_stage():
    heard = []
    watch = Watch(heard.append, "maps")
    events = [step("planned", done=3, total=10), step(done=4, total=10, seconds=2.0, pixels=100)]
    events += [
        step("retried"),
        step("failed"),
        step(done=5, total=12, stage="ingest", bytes_read=7),
    ]
    for event in events:
        watch(event)
    assert heard == events
    found = values(watch)
    assert found["mapper_steps", "here", "predict"] == 10
    assert found["mapper_steps_done_total", "here", "predict"] == 4
    assert found["mapper_steps_done_total", "here", "ingest"] == 5
    assert found["mapper_retries_total", "here", "predict"] == 1
    assert found["mapper_steps_failed_total", "here", "predict"] == 1
    assert found["mapper_pixels_total", "here"] == 100
    assert found["mapper_read_bytes_total", "here"] == 7
    assert found["mapper_step_seconds_total", "predict"] == 2


def test_rates_are_of_the_last_minute():
    now = [100.0]
    rate = Rate(lambda: now[0])
    now[0] = 110.0
    rate.add(50)
    assert rate.value() == 5
    now[0] = 165.0
    rate.add(60)
    assert rate.value() == pytest.approx(110 / 60)
    now[0] = 171.0
    assert rate.value() == 1
    now[0] = 400.0
    assert rate.value() == 0


def test_the_model_is_busy_for_a_share_of_the_workers_that_may_run_it():
    now = [0.0]
    watch = Watch(ignore, "maps", lambda: now[0])
    watch(Event(kind="workers", message="", data={"workers": 5, "predicting": 2}))
    now[0] = 10.0
    watch(step(model_seconds=5.0, pixels=1000))
    found = values(watch)
    assert found["mapper_model_busy",] == 0.25
    assert found["mapper_pixels_per_second",] == 100
    assert found["mapper_workers",] == 5


def test_it_is_served_while_the_run_goes_on_and_no_longer():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with watched(ignore, address, "maps") as listener:
        listener(step(done=1, total=2))
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        assert 'mapper_steps_done_total{city="here",run="maps",stage="predict"} 1.0' in text
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{address}/metrics", timeout=5)


@pytest.mark.parametrize("address", ["9464", "127.0.0.1", ":1", "127.0.0.1:x"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(UsageError, match="--metrics"), watched(ignore, address, "maps"):
        pass


def test_a_taken_port_is_said():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UsageError, match="in use"), watched(ignore, address, "maps"):
            pass


def test_without_an_address_nothing_is_served():
    with watched(ignore, None, "maps") as listener:
        assert listener is ignore
