"""Gate, pause and breaker of a host."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapper.errors import ReadError, UsageError
from mapper.transport.hosts import Breaker, Host, find_host
from mapper.transport.opening import reading
from mapper.transport.policy import NetworkPolicy, current_policy
from mapper.transport.traffic import traffic
from mapper.transport.whole import fetch
from tests.transport.hostile import Faults, serving


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 5))
def test_the_breaker_is_open_after_failures_in_a_row_and_no_others(outcomes, limit):
    breaker, row = Breaker(limit, 10.0), 0
    for good in outcomes:
        row = 0 if good else row + 1
        breaker.succeed() if good else breaker.fail(0.0)
        assert breaker.is_open == (row >= limit)
        assert breaker.admit(0.0) == (row < limit)


@given(st.integers(1, 5), st.floats(0.1, 100), st.booleans())
def test_one_request_on_trial_decides(limit, pause, good):
    breaker = Breaker(limit, pause)
    for _ in range(limit):
        breaker.fail(5.0)
    assert not breaker.admit(5.0 + pause * 0.99)
    later = 5.0 + pause * 1.01
    assert breaker.admit(later)
    assert not breaker.admit(later), "one at a time"
    breaker.succeed() if good else breaker.fail(later)
    breaker.leave()
    assert breaker.admit(later) == good
    assert breaker.admit(later + pause * 1.01)


def test_a_trial_that_tells_nothing_lets_the_next_one_try():
    breaker = Breaker(1, 1.0)
    breaker.fail(0.0)
    assert breaker.admit(2.0)
    breaker.leave()
    assert breaker.admit(2.0)


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_than_so_many_have_a_turn(most):
    host, running, seen, lock = Host("a", NetworkPolicy(per_host=most)), [], [], threading.Lock()

    def work():
        with host.turn():
            with lock:
                running.append(1)
                seen.append(len(running))
            time.sleep(0.005)
            with lock:
                running.pop()

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 12
    assert max(seen) == most


def test_the_server_sees_no_more_at_once_than_the_gate_lets_through(tiff, monkeypatch):
    monkeypatch.setenv("MAPPER_NETWORK__PER_HOST", "3")
    monkeypatch.setenv("MAPPER_NETWORK__PIECE_BYTES", "40000")
    with serving({f"/{n}.tif": tiff for n in range(4)}, Faults(latency_s=0.005)) as server:
        threads = [
            threading.Thread(
                target=reading, args=(f"{server.address}/{n}.tif", lambda data: data.read())
            )
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.served.requests > 60
        assert server.served.most_at_once == 3


def test_a_dead_host_is_left_alone_and_named(monkeypatch):
    monkeypatch.setenv("MAPPER_NETWORK__BREAKER_FAILURES", "8")
    monkeypatch.setenv("MAPPER_NETWORK__BREAKER_PAUSE_S", "60")
    monkeypatch.setenv("MAPPER_NETWORK__BREAKER_WAIT_S", "0.1")
    with serving({"/a": b"1"}, Faults(status=500, times=9**9)) as server:
        with pytest.raises(ReadError, match="answers 500"):
            fetch(f"{server.address}/a")
        with pytest.raises(ReadError, match="left alone after 8 failures") as caught:
            fetch(f"{server.address}/a")
        assert server.address.removeprefix("http://") in str(caught.value)
        begin = time.monotonic()
        with pytest.raises(ReadError, match="left alone"):
            fetch(f"{server.address}/a")
        assert 0.05 < time.monotonic() - begin < 1
        assert server.served.requests == 8


def test_a_host_that_comes_back_is_used_again(monkeypatch):
    monkeypatch.setenv("MAPPER_NETWORK__BREAKER_FAILURES", "3")
    monkeypatch.setenv("MAPPER_NETWORK__BREAKER_PAUSE_S", "0.2")
    with serving({"/a": b"1"}, Faults(status=500, times=3)) as server, traffic() as seen:
        assert fetch(f"{server.address}/a") == b"1"
        assert server.served.times[3] - server.served.times[2] >= 0.19
        assert seen.waited >= 0.15
        assert (seen.requests, seen.retries) == (4, 3)


def test_jobs_run_at_once_and_threads_end_with_the_program():
    host, started = find_host("jobs", NetworkPolicy(per_host=4)), threading.Barrier(4, timeout=5)
    done = threading.Semaphore(0)

    def job():
        started.wait()
        done.release()

    for _ in range(8):
        host.start(job)
    assert all(done.acquire(timeout=5) for _ in range(8))
    mine = [thread for thread in threading.enumerate() if thread.name == "fetch jobs"]
    assert len(mine) == 4
    assert all(thread.daemon for thread in mine)


def test_the_environment_sets_limits(monkeypatch):
    monkeypatch.setenv("MAPPER_NETWORK__PER_HOST", "5")
    monkeypatch.setenv("MAPPER_NETWORK__READ_S", "1.5")
    assert current_policy().per_host == 5
    assert current_policy().read_s == 1.5
    assert current_policy().connect_s == 1
    monkeypatch.setenv("MAPPER_NETWORK__PER_HOST", "many")
    with pytest.raises(UsageError, match="MAPPER_NETWORK__PER_HOST is 'many'"):
        current_policy()
    monkeypatch.setenv("MAPPER_NETWORK__PER_HOST", "0")
    with pytest.raises(UsageError, match="above 0"):
        current_policy()
