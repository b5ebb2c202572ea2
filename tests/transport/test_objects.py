"""Buckets of a real S3 server in a process of its own, private and not."""

import hashlib
import os
import socket
import subprocess
import sys
import time

import numpy as np
import obstore.store
import pytest
import requests

from mapper.errors import ReadError
from mapper.transport.objects import _s3, _s3_credentials, bucket_region
from mapper.transport.opening import reading
from mapper.transport.traffic import traffic
from mapper.transport.tries import AbsentError
from mapper.transport.whole import copy_file, fetch, fingerprint
from tests.transport.hostile import forwarding, serving

ACCESS = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "s3cr3t"}


@pytest.fixture(scope="module")
def endpoint():
    """moto's server; it lets nobody read what an owner wrote without signing."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                requests.get(f"{address}/moto-api/", timeout=1)
                break
            except requests.ConnectionError:
                time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait()


def put(endpoint, key, body):
    """Write an object as the bucket's owner, so that it is private."""
    store = obstore.store.S3Store(
        "scenes",
        access_key_id="me",
        secret_access_key=ACCESS["AWS_SECRET_ACCESS_KEY"],
        region="us-east-1",
        endpoint=endpoint,
        client_options={"allow_http": True},
    )
    obstore.put(store, key, body)


@pytest.fixture
def bucket(endpoint, tiff, monkeypatch):
    """A private bucket with one raster, and credentials for it in the environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    requests.put(f"{endpoint}/scenes", timeout=5)
    put(endpoint, "a/b.tif", tiff)
    for name, value in {**ACCESS, "AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    return "s3://scenes"


@pytest.mark.slow
def test_a_bucket_reads_as_a_file_does(bucket, pixels, tiff, tmp_path):
    with traffic() as seen:
        for _ in range(2):
            got = reading(f"{bucket}/a/b.tif", lambda data: data.read())
            assert np.array_equal(got, pixels)
    assert seen.received == len(tiff)
    assert seen.hosts == {"s3://scenes"}
    assert fetch(f"{bucket}/a/b.tif") == tiff
    copy_file(f"{bucket}/a/b.tif", tmp_path / "b.tif")
    assert (tmp_path / "b.tif").read_bytes() == tiff
    assert fingerprint(f"{bucket}/a/b.tif") == hashlib.md5(tiff).hexdigest()
    with pytest.raises(AbsentError, match=r"s3://scenes/a/c.tif is not there"):
        reading(f"{bucket}/a/c.tif", lambda data: data.read())


@pytest.mark.slow
def test_a_private_bucket_refuses_who_has_no_credentials(bucket, monkeypatch):
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    with pytest.raises(ReadError, match=r"s3://scenes/a/b.tif is refused"):
        reading(f"{bucket}/a/b.tif", lambda data: data.read())


@pytest.mark.slow
def test_a_replaced_object_is_an_error(bucket, endpoint, tiff):
    def replace_and_read(data):
        put(endpoint, "a/b.tif", tiff[:-1] + b"x")
        return data.read()

    with pytest.raises(ReadError, match="was replaced while it was read"):
        reading(f"{bucket}/a/b.tif", replace_and_read)


@pytest.fixture
def recorder(tiff, monkeypatch):
    """A server that tells which headers a store sent."""
    from tests.transport import hostile

    heard = []
    original = hostile._Handler._answer

    def answer(handler):
        heard.append(dict(handler.headers))
        original(handler)

    monkeypatch.setattr(hostile._Handler, "_answer", answer)
    with serving({"/scenes/a.tif": tiff}) as server:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        monkeypatch.setenv("AWS_REGION", "eu-central-1")
        monkeypatch.setenv("HOME", "/nonexistent")
        yield server, heard


def test_who_reads_and_who_pays_is_said(recorder, monkeypatch):
    _, heard = recorder
    with pytest.raises(ReadError):
        fetch("s3://scenes/nothing.tif")
    assert not any(name.lower() == "authorization" for name in heard[0]), "no credentials: unsigned"
    for name, value in ACCESS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    with pytest.raises(ReadError):
        fetch("s3://scenes/nothing.tif")
    last = {name.lower(): value for name, value in heard[-1].items()}
    assert last["x-amz-request-payer"] == "requester"
    assert "Credential=me/" in last["authorization"]
    assert "eu-central-1" in last["authorization"]


@pytest.mark.parametrize(("status", "says", "asked"), [(403, "is refused", 1), (503, "503", 6)])
def test_a_store_that_refuses_or_is_ill(recorder, status, says, asked):
    server, _ = recorder
    server.faults.status, server.faults.times = status, 999
    with pytest.raises(ReadError, match=says) as caught:
        reading("s3://scenes/a.tif", lambda data: data.read())
    assert server.served.requests == asked
    assert "s3://scenes/a.tif" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_a_long_object_comes_in_pieces_and_a_broken_one_alone_again(recorder, tiff, tmp_path):
    """The store's timeout covers a whole body: no body is longer than a piece."""
    server, _ = recorder
    server.faults.skip, server.faults.cut = 3, 1
    copy_file("s3://scenes/a.tif", tmp_path / "a.tif")
    assert (tmp_path / "a.tif").read_bytes() == tiff
    starts = [start for _, start, _ in server.served.ranges]
    step = 131072
    assert starts == sorted([*range(0, len(tiff), step), 2 * step])
    assert max(end - start for _, start, end in server.served.ranges) == step
    server.served.ranges.clear()
    server.faults.new_etag_from = server.served.requests + 4
    with pytest.raises(ReadError, match="was replaced while it was read"):
        fetch("s3://scenes/a.tif")
    assert len(server.served.ranges) == 3


def test_an_empty_object_is_empty(recorder, tiff, monkeypatch):
    del tiff
    with serving({"/scenes/none": b""}) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        assert fetch("s3://scenes/none") == b""


def test_another_service_is_named_as_gdal_does(recorder, tiff, monkeypatch):
    server, _ = recorder
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_S3_ENDPOINT", server.address.removeprefix("http://"))
    monkeypatch.setenv("AWS_HTTPS", "NO")
    monkeypatch.setenv("AWS_VIRTUAL_HOSTING", "FALSE")
    assert fetch("s3://scenes/a.tif") == tiff
    assert set(server.served.by_path) == {"/scenes/a.tif"}


@pytest.mark.parametrize(
    ("values", "endpoint", "virtual"),
    [
        ({}, None, None),
        ({"AWS_S3_ENDPOINT": "h:1", "AWS_VIRTUAL_HOSTING": "FALSE"}, "https://h:1", None),
        (
            {"AWS_S3_ENDPOINT": "h", "AWS_VIRTUAL_HOSTING": "NO", "AWS_HTTPS": "NO"},
            "http://h",
            None,
        ),
        ({"AWS_S3_ENDPOINT": "h"}, "https://b.h", True),
        ({"AWS_S3_ENDPOINT": "h", "AWS_VIRTUAL_HOSTING": "TRUE"}, "https://b.h", True),
        ({"AWS_ENDPOINT_URL": "http://h:1"}, "http://h:1", None),
        ({"AWS_ENDPOINT_URL": "http://h:1", "AWS_S3_ENDPOINT": "g"}, "http://h:1", None),
        ({"AWS_ENDPOINT_URL": "http://h", "AWS_VIRTUAL_HOSTING": "YES"}, "http://b.h", True),
    ],
)
def test_where_a_service_is_and_where_its_bucket(values, endpoint, virtual):
    made = _s3("b", {"AWS_REGION": "r", "AWS_NO_SIGN_REQUEST": "YES", **values})
    assert made.get("endpoint") == endpoint
    assert made.get("virtual_hosted_style_request") == virtual
    dotted = _s3("b.c", {"AWS_REGION": "r", "AWS_NO_SIGN_REQUEST": "YES", "AWS_S3_ENDPOINT": "h"})
    assert dotted["endpoint"] == "https://h"


def test_a_virtual_host_names_the_bucket_once(tiff, monkeypatch):
    """By a proxy that plays the host `scenes.store.example`."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_S3_ENDPOINT", "store.example")
    monkeypatch.setenv("AWS_HTTPS", "NO")
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    monkeypatch.setenv("AWS_REGION", "r")
    with serving({"/a.tif": tiff}) as server, forwarding() as (proxy, log):
        log.known["scenes.store.example"] = server.address.removeprefix("http://")
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", "")
        assert fetch("s3://scenes/a.tif") == tiff
        assert set(log.passed) == {"http://scenes.store.example/a.tif"}


def test_credentials_are_found_where_the_tools_keep_them(tmp_path):
    path = tmp_path / "credentials"
    path.write_text(
        "[default]\naws_access_key_id=d\naws_secret_access_key=x\n"
        "[work]\naws_access_key_id=w\naws_secret_access_key=y\nregion=eu-west-1\n"
    )
    files = {"AWS_SHARED_CREDENTIALS_FILE": str(path), "AWS_CONFIG_FILE": str(tmp_path / "none")}
    assert _s3_credentials(files)["access_key_id"] == "d"
    work = _s3_credentials({**files, "AWS_PROFILE": "work"})
    assert (work["access_key_id"], work["region"]) == ("w", "eu-west-1")
    assert _s3_credentials({**files, **ACCESS}) == {}, "the environment comes first"
    for word in ("YES", "true", "1"):
        assert _s3_credentials({**files, "AWS_NO_SIGN_REQUEST": word}) == {"skip_signature": True}
    none = {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    assert _s3_credentials(none) == {"skip_signature": True}
    assert _s3_credentials({**none, "AWS_NO_SIGN_REQUEST": "NO"}) == {}


def test_a_bucket_tells_its_region():
    with serving({"/told": b""}) as server:
        server.faults.region = "us-west-2"
        assert bucket_region(f"{server.address}/told") == "us-west-2"
        assert bucket_region(f"{server.address}/refused-or-not-there") == "us-west-2"
        server.faults.region = ""
        assert bucket_region(f"{server.address}/told") == ""
