"""Worker processes on this machine: some for everything, or one for each CUDA device too."""

import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import dask

from mapper.cluster.options import GPU, ClusterOptions
from mapper.cluster.plugins import share_tile_rate
from mapper.errors import DeviceError
from mapper.inference.devices import cuda_devices

_SETTINGS = {
    # a worker that dies is replaced, but a task that kills three of them is given up
    "distributed.scheduler.allowed-failures": 3,
    "distributed.worker.memory.terminate": False,
    "distributed.comm.timeouts.connect": "60s",
    "distributed.admin.large-graph-warning-threshold": "1GB",
    # Dask's own value gives every large array back to the system and asks for it anew, which
    # cost ingest 40 % of its processor time
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
}
_MOST_READERS = 4


@contextmanager
def local_cluster(options: ClusterOptions) -> Iterator[Any]:
    """Workers of one thread each: rasters are decoded and models run in their own processes,
    with thread counts set by the inference plan.
    """
    from distributed import LocalCluster

    count = options.workers or _readers()
    share_tile_rate(count)
    with dask.config.set(_SETTINGS):
        cluster = LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            silence_logs=logging.CRITICAL,
            dashboard_address=free_address(options.dashboard),
            resources=dict(options.offers),
        )
        with _closed(cluster):
            yield cluster


@contextmanager
def cuda_cluster(options: ClusterOptions) -> Iterator[Any]:
    """A worker for each CUDA device of this machine, and others that read meanwhile.

    Each process sees its own device alone (`CUDA_VISIBLE_DEVICES`). Raises: DeviceError where
    there is none.
    """
    from distributed import Scheduler, SpecCluster

    devices = visible_devices()
    if not devices:
        raise DeviceError(
            "--cluster cuda finds no CUDA device on this machine; use --cluster local, or look at "
            "CUDA_VISIBLE_DEVICES and the driver"
        )
    readers = options.workers or _readers()
    share_tile_rate(readers + len(devices))
    with dask.config.set(_SETTINGS):
        cluster = SpecCluster(
            workers=cuda_workers(devices, readers, options.offers),
            scheduler={
                "cls": Scheduler,
                "options": {
                    "host": "127.0.0.1",
                    "dashboard": True,
                    "dashboard_address": free_address(options.dashboard),
                },
            },
            silence_logs=logging.CRITICAL,
        )
        with _closed(cluster):
            yield cluster


def cuda_workers(
    devices: Sequence[str], readers: int, offers: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    """What Dask is to start: names, classes and options of its workers."""
    from distributed import Nanny

    def worker(seen: str, resources: Mapping[str, float]) -> dict[str, Any]:
        own = {"nthreads": 1, "host": "127.0.0.1", "resources": dict(resources)}
        own |= {"env": {"CUDA_VISIBLE_DEVICES": seen}, "silence_logs": logging.CRITICAL}
        return {"cls": Nanny, "options": own}

    found = {f"gpu-{k}": worker(device, {**offers, **GPU}) for k, device in enumerate(devices)}
    return found | {f"cpu-{k}": worker("", offers) for k in range(readers)}


def visible_devices() -> list[str]:
    """Names of this process's CUDA devices, as `CUDA_VISIBLE_DEVICES` has them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = cuda_devices()
    if named is None:
        return [str(number) for number in range(count)]
    return [name for name in named.split(",") if name][:count]


def free_address(wanted: str) -> str:
    """An address of the dashboard, with any free port where its own is taken."""
    host, _, port = wanted.rpartition(":")
    with socket.socket() as probe:
        try:
            probe.bind((host, int(port)))
        except OSError:
            return f"{host}:0"
    return wanted


def _readers() -> int:
    return max(1, min(_MOST_READERS, os.cpu_count() or 1))


@contextmanager
def _closed(cluster: Any) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(TimeoutError):
            cluster.close(timeout=10)
