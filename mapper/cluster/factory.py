"""One way to any cluster: `open_cluster`."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from mapper.cluster.local import cuda_cluster, local_cluster
from mapper.cluster.options import ClusterOptions
from mapper.cluster.plugins import DEVICES, TILE_RATE, Devices, TileRate
from mapper.cluster.remote import kubernetes_cluster, scheduler_at, slurm_cluster, ssh_cluster

_STARTED: dict[str, Callable[[ClusterOptions], AbstractContextManager[Any]]] = {
    "local": local_cluster,
    "cuda": cuda_cluster,
    "slurm": slurm_cluster,
    "kubernetes": kubernetes_cluster,
    "ssh": ssh_cluster,
}


@contextmanager
def open_cluster(options: ClusterOptions) -> Iterator[Any]:
    """A Dask client of the cluster that the options name; what was started ends with it.

    Raises: UsageError where it cannot be started or does not answer; DeviceError.
    """
    with _client(options) as client:
        client.register_plugin(Devices(), name=DEVICES)
        if options.kind != "local":
            count = options.workers or len(client.scheduler_info(n_workers=-1)["workers"])
            client.register_plugin(TileRate(max(1, count)), name=TILE_RATE)
        yield client


@contextmanager
def _client(options: ClusterOptions) -> Iterator[Any]:
    from distributed import Client

    if options.kind == "address":
        with scheduler_at(options.where) as client:
            yield client
        return
    with _STARTED[options.kind](options) as cluster, Client(cluster, set_as_default=False) as own:
        yield own
