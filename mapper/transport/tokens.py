"""Signatures of Planetary Computer: one token a container, renewed in time and when refused."""

import os
import threading
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

from mapper.errors import ReadError
from mapper.transport.address import redact, unsigned
from mapper.transport.traffic import Traffic, counting
from mapper.transport.tries import RefusedError, persist
from mapper.transport.web import Question, ask

T = TypeVar("T")
_BLOBS = ".blob.core.windows.net"
_MARGIN = 90.0
"""Seconds before its end from which a token is not used any more."""
_MOST = 64 * 1024
_signing = threading.RLock()


def _forget() -> None:
    """A forked child may hold a lock whose thread it does not have."""
    global _signing
    _signing = threading.RLock()


os.register_at_fork(after_in_child=_forget)


def signed(href: str) -> str:
    """The address to read from; Planetary Computer's get a token, which is renewed in time.

    Raises: ReadError where the token service refuses or does not answer.
    """
    if not _needs_token(href):
        return href
    with _signing:
        _keep_token(href)
        return str(_package().sign(href))


def resign(href: str, refused: str = "") -> str:
    """The address with a new token, after a refusal of the one in `refused`.

    Where another thread has renewed it since, that one's is taken. Addresses that get no token
    come back as they are.
    """
    if not _needs_token(href):
        return href
    with _signing:
        current = signed(href)
        if not refused or current == refused:
            _package().sas.TOKEN_CACHE.pop(_token_address(href), None)
            current = signed(href)
        return current


def ask_signed(href: str, request: Callable[[str], T], seen: Traffic) -> T:
    """Make a request of a signed address, and once more with a new signature if it is refused.

    Raises: ReadError where that is refused too.
    """
    address = signed(href)
    for last in (False, True):
        try:
            return persist(href, lambda: request(address), seen)  # noqa: B023
        except RefusedError as reason:
            renewed = address if last else resign(href, address)
            if renewed == address:
                raise ReadError(_refusal(href, str(reason), last)) from None
            address = renewed
    raise AssertionError("the second refusal raises")


def _refusal(href: str, status: str, renewed: bool) -> str:
    told = "with a new token too; " if renewed else ""
    return (
        f"asset {unsigned(href)} is refused ({status}): {told}check that it is open to you, "
        "or leave the scene out (`failure_budget`)"
    )


def _needs_token(href: str) -> bool:
    return "://" in href and urlsplit(href).netloc.endswith(_BLOBS)


@lru_cache(maxsize=1)
def _package() -> Any:
    """Imported when first needed; it warns of pydantic's future."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import planetary_computer
        import planetary_computer.sas
    return planetary_computer


def _token_address(href: str) -> str:
    """Where the token of an address' container comes from; the key of the package's cache."""
    account, container = _package().utils.parse_blob_url(urlsplit(href))
    return f"{_package().settings.Settings.get().sas_url}/{account}/{container}"


def _keep_token(href: str) -> None:
    """Put a fresh token into the package's cache, asked for with our own patience."""
    if set(urlsplit(href).query.replace("=", "&").split("&")) & {"st", "se", "sp"}:
        return
    if urlsplit(href).netloc == f"ai4edatasetspublicassets{_BLOBS}":
        return
    try:
        cache, address = _package().sas.TOKEN_CACHE, _token_address(href)
        token = cache.get(address)
        if token is None or token.ttl() < _MARGIN:
            cache[address] = _new_token(address)
    except (ReadError, RefusedError, ValueError) as reason:
        raise ReadError(f"asset {unsigned(href)} gets no token: {_reason(reason)}") from None


def _new_token(address: str) -> Any:
    key = _package().settings.Settings.get().subscription_key
    headers = {"Ocp-Apim-Subscription-Key": key} if key else {}
    question, seen = Question(href=address, headers=headers, most=_MOST), counting()
    body = persist(address, lambda: ask(question, seen), seen).body
    return _package().sas.SASToken.model_validate_json(body)


def _reason(reason: Exception) -> str:
    if isinstance(reason, RefusedError):
        return f"the service of tokens refuses ({reason}); check PC_SDK_SUBSCRIPTION_KEY"
    if isinstance(reason, ReadError):
        return redact(str(reason))
    return "the service of tokens answers with something else; run again later"
