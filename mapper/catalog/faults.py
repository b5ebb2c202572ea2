"""Whatever a server or file that is not STAC makes its readers raise, as one error."""

from collections.abc import Iterator

import pystac
import pystac_client
import requests

from mapper.catalog.bands import Item
from mapper.errors import CatalogError
from mapper.transport.address import redact, unsigned

FAULTS = (
    requests.RequestException,
    pystac_client.exceptions.APIError,
    pystac_client.errors.ClientTypeError,
    pystac.STACError,
    pystac.STACTypeError,
    # JSON and Unicode errors are ValueErrors
    ValueError,
    OSError,
    KeyError,
    TypeError,
    AttributeError,
)
"""What a server or file that is not STAC makes its readers raise."""


def unusable(address: str, what: str, reason: BaseException) -> CatalogError:
    """The error for a catalog that cannot be `opened` or `searched`; shows no query value."""
    said = redact(str(reason)) or type(reason).__name__
    return CatalogError(f"catalog {unsigned(address)} cannot be {what}: {said}")


def guarded(address: str, items: Iterator[Item]) -> Iterator[Item]:
    """The items of a search; whatever breaks on the way is the catalog's fault."""
    try:
        yield from items
    except FAULTS as reason:
        raise unusable(address, "searched", reason) from None
