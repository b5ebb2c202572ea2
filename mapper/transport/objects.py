"""Parts of objects in stores (s3, gs, az), by the credentials of the usual environment.

Reads are unsigned where no credentials are found. Every try goes through the same gate, breaker
and waits as HTTP: the store library's own are turned off.
"""

import configparser
import os
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import obstore
import obstore.store
from obstore import exceptions

from mapper.errors import ReadError
from mapper.transport.address import redact, unsigned
from mapper.transport.memory import Identity
from mapper.transport.policy import NetworkPolicy, current_policy
from mapper.transport.traffic import Traffic, counting
from mapper.transport.tries import AbsentError, PassingError, RefusedError, persist
from mapper.transport.web import Question, ask

T = TypeVar("T")
_YES = frozenset({"1", "true", "yes", "on", "requester"})
_NO = frozenset({"0", "false", "no", "off"})
_OTHER_CREDENTIALS = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_GOOGLE = ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY")
_AZURE = ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY",
          "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE")  # fmt: skip
_READ = ("AWS_", "AZURE_", "GOOGLE_")
"""Beginnings of the names of variables that a store depends on."""


class StoreFile:
    """An object, read as `WebFile` reads a file."""

    def __init__(self, href: str) -> None:
        """No request is made."""
        self._href = href
        self._shown = unsigned(href)
        self._key = urlsplit(href).path.lstrip("/")

    def first(self, seen: Traffic) -> tuple[Identity, bytes]:
        """The first bytes of the object, and what tells this content from another.

        Raises: ReadError.
        """
        identity, body = self._get(0, current_policy().first_bytes, seen)
        seen.memory.check_identity(self._shown, identity)
        seen.count_range(self._shown, 0, len(body))
        return identity, body

    def piece(self, start: int, end: int, seen: Traffic) -> bytes:
        """Bytes `start` to `end` (not in it); the object has them.

        Raises: ReadError, also where the object is another than at its first read.
        """
        identity, body = self._get(start, end, seen)
        seen.memory.check_identity(self._shown, identity)
        seen.count_range(self._shown, start, end)
        return body

    def head(self, seen: Traffic) -> Identity:
        """Size and ETag.

        Raises: ReadError.
        """
        return self._ask(lambda store: _identity(obstore.head(store, self._key)), seen)

    def stream(self, sink: Callable[[bytes], object], seen: Traffic) -> Identity:
        """The whole object, `piece_bytes` after `piece_bytes`; only a piece that fails is repeated.

        A request is small, because the store's timeout covers its whole body.

        Raises: ReadError, also where the object is replaced meanwhile.
        """
        identity = self.head(seen)
        seen.memory.check_identity(self._shown, identity)
        step = current_policy().piece_bytes
        for start in range(0, identity.size, step):
            sink(self.piece(start, min(start + step, identity.size), seen))
        return identity

    def _get(self, start: int, end: int, seen: Traffic) -> tuple[Identity, bytes]:
        def attempt(store: Any) -> tuple[Identity, bytes]:
            answer = obstore.get(store, self._key, options={"range": (start, end)})
            identity, body = _identity(answer.meta), bytes(answer.bytes())
            seen.count_body(len(body))
            wanted = start, min(end, identity.size)
            if tuple(answer.range) != wanted or len(body) != wanted[1] - wanted[0]:
                raise PassingError(f"its host sends {len(body)} bytes from {answer.range[0]} on")
            return identity, body

        return self._ask(attempt, seen)

    def _ask(self, request: Callable[[Any], T], seen: Traffic) -> T:
        def attempt() -> T:
            seen.count_request()
            with _Telling(self._shown):
                return request(_store(self._href))

        try:
            return persist(self._href, attempt, seen)
        except RefusedError as reason:
            raise ReadError(_refusal(self._href, reason)) from None


def _refusal(href: str, reason: RefusedError) -> str:
    """What to say when a store wants other credentials."""
    return (
        f"asset {unsigned(href)} is refused ({reason}); check the credentials in the environment "
        "(AWS_ACCESS_KEY_ID or AWS_PROFILE; AWS_REQUEST_PAYER=requester where the reader pays)"
    )


class _Telling:
    """Turns the store library's errors into ours; their texts hold whole addresses."""

    def __init__(self, shown: str) -> None:
        self._shown = shown

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, reason: BaseException | None, trace: Any) -> None:
        if isinstance(reason, (exceptions.NotFoundError, FileNotFoundError)):
            raise AbsentError(
                f"asset {self._shown} is not there; mend the catalog or leave the scene out "
                "(`failure_budget`)"
            ) from None
        if isinstance(reason, (exceptions.PermissionDeniedError, PermissionError)):
            raise RefusedError("403") from None
        if isinstance(reason, exceptions.UnauthenticatedError):
            raise RefusedError("401") from None
        if isinstance(reason, (exceptions.BaseError, OSError)):
            raise PassingError(_short(reason)) from None


def _short(reason: BaseException) -> str:
    text = " ".join(redact(str(reason)).split("Debug source:")[0].split())
    return f"the store answers: {text[:300]}"


def _identity(meta: Any) -> Identity:
    return Identity(size=int(meta["size"]), tag=meta.get("e_tag") or str(meta["last_modified"]))


def _store(href: str) -> Any:
    """A store of the address' bucket, kept for as long as its environment stays as it is."""
    parts = urlsplit(href)
    relevant = tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith(_READ)))
    return _made(parts.scheme.lower(), parts.netloc, relevant, current_policy())


@lru_cache(maxsize=64)
def _made(
    scheme: str, bucket: str, environment: tuple[tuple[str, str], ...], policy: NetworkPolicy
) -> Any:
    values = dict(environment)
    config: dict[str, Any]
    if scheme in {"s3", "s3a"}:
        config = _s3(bucket, values)
    elif scheme == "gs":
        config = {} if any(map(values.get, _GOOGLE)) else {"skip_signature": True}
    else:
        config = {} if any(map(values.get, _AZURE)) else {"skip_signature": True}
    stores: Any = obstore.store
    return stores.from_url(
        f"{scheme}://{bucket}",
        config=config,
        client_options={
            "connect_timeout": timedelta(seconds=policy.connect_s),
            "timeout": timedelta(seconds=policy.read_s * 2),
            "allow_http": str(config.get("endpoint", "")).startswith("http://"),
            "user_agent": "mapper",
        },
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=policy.deadline_s)},
    )


def _s3(bucket: str, values: dict[str, str]) -> dict[str, Any]:
    """Settings of a bucket, as the AWS tools and GDAL name them in the environment."""
    config: dict[str, Any] = {}
    endpoint = _s3_endpoint(values)
    if endpoint:
        config |= _s3_address(endpoint, bucket, values)
    if values.get("AWS_REQUEST_PAYER", "").lower() in _YES:
        config["request_payer"] = True
    config |= _s3_credentials(values)
    region = values.get("AWS_REGION") or values.get("AWS_DEFAULT_REGION") or config.get("region")
    if not region and not endpoint:
        region = bucket_region(f"https://s3.amazonaws.com/{bucket}")
    return config | {"region": region or "us-east-1"}


def _s3_endpoint(values: dict[str, str]) -> str:
    """Address of the service; GDAL's variable names a host, and AWS_HTTPS how it is reached."""
    named = values.get("AWS_ENDPOINT_URL_S3") or values.get("AWS_ENDPOINT_URL")
    host = values.get("AWS_S3_ENDPOINT", "").rstrip("/")
    if named or not host or "://" in host:
        return named or host
    plain = values.get("AWS_HTTPS", "").lower() in _NO
    return f"{'http' if plain else 'https'}://{host}"


def _s3_address(endpoint: str, bucket: str, values: dict[str, str]) -> dict[str, Any]:
    """Whether the bucket is a part of the host's name (`bucket.host`) or of the path.

    As in GDAL, AWS_S3_ENDPOINT alone means the name, unless the bucket has a dot; as in the AWS
    tools, AWS_ENDPOINT_URL alone means the path.
    """
    told = values.get("AWS_VIRTUAL_HOSTING", "").lower()
    urls = values.get("AWS_ENDPOINT_URL_S3") or values.get("AWS_ENDPOINT_URL")
    virtual = told not in _NO if told else not urls and "." not in bucket
    if not virtual:
        return {"endpoint": endpoint}
    way, _, host = endpoint.partition("://")
    return {"endpoint": f"{way}://{bucket}.{host}", "virtual_hosted_style_request": True}


def _s3_credentials(values: dict[str, str]) -> dict[str, Any]:
    no_sign = values.get("AWS_NO_SIGN_REQUEST", "").lower()
    if no_sign in _YES:
        return {"skip_signature": True}
    if values.get("AWS_ACCESS_KEY_ID") or any(map(values.get, _OTHER_CREDENTIALS)):
        return {}
    found = _shared_credentials(values)
    if found or no_sign in _NO:
        return found  # told to sign: the store asks the machine it runs on for a role
    return {"skip_signature": True}


def _shared_credentials(values: dict[str, str]) -> dict[str, Any]:
    """Keys and region of AWS_PROFILE in the files that the AWS tools write."""
    home = Path.home() / ".aws"
    profile = values.get("AWS_PROFILE") or "default"
    parser = configparser.RawConfigParser()
    parser.read(values.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials")
    if not parser.has_option(profile, "aws_access_key_id"):
        return {}
    section = parser[profile]
    names = {
        "access_key_id": "aws_access_key_id",
        "secret_access_key": "aws_secret_access_key",
        "token": "aws_session_token",
        "region": "region",
    }
    found = {name: section[key] for name, key in names.items() if section.get(key)}
    parser.read(values.get("AWS_CONFIG_FILE") or home / "config")
    for name in (profile, f"profile {profile}"):
        if parser.has_option(name, "region"):
            found.setdefault("region", parser[name]["region"])
    return found


def bucket_region(address: str) -> str:
    """Region that a bucket's own address tells to anybody, whatever it answers otherwise.

    Returns: an empty string where it tells none.
    """
    question = Question(href=address, method="HEAD", allowed=frozenset(range(400, 500)))
    seen = counting()
    answer = persist(address, lambda: ask(question, seen), seen)
    return answer.headers.get("x-amz-bucket-region", "")
