"""Workers on other machines: started through SLURM, Kubernetes or SSH, or there already.

What a cluster looks like is Dask's own configuration (`jobqueue.slurm`, `kubernetes`,
`distributed.comm.tls`, and `mapper.ssh`), in YAML files or variables; see docs/cluster.md.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask

from mapper.cluster.local import free_address
from mapper.cluster.options import ClusterOptions
from mapper.errors import UsageError

_CONNECT_SECONDS = 20
_ADDED = "pip install 'mapper[cluster]'"


@contextmanager
def slurm_cluster(options: ClusterOptions) -> Iterator[Any]:
    """Jobs of SLURM as `jobqueue.slurm` describes one. Raises: UsageError."""
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as reason:
        raise UsageError(f"--cluster slurm needs dask-jobqueue: {_ADDED}") from reason
    scheduler = {"dashboard_address": free_address(options.dashboard)}
    try:
        cluster = SLURMCluster(scheduler_options=scheduler)
    # what of the configuration is wrong is said by jobqueue in many ways
    except (ValueError, TypeError, OSError) as reason:
        raise UsageError(f"--cluster slurm: {reason}; see jobqueue.slurm in docs/cluster.md") from (
            reason
        )
    with cluster:
        cluster.scale(options.workers or 1)
        yield cluster


@contextmanager
def kubernetes_cluster(options: ClusterOptions) -> Iterator[Any]:
    """Pods by the Dask operator, as `kubernetes` describes them. Raises: UsageError."""
    try:
        from dask_kubernetes.operator import KubeCluster
    except ImportError as reason:
        raise UsageError(f"--cluster kubernetes needs dask-kubernetes: {_ADDED}") from reason
    try:
        cluster = KubeCluster(n_workers=options.workers or 1, quiet=True)
    # a missing kubeconfig, a refused request, a bad image: each of another package
    except Exception as reason:
        raise UsageError(f"--cluster kubernetes: {reason}; see docs/cluster.md") from reason
    with cluster:
        yield cluster


@contextmanager
def ssh_cluster(options: ClusterOptions) -> Iterator[Any]:
    """A worker on each of the hosts of `mapper.ssh.hosts`; the scheduler is on the first.

    Raises: UsageError.
    """
    from distributed import SSHCluster

    hosts = dask.config.get("mapper.ssh.hosts", default=None)
    if not isinstance(hosts, list) or len(hosts) < 2:
        raise UsageError(
            "--cluster ssh takes its hosts from Dask's configuration, the scheduler's first: set "
            'mapper.ssh.hosts, or DASK_MAPPER__SSH__HOSTS=\'["login", "node1", "node2"]\''
        )
    try:
        cluster = SSHCluster(
            [str(host) for host in hosts],
            connect_options=dict(dask.config.get("mapper.ssh.connect", default={})),
            worker_options={"nthreads": 1, "n_workers": options.workers or 1},
            scheduler_options={"dashboard_address": options.dashboard},
            remote_python=dask.config.get("mapper.ssh.python", default=None),
        )
    except ImportError as reason:
        raise UsageError(f"--cluster ssh needs asyncssh: {_ADDED}") from reason
    except (OSError, RuntimeError, ValueError) as reason:
        raise UsageError(f"--cluster ssh: {reason}; see mapper.ssh in docs/cluster.md") from reason
    with cluster:
        yield cluster


@contextmanager
def scheduler_at(address: str) -> Iterator[Any]:
    """A client of a scheduler that is there already. Raises: UsageError where none answers."""
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
        yield client
