"""How an asset is reached; see `mapper.transport`."""

from mapper.transport.address import redact, unsigned
from mapper.transport.opening import GDAL_OPTIONS, open_raster
from mapper.transport.searching import retries, session
from mapper.transport.tokens import signed
from mapper.transport.whole import fingerprint

__all__ = [
    "GDAL_OPTIONS",
    "fingerprint",
    "open_raster",
    "redact",
    "retries",
    "session",
    "signed",
    "unsigned",
]
