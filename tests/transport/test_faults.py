"""One table of what a network can do, and what must happen then."""

import contextlib
import re
import time
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio

from mapper.errors import ReadError
from mapper.transport.opening import open_raster, reading
from mapper.transport.policy import NetworkPolicy
from mapper.transport.traffic import traffic
from tests.transport.hostile import Faults, forwarding, serving

RIGHT = "right pixels"
DOCUMENT = Path(__file__).parents[2] / "docs" / "network.md"
BLOBS = "account.blob.core.windows.net"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A fault, and either right pixels or what the error says."""

    injected: str
    faults: dict
    outcome: str = RIGHT
    most: int = 40
    """Requests that are allowed."""
    least: int = 0
    seconds: float = 4.0
    """In which it must be over."""


CASES = [
    Case(injected="nothing", faults={}, most=10),
    Case(
        injected="429 with Retry-After in seconds",
        faults={"status": 429, "times": 1, "after": "seconds"},
    ),
    Case(
        injected="503 with Retry-After as a date",
        faults={"status": 503, "times": 1, "after": "date", "after_s": 1.5},
    ),
    Case(
        injected="429 with a Retry-After of an hour",
        faults={"status": 429, "times": 9, "after": "seconds", "after_s": 3600},
        outcome=r"asks to wait 3600 s \(Retry-After\)",
        most=1,
    ),
    Case(injected="503, five times", faults={"status": 503, "times": 5, "skip": 1}),
    Case(
        injected="503, always",
        faults={"status": 503, "times": 999},
        outcome=r"answers 503 \(tried 6 times\)",
        most=6,
        least=6,
    ),
    Case(
        injected="404",
        faults={"status": 404, "times": 999},
        outcome=r"is not there \(404\)",
        most=1,
    ),
    Case(injected="410", faults={"status": 410, "times": 9}, outcome=r"\(410\)", most=1),
    Case(
        injected="404 after the header was read",
        faults={"status": 404, "times": 999, "skip": 1},
        outcome=r"is not there \(404\)",
    ),
    Case(
        injected="403, no token would help",
        faults={"status": 403, "times": 9},
        outcome=r"is refused \(403\)",
        most=1,
    ),
    Case(injected="body ends in the middle, three times", faults={"cut": 3}, least=4),
    Case(
        injected="body ends in the middle, always",
        faults={"cut": 999},
        outcome=r"tried 6 times",
    ),
    Case(injected="Content-Length too long, twice", faults={"longer": 2, "skip": 1}),
    Case(
        injected="Content-Length too long, always",
        faults={"longer": 999, "skip": 1},
        outcome="more than the",
    ),
    Case(injected="Content-Length too short, twice", faults={"shorter": 2}),
    Case(
        injected="Content-Length too short, always",
        faults={"shorter": 999},
        outcome=r"were asked for",
    ),
    Case(injected="other bytes than asked for, twice", faults={"shift": 2}),
    Case(
        injected="other bytes than asked for, always",
        faults={"shift": 999, "skip": 1},
        outcome=r"where \d+ to \d+ were asked for",
    ),
    Case(injected="file is cut off", faults={"truncate": 300_000}, outcome="it is cut off"),
    Case(
        injected="file is cut off in its header",
        faults={"truncate": -1},
        outcome="cannot be read",
    ),
    Case(injected="silence of 60 s, twice", faults={"sleep_s": 60, "sleeps": 2, "skip": 1}),
    Case(
        injected="silence of 60 s, always",
        faults={"sleep_s": 60},
        outcome=r"timed out.*tried 6 times",
    ),
    Case(injected="flipped byte, once", faults={"flip": 1}),
    Case(
        injected="flipped byte, always",
        faults={"flip": 999},
        outcome="is damaged|IReadBlock failed",
    ),
    Case(
        injected="server does not do ranges, long file",
        faults={"ignore_range": True},
        outcome="does not send parts of files",
        most=1,
    ),
    Case(
        injected="file is replaced while it is read",
        faults={"new_etag_from": 3},
        outcome="was replaced while it was read",
    ),
    Case(injected="compressed in transit", faults={"gzip": True}, outcome="gzip encoded", most=1),
    Case(injected="no ETag", faults={"no_etag": True}, most=10),
    Case(injected="token refused as too old, new one granted", faults={"token_life_s": 0.25}),
    Case(
        injected="every token refused",
        faults={"token_life_s": 1e-9},
        outcome=r"refused \(403\): with a new token too",
    ),
]


@pytest.fixture
def tokens_of(monkeypatch):
    """Where tokens come from, and no token left from before."""
    from mapper.transport.tokens import _package

    settings, cache = _package().settings.Settings, _package().sas.TOKEN_CACHE

    def use(address):
        monkeypatch.setenv("PC_SDK_SAS_URL", f"{address}/token")
        settings.get.cache_clear()

    cache.clear()
    yield use
    settings.get.cache_clear()
    cache.clear()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.injected)
def test_a_fault_is_mended_or_is_an_error(case, pixels, tiff, monkeypatch, tokens_of):
    faults = Faults(**case.faults)
    if faults.truncate == -1:
        faults.truncate = len(tiff) - 100
    monkeypatch.setenv("MAPPER_NETWORK__WHOLE_BYTES", "65536")
    with serving({"/c/a.tif": tiff}, faults) as server, traffic() as seen:
        host = server.address.removeprefix("http://")
        tokens_of(server.address)
        with forwarding({BLOBS: host}) as (proxy, _):
            href = f"{server.address}/c/a.tif?sig=s3cr3t"
            if faults.token_life_s:
                href = f"http://{BLOBS}/c/a.tif"
                monkeypatch.setenv("HTTP_PROXY", proxy)
                monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            check(case, href, pixels, faults)
        assert seen.waited < case.seconds * 16
        end = time.monotonic() + 2
        while seen.requests > server.served.requests and time.monotonic() < end:
            time.sleep(0.01)  # pieces of other threads are still on their way
        asked = server.served.by_path["/c/a.tif"]
        assert case.least <= asked <= case.most
        if not faults.token_life_s:
            assert seen.requests == asked


def check(case, href, pixels, faults):
    """Read once; right pixels, or the error without a secret."""
    if case.outcome == RIGHT:
        assert np.array_equal(reading(href, lambda data: slowly(data, faults)), pixels)
        return
    with pytest.raises(ReadError) as caught:
        reading(href, lambda data: slowly(data, faults))
    assert re.search(case.outcome, str(caught.value), re.DOTALL), str(caught.value)
    assert "s3cr3t" not in str(caught.value)
    assert "/c/a.tif" in str(caught.value)


def slowly(dataset, faults):
    """Both bands; a token ends between them where tokens end."""
    first = dataset.read(1)
    if faults.token_life_s:
        time.sleep(faults.token_life_s)
    return np.stack([first, dataset.read(2)])


def shown(value):
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_every_limit_is_documented():
    text = DOCUMENT.read_text()
    for limit in fields(NetworkPolicy):
        assert f"| `MAPPER_NETWORK__{limit.name.upper()}` | {shown(limit.default)} |" in text, (
            limit.name
        )


def test_the_table_is_documented():
    text = DOCUMENT.read_text()
    rows = re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", text, re.MULTILINE)
    rows = [row for row in rows if not row[0].startswith("`MAPPER_")]
    listed = [row[0] for row in rows[rows.index(("what is injected", "what happens")) + 1 :]]
    assert [case.injected for case in CASES] == listed
    ends = dict(rows)
    for case in CASES:
        assert ends[case.injected].startswith("error") == (case.outcome != RIGHT), case


def test_a_fault_while_opening_and_while_reading_is_raised_by_the_context(tiff):
    with (
        serving({"/a.tif": tiff}, Faults(status=404, times=99, skip=1)) as server,
        pytest.raises(ReadError, match="not there"),
        open_raster(f"{server.address}/a.tif") as data,
    ):
        data.read(1)


def test_after_a_failure_nothing_more_is_asked_for(tiff):
    with serving({"/a.tif": tiff}, Faults(status=404, times=999, skip=1)) as server:
        asked = []

        def insist(data):
            for _ in range(5):
                with contextlib.suppress(rasterio.errors.RasterioError):
                    data.read(1)
                asked.append(server.served.requests)

        with pytest.raises(ReadError):
            reading(f"{server.address}/a.tif", insist)
        assert len(asked) == 5
        assert set(asked[1:]) == {server.served.requests}


def test_an_uncompressed_file_does_not_read_as_zeros(pixels):
    from tests.transport.conftest import write_tiff

    body = write_tiff(pixels, compress=None)
    with (
        serving({"/a.tif": body}, Faults(status=404, times=999, skip=1)) as server,
        pytest.raises(ReadError, match="not there"),
    ):
        reading(f"{server.address}/a.tif", lambda data: data.read())


def test_an_error_of_the_readers_own_stays(tiff):
    with (
        serving({"/a.tif": tiff}) as server,
        pytest.raises(ValueError, match="mine"),
        open_raster(f"{server.address}/a.tif"),
    ):
        raise ValueError("mine")


def test_one_caller_pauses_the_whole_host(tiff):
    """Every request of the host waits out a Retry-After, not only the one that got it."""
    faults = Faults(status=429, times=1, after="seconds", skip=2)
    with serving({"/a.tif": tiff}, faults) as server:
        reading(f"{server.address}/a.tif", lambda data: data.read())
        times = server.served.times
        begun = [b - a for a, b in pairwise(times)]
        assert max(begun) > 0.9
        late = [t for t in times if t > times[0] + 0.5]
        assert len(late) >= 1
        assert len([t for t in times if t <= times[0] + 0.5]) <= 16


def test_a_small_file_is_taken_from_a_server_without_ranges(pixels):
    from tests.transport.conftest import write_tiff

    body = write_tiff(pixels[:1, :256, :256])
    with serving({"/a.tif": body}, Faults(ignore_range=True)) as server:
        got = reading(f"{server.address}/a.tif", lambda data: data.read())
        assert np.array_equal(got, pixels[:1, :256, :256])
        assert server.served.requests == 1
