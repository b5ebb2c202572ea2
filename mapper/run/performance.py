"""Dask's own report of a run: what each worker did when, how much went over the wire."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mapper.errors import StoreError
from mapper.store.files import write_text
from mapper.transport.address import redact

logger = logging.getLogger(__name__)

PERFORMANCE = "performance.html"


@contextmanager
def performance_kept(client: Any, path: Path | None) -> Iterator[None]:
    """Write the report of what happens inside as one HTML file; nothing where there is no path.

    A report that cannot be made loses nothing, and is only logged.
    """
    if path is None:
        yield
        return
    began = time.time()
    count = client.run_on_scheduler(_measured)
    try:
        yield
    finally:
        try:
            report = client.sync(
                client.scheduler.performance_report,
                start=began,
                last_count=count,
                code=f"mapper run --out {path.parent.name}",
                mode="inline",
            )
            write_text(path, report)
        # of a scheduler that is gone, of bokeh, of the disk
        except (OSError, StoreError, RuntimeError, ValueError, TypeError, KeyError) as reason:
            logger.warning("%s is not written: %s", path.name, redact(str(reason)))


def _measured(dask_scheduler: Any) -> int:
    return int(dask_scheduler.monitor.count)
