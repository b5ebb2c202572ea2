"""Where tasks run: worker processes on this machine, or a Dask scheduler that is already there."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from mapper.catalog.pyramid import WORKERS as TILE_WORKERS
from mapper.errors import UsageError

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 20
NET: Mapping[str, float] = {"NET": 1}
"""What a step that reads archives takes of a worker that may reach them; one that offers NET=4
reads four at a time."""


@contextmanager
def open_cluster(
    address: str, workers: int | None, resources: Mapping[str, float] | None = None
) -> Iterator[Any]:
    """A Dask client on `local` processes or on the scheduler at an address.

    Local workers have one thread each: rasters are decoded and models run in their own
    processes, with thread counts set by the inference plan. The dashboard listens on loopback.

    Args:
        address: `local`, or of a scheduler.
        workers: how many local ones.
        resources: that a worker has to offer; local ones offer them.

    Raises: UsageError where no scheduler answers at the address, it has no worker, or none that
        offers the resources: their steps would wait for ever.
    """
    import dask

    # read by distributed when it is imported; its own handlers would say everything twice
    dask.config.set({"logging.distributed": "error", "logging.bokeh": "error"})
    from distributed import Client

    if address != "local":
        with _connected(address) as client:
            _check_resources(client, resources or {})
            workers = len(client.scheduler_info(n_workers=-1)["workers"])
            # those that join later take no more than their part either
            client.register_plugin(_share(workers), name="mapper-tile-rate")
            yield client
        return
    count = workers or max(1, min(4, os.cpu_count() or 1))
    share_tile_rate(count)
    # a worker that dies is replaced, but a task that kills three of them is given up
    settings = {
        "distributed.scheduler.allowed-failures": 3,
        "distributed.worker.memory.terminate": False,
        "distributed.comm.timeouts.connect": "60s",
        "distributed.admin.large-graph-warning-threshold": "1GB",
        # Dask's own value gives every large array back to the system and asks for it anew, which
        # cost ingest 40 % of its processor time
        "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
    }
    with (
        dask.config.set(settings),
        _local_cluster(count, resources) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def share_tile_rate(workers: int) -> None:
    """Let this process, and those it starts, take its part of a tile service's rate."""
    os.environ[TILE_WORKERS] = str(workers)


def _share(workers: int) -> Any:
    """A plugin that lets every worker, a later one too, take its part of a tile service's rate."""
    from distributed import WorkerPlugin

    class TileRate(WorkerPlugin):  # type: ignore[misc]
        def setup(self, worker: Any) -> None:
            del worker
            share_tile_rate(workers)

    return TileRate()


def _check_resources(client: Any, resources: Mapping[str, float]) -> None:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    for name, amount in resources.items():
        if not any(w.get("resources", {}).get(name, 0) >= amount for w in workers):
            raise UsageError(
                f"no worker offers the resource {name}, and steps that need it would wait for "
                f"ever; start some with `--resources {name}=4`"
            )


def worker_memory(client: Any) -> int:
    """Bytes that the smallest worker may use; without limits, as much as there is."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    limits = [int(w["memory_limit"]) for w in workers if w.get("memory_limit")]
    return min(limits, default=1 << 62)


@contextmanager
def _local_cluster(workers: int, resources: Mapping[str, float] | None) -> Iterator[Any]:
    from distributed import LocalCluster

    options = {
        "n_workers": workers,
        "threads_per_worker": 1,
        "processes": True,
        "host": "127.0.0.1",
        "silence_logs": logging.CRITICAL,
        "dashboard_address": _dashboard_address(),
        "resources": dict(resources or {}),
    }
    cluster = LocalCluster(**options)
    try:
        yield cluster
    finally:
        with suppress(TimeoutError):
            cluster.close(timeout=10)


def _dashboard_address() -> str:
    """Port 8787 of loopback, or any free one where it is taken."""
    import socket

    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", 8787))
        except OSError:
            return "127.0.0.1:0"
    return "127.0.0.1:8787"


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    from distributed import Client

    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    # each transport fails in its own way; none of them is worth a traceback
    except Exception as reason:
        raise UsageError(
            f"no Dask scheduler answers at {address!r} ({reason}); give `local` or an address "
            "like tcp://127.0.0.1:8786"
        ) from reason
    with client:
        if not client.scheduler_info()["workers"]:
            raise UsageError(f"the scheduler at {address} has no worker; start one")
        yield client
