"""Addresses: which kind, which host, and the form that is safe to show."""

import re
from urllib.parse import urlsplit, urlunsplit

WEB = frozenset({"http", "https"})
OBJECTS = frozenset({"s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl"})
_SECRET = re.compile(r"\?[^\s'\"]+")
_USER = re.compile(r"://[^/\s'\"@]+@")


def unsigned(href: str) -> str:
    """An address without its query, where tokens travel; the form that is kept and shown.

    Those of tile levels (`xyz+https://...`) hold `{key}` for the key, and stay as they are.
    """
    if "://" not in href or href.startswith("xyz+"):
        return href
    parts = urlsplit(href)
    host = parts.netloc.rsplit("@", 1)[-1]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def redact(text: str) -> str:
    """A message in which every query value of an address is hidden."""
    return _USER.sub("://***@", _SECRET.sub(_hidden, text))


def _hidden(found: re.Match[str]) -> str:
    """A query whose names may be seen, but no value and no nameless token."""
    names = [part.partition("=") for part in found.group(0)[1:].split("&")]
    return "?" + "&".join(f"{n}=***" if sep else "***" for n, sep, _ in names)


def scheme(href: str) -> str:
    """`https`, `s3` and so on in lower case; empty for a path."""
    head, found, _ = href.partition("://")
    return head.lower() if found and head.isalnum() else ""


def is_web(href: str) -> bool:
    """Whether an address is reached by HTTP."""
    return scheme(href) in WEB


def is_object(href: str) -> bool:
    """Whether an address names an object of a store."""
    return scheme(href) in OBJECTS


def host_name(href: str) -> str:
    """Who answers for an address: `host:port`, or `s3://bucket` of an object store."""
    parts = urlsplit(href)
    host = parts.netloc.rsplit("@", 1)[-1].lower()
    return host if is_web(href) else f"{parts.scheme}://{host}"
