"""Whole files, fingerprints, addresses, the session, proxies and tokens."""

import hashlib
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import requests

from mapper.errors import ReadError
from mapper.run.mirror import files as mirrorfiles
from mapper.transport import tokens
from mapper.transport.address import host_name, redact, scheme, unsigned
from mapper.transport.opening import reading
from mapper.transport.searching import retries, session
from mapper.transport.traffic import counting
from mapper.transport.tries import AbsentError, retry_after
from mapper.transport.web import Question, ask
from mapper.transport.whole import copy_file, fetch, fingerprint, size_of
from tests.transport.hostile import Faults, forwarding, raw_server, serving
from tests.transport.test_faults import BLOBS, tokens_of  # noqa: F401

BODY = bytes(range(256)) * 4000
CHECKSUM = "1220" + hashlib.sha256(BODY).hexdigest()


@pytest.mark.parametrize(
    ("href", "shown", "host"),
    [
        ("https://host/a/b.tif?sig=x&se=2030", "https://host/a/b.tif", "host"),
        ("https://user:word@Host:8080/a.tif", "https://Host:8080/a.tif", "host:8080"),
        ("s3://bucket/key.tif", "s3://bucket/key.tif", "s3://bucket"),
        ("/data/odd?name.tif", "/data/odd?name.tif", None),
    ],
)
def test_addresses(href, shown, host):
    assert unsigned(href) == shown == unsigned(shown)
    assert host is None or host_name(href) == host
    assert scheme(href) == ("" if host is None else href.split(":")[0])


def test_a_message_hides_what_queries_say():
    text = redact("GET https://user:s3cr3t@h/a.tif?st=1&sig=s3cr3t failed")
    assert "s3cr3t" not in text
    assert "a.tif" in text


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("7", 7, 7),
        (None, None, None),
        ("soon", None, None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
    ],
)
def test_retry_after(text, least, most):
    assert retry_after(text) == least == most


def test_fetch(tmp_path):
    (tmp_path / "a").write_bytes(b"near")
    with serving({"/a": BODY}, Faults(cut=2)) as server:
        assert fetch(f"{server.address}/a?x=1") == BODY
        with pytest.raises(AbsentError, match="/b is not there"):
            fetch(f"{server.address}/b")
    assert fetch(str(tmp_path / "a")) == b"near"
    with pytest.raises(ReadError, match="is not there"):
        fetch(str(tmp_path / "b"))


@pytest.mark.parametrize("faults", [{}, {"cut": 3}, {"longer": 2}, {"status": 503, "times": 2}])
def test_a_copy_is_whole(faults, tmp_path):
    with serving({"/a.tif": BODY}, Faults(**faults)) as server:
        copy_file(f"{server.address}/a.tif", tmp_path / "new" / "a.tif", CHECKSUM)
    assert (tmp_path / "new" / "a.tif").read_bytes() == BODY
    assert len(list((tmp_path / "new").iterdir())) == 1


@pytest.mark.parametrize(
    ("faults", "expected", "says"),
    [
        ({"cut": 999}, "", "tried 6 times"),
        ({"flip": 999}, CHECKSUM, "its item promises 1220"),
        ({"status": 404, "times": 9}, "", "not there"),
        ({}, "1114" + "0" * 40, "not SHA-256"),
    ],
)
def test_what_is_not_whole_is_not_copied(faults, expected, says, tmp_path):
    (tmp_path / "a.tif").write_bytes(b"old")
    with (
        serving({"/a.tif": BODY}, Faults(**faults)) as server,
        pytest.raises(ReadError, match=says),
    ):
        copy_file(f"{server.address}/a.tif", tmp_path / "a.tif", expected)
    assert (tmp_path / "a.tif").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("faults", "says", "asked"),
    [
        ({"gzip": True}, "/a.tif is sent gzip encoded", 1),
        ({"status": 203, "times": 9}, "answers 203", 6),
    ],
)
def test_what_is_not_the_file_itself_is_neither_fetched_nor_copied(faults, says, asked, tmp_path):
    with serving({"/a.tif": BODY}, Faults(**faults)) as server:
        href = f"{server.address}/a.tif?sig=s3cr3t"
        with pytest.raises(ReadError, match=says) as caught:
            fetch(href)
        assert "s3cr3t" not in str(caught.value)
        assert server.served.requests == asked
        server.served.requests = 0
        with pytest.raises(ReadError, match=says):
            copy_file(href, tmp_path / "a.tif")
        assert server.served.requests == asked
    assert not list(tmp_path.iterdir())


def test_an_answer_without_a_length_is_not_fetched():
    with (
        raw_server(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhal") as (base, asked),
        pytest.raises(ReadError, match="does not say how long"),
    ):
        fetch(f"{base}/a")
    assert len(asked) == 6


FULL = """
import resource, sys
from pathlib import Path
from mapper.errors import StoreError
from mapper.run.mirror.files import copy_asset
from mapper.transport.whole import copy_file

folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
for href in sys.argv[2:]:
    try:
        copy_file(href, folder / "a.tif")
    except OSError as reason:
        print(reason.strerror)
    try:
        copy_asset(folder, href)
    except StoreError as reason:
        print(reason)
"""


def test_a_full_disk_is_no_fault_of_the_network(tmp_path):
    """Files of 1 MB where the system allows 0.3 MB, from the web and from a store."""
    with serving({"/scenes/a.tif": BODY}) as web, serving({"/scenes/a.tif": BODY}) as store:
        names = {"AWS_ENDPOINT_URL": store.address, "AWS_NO_SIGN_REQUEST": "YES"}
        told = subprocess.run(
            [sys.executable, "-c", FULL, str(tmp_path), f"{web.address}/scenes/a.tif",
             "s3://scenes/a.tif"],
            env={**os.environ, **names, "AWS_REGION": "r"}, check=True, capture_output=True,
            text=True,
        )  # fmt: skip
    assert told.stdout.count("File too large") == 4, told
    assert told.stdout.count("could not be written") == 2
    assert web.served.requests == 2, "one for each copy: nothing is tried again"
    pieces = [start for _, start, _ in store.served.ranges]
    assert pieces == 2 * [0, 131072, 262144]
    assert not list(tmp_path.rglob("*.part"))


def test_sizes(tmp_path):
    with serving({"/a.tif": BODY}) as server:
        assert size_of(f"{server.address}/a.tif") == len(BODY)
        server.faults.no_head = True
        assert size_of(f"{server.address}/a.tif") == len(BODY)
        with pytest.raises(ReadError):
            size_of(f"{server.address}/b.tif")
        assert mirrorfiles.size_of(f"{server.address}/a.tif") == len(BODY)
        assert mirrorfiles.size_of(f"{server.address}/b.tif") == -1
    (tmp_path / "a.tif").write_bytes(b"123")
    assert size_of(str(tmp_path / "a.tif")) == 3
    with pytest.raises(ReadError, match="is not there"):
        size_of(str(tmp_path / "b.tif"))
    with raw_server(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n") as (base, _):
        assert size_of(f"{base}/a.tif") == -1


def test_a_subscription_key_stays_with_its_host():
    """Sent on to an address of the same host, and to no other's."""
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    with raw_server(body) as (far, asked):
        moved = f"HTTP/1.1 302 Found\r\nLocation: {far}/b\r\nContent-Length: 0\r\n"
        with raw_server(f"{moved}Connection: close\r\n\r\n".encode()) as (near, first):
            headers = {"Ocp-Apim-Subscription-Key": "s3cr3t", "X-Plain": "1"}
            assert ask(Question(href=f"{near}/a", headers=headers), counting()).body == b"ok"
    assert "s3cr3t" in str(first)
    assert "X-Plain" in str(asked)
    assert "s3cr3t" not in str(asked)


def test_fingerprints(tmp_path):
    with serving({"/a.tif": BODY}) as server:
        href = f"{server.address}/a.tif?sig=s3cr3t"
        assert fingerprint(href) == "one"
        server.faults.no_etag = True
        assert fingerprint(href) == str(len(BODY))
        server.faults.no_head = True
        before = server.served.bodies
        assert fingerprint(href) == str(len(BODY))
        assert server.served.bodies == before + 1, "a range of one byte"
        server.faults.no_etag = False
        assert fingerprint(href) == "one"
        with pytest.raises(AbsentError):
            fingerprint(f"{server.address}/b.tif")
        server.faults.status, server.faults.times = 403, 10**6
        with pytest.raises(ReadError, match="refused") as caught:
            fingerprint(href)
        assert "s3cr3t" not in str(caught.value)
    path = tmp_path / "a.tif"
    path.write_bytes(b"123")
    assert fingerprint(str(path)).startswith("3-")
    with pytest.raises(ReadError, match="is not there"):
        fingerprint(str(tmp_path / "b.tif"))


def test_the_session_tries_again_and_honours_pauses():
    assert retries().total == 5
    assert retries().respect_retry_after_header
    assert retries().retry_after_max == 3
    with serving({"/a": b"1"}, Faults(status=503, times=2)) as server:
        assert session().get(f"{server.address}/a", timeout=5).status_code == 200
        assert server.served.requests == 3


def test_a_proxy_is_used_and_passed_by(tiff, pixels, monkeypatch):
    with serving({"/a.tif": tiff}) as server, forwarding({"far.example": ""}) as (proxy, log):
        log.known["far.example"] = server.address.removeprefix("http://")
        monkeypatch.setenv("HTTP_PROXY", proxy.replace("http://", "http://me:word@"))
        got = reading("http://far.example/a.tif", lambda data: data.read())
        assert np.array_equal(got, pixels)
        assert len(log.passed) == server.served.requests > 1
        assert set(log.authorised) == {"Basic bWU6d29yZA=="}
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        before = len(log.passed)
        reading(f"{server.address}/a.tif", lambda data: data.read())
        assert len(log.passed) == before


def test_a_dead_proxy_is_named_without_its_password(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://me:s3cr3t@127.0.0.1:9")
    with pytest.raises(ReadError, match="tried 6 times") as caught:
        fetch("http://far.example/a")
    assert "s3cr3t" not in str(caught.value)


def test_an_address_that_is_none(tmp_path):
    with pytest.raises(ReadError, match=r"cannot be reached|cannot be read"):
        fetch("http://[::1/a?sig=s3cr3t".replace("[", ""))


class TestTokens:
    def test_one_a_container_from_many_threads_and_renewed_in_time(self, tokens_of):  # noqa: F811
        href = f"https://{BLOBS}/c/a.tif"
        with serving({}) as server:
            tokens_of(server.address)
            found = []
            threads = [
                threading.Thread(target=lambda: found.append(tokens.signed(href))) for _ in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(set(found)) == 1
            assert found[0].startswith(f"{href}?st=1&se=2&sp=rl&sig=s3cr3t")
            assert tokens.signed(found[0]) == found[0]
            assert server.served.tokens == 1
            for token in tokens._package().sas.TOKEN_CACHE.values():
                token.expiry = datetime.now(UTC) + timedelta(seconds=80)
            assert tokens.signed(href) != found[0]
            assert server.served.tokens == 2

    def test_a_refused_one_is_renewed_once_for_all(self, tokens_of):  # noqa: F811
        href = f"https://{BLOBS}/c/a.tif"
        with serving({}) as server:
            tokens_of(server.address)
            old = tokens.signed(href)
            new = tokens.resign(href, old)
            assert new != old
            assert tokens.resign(href, old) == new, "another thread's new one serves"
            assert server.served.tokens == 2
            assert tokens.resign(href) != new

    @pytest.mark.parametrize(
        "href",
        [
            "https://blob.core.windows.net.example.com/c/a.tif",
            f"https://example.com/{BLOBS}/a.tif",
            "s3://bucket/a.tif",
            "/data/a.tif",
        ],
    )
    def test_other_hosts_get_none(self, href):
        assert tokens.signed(href) == href == tokens.resign(href)

    def test_a_forked_child_can_sign_whatever_its_parent_does(self):
        held, done = threading.Event(), threading.Event()

        def sign():
            with tokens._signing:
                held.set()
                done.wait(20)

        thread = threading.Thread(target=sign)
        thread.start()
        held.wait(20)
        child = os.fork()
        if child == 0:
            os._exit(0 if tokens._signing.acquire(timeout=2) else 1)
        status = os.waitpid(child, 0)[1]
        done.set()
        thread.join()
        assert status == 0

    def test_a_service_that_refuses_is_a_read_error(self, tokens_of):  # noqa: F811
        with serving({}) as server:
            tokens_of(f"{server.address}/nowhere")
            with pytest.raises(ReadError, match="gets no token"):
                fingerprint(f"https://{BLOBS}/c/a.tif")


def test_the_session_is_one():
    assert session() is session()
    assert isinstance(session(), requests.Session)
