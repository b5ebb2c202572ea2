"""Signing, retries, and addresses that may be shown."""

import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import rasterio
import requests
from affine import Affine
from urllib3.util import Retry

from mapper.catalog import access
from mapper.errors import ReadError

BLOB = "https://account.blob.core.windows.net/container/some/B04.tif"


@pytest.mark.parametrize(
    ("href", "shown"),
    [
        ("https://host/a/b.tif?sig=x&se=2030", "https://host/a/b.tif"),
        ("https://host/a/b.tif#part", "https://host/a/b.tif"),
        ("https://user:word@host:8080/a.tif", "https://host:8080/a.tif"),
        ("s3://bucket/key.tif", "s3://bucket/key.tif"),
        ("/data/odd?name.tif", "/data/odd?name.tif"),
        ("/vsicurl/https://host/a.tif?sig=x", "/vsicurl/https://host/a.tif"),
        ("./a.tif", "./a.tif"),
    ],
)
def test_an_address_is_shown_without_its_query(href, shown):
    assert access.unsigned(href) == shown
    assert access.unsigned(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "HTTP 403 for https://host/a.tif?sig=s3cr3t",
        "GET /a.tif?st=1&sig=s3cr3t%2Fabc&se=2 failed",
        "(url='https://host/a.tif?sv=2020&sig=s3cr3t') gave up",
        'and "https://host/x?token=s3cr3t" too, https://host/y?sig=s3cr3t.',
    ],
)
def test_a_message_hides_what_queries_say(text):
    assert "s3cr3t" not in access.redact(text)
    assert "host" in access.redact(text) or "a.tif" in access.redact(text)


def test_a_message_without_address_stays_as_it_is():
    text = "no space left: 3 = 3, what?"
    assert access.redact(text) == text


@pytest.fixture
def tokens(serve, monkeypatch):
    """A token server instead of the real one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *args, **kwargs: None)
        import planetary_computer
        from planetary_computer import sas, settings
    later = (datetime.now(UTC) + timedelta(minutes=45)).strftime("%Y-%m-%dT%H:%M:%SZ")
    document = {"msft:expiry": later, "token": "st=1&se=2&sp=rl&sig=s3cr3t"}
    address, asked = serve({"/token/account/container": document})
    monkeypatch.setenv("PC_SDK_SAS_URL", f"{address}/token")
    settings.Settings.get.cache_clear()
    sas.TOKEN_CACHE.clear()
    assert planetary_computer.settings.Settings.get().sas_url == f"{address}/token"
    yield asked, sas.TOKEN_CACHE
    settings.Settings.get.cache_clear()
    sas.TOKEN_CACHE.clear()


def test_a_planetary_computer_address_gets_a_token(tokens):
    asked, _ = tokens
    signed = access.signed(BLOB)
    assert signed == f"{BLOB}?st=1&se=2&sp=rl&sig=s3cr3t"
    assert access.unsigned(signed) == BLOB
    assert access.signed(BLOB.replace("B04", "B08")).endswith("sig=s3cr3t")
    assert asked["/token/account/container"] == 1, "one token per container while it lasts"


def test_a_token_near_its_end_is_renewed(tokens):
    asked, cache = tokens
    access.signed(BLOB)
    for token in cache.values():
        token.expiry = datetime.now(UTC) + timedelta(seconds=20)
    access.signed(BLOB)
    assert asked["/token/account/container"] == 2


@pytest.mark.parametrize(
    "href",
    [
        "https://sentinel-cogs.s3.us-west-2.amazonaws.com/a/B04.tif",
        "https://blob.core.windows.net.example.com/container/B04.tif",
        "https://example.com/account.blob.core.windows.net/B04.tif",
        "s3://bucket/B04.tif",
        "/data/B04.tif",
    ],
)
def test_other_hosts_are_left_alone(tokens, href):
    assert access.signed(href) == href
    assert not tokens[0]


def test_an_error_does_not_tell_the_token(tokens, monkeypatch):
    def refuse(address, *args, **kwargs):
        raise rasterio.errors.RasterioIOError(f"cannot open {address}")

    monkeypatch.setattr(access.rasterio, "open", refuse)
    with pytest.raises(ReadError) as caught, access.open_raster(BLOB):
        pass
    assert BLOB in str(caught.value)
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_token_server_that_refuses_is_a_read_error(tokens, monkeypatch):
    def refuse(href):
        raise requests.HTTPError(f"401 for {href}?sig=s3cr3t")

    monkeypatch.setattr("planetary_computer.sign", refuse)
    with pytest.raises(ReadError) as caught, access.open_raster(BLOB):
        pass
    assert "s3cr3t" not in str(caught.value)
    with pytest.raises(ReadError) as caught:
        access.fingerprint(BLOB)
    assert "s3cr3t" not in str(caught.value)


def test_failures_that_may_pass_are_tried_again(serve):
    address, asked = serve({"/a": {}}, fail_first=2)
    assert access.session().get(f"{address}/a", timeout=5).status_code == 200
    assert asked["/a"] == 3


def test_a_refusal_is_not_tried_again(serve):
    address, asked = serve({}, status={"/a": 404})
    assert access.session().get(f"{address}/a", timeout=5).status_code == 404
    assert asked["/a"] == 1


def test_tries_end():
    assert isinstance(access.retries(), Retry)
    assert access.retries().total == 5


def test_a_file_is_told_by_size_and_time(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"123")
    first = access.fingerprint(str(path))
    assert first.startswith("3-")
    path.write_bytes(b"1234")
    assert access.fingerprint(str(path)) != first
    with pytest.raises(ReadError, match=r"nowhere\.tif is not there"):
        access.fingerprint(str(tmp_path / "nowhere.tif"))


def test_a_remote_file_is_told_by_etag_or_length(serve):
    address, _ = serve({"/a.tif": "12345"}, status={"/b.tif": 403, "/c.tif": 404})
    assert access.fingerprint(f"{address}/a.tif") == "5"
    assert access.fingerprint(f"{address}/b.tif") == ""
    with pytest.raises(ReadError, match="answers 404") as caught:
        access.fingerprint(f"{address}/c.tif?sig=s3cr3t")
    assert "s3cr3t" not in str(caught.value)


def test_the_session_may_be_used_by_many_threads(serve):
    address, asked = serve({"/a": {}})
    threads = [
        threading.Thread(target=access.session().get, args=(f"{address}/a",)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked["/a"] == 8


def test_an_error_of_the_readers_own_is_not_renamed(tmp_path):
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=2, width=2, dtype="uint8",
        crs="EPSG:32633", transform=Affine(10, 0, 0, 0, -10, 0),
    ) as target:  # fmt: skip
        target.write(np.ones((1, 2, 2), "uint8"))
    with pytest.raises(ValueError, match="mine"), access.open_raster(str(path)):
        raise ValueError("mine")
