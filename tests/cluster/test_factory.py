"""Clusters that are really started."""

import gc
import os
import shutil
import subprocess

import dask
import pytest

from mapper.cluster import local, remote
from mapper.cluster.factory import open_cluster
from mapper.cluster.local import cuda_workers, free_address, visible_devices
from mapper.cluster.options import ClusterOptions
from mapper.errors import DeviceError, UsageError


def resources(client):
    found = client.scheduler_info(n_workers=-1)["workers"].values()
    return sorted((str(w["name"]), dict(w["resources"])) for w in found)


def test_a_local_cluster_is_of_processes_and_its_dashboard_stays_on_loopback():
    with open_cluster(ClusterOptions(workers=2, offers={"NET": 1})) as client:
        pids = client.run(os.getpid)
        assert len(set(pids.values()) - {os.getpid()}) == 2
        assert all(r == {"NET": 1} for _, r in resources(client))
        assert "//127.0.0.1:" in client.dashboard_link


def test_without_a_device_cuda_is_refused(monkeypatch):
    monkeypatch.setattr(local, "cuda_devices", lambda: 0)
    with (
        pytest.raises(DeviceError, match="--cluster cuda finds no CUDA device"),
        open_cluster(ClusterOptions(where="cuda")),
    ):
        pass


def test_each_device_gets_a_process_that_sees_it_alone(monkeypatch):
    monkeypatch.setattr(local, "cuda_devices", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5f")
    assert visible_devices() == ["3", "GPU-5f"]
    with open_cluster(ClusterOptions(where="cuda", workers=1)) as client:
        seen = client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
        names = {a: str(w["name"]) for a, w in client.scheduler_info()["workers"].items()}
        assert {names[a]: value for a, value in seen.items()} == {
            "gpu-0": "3",
            "gpu-1": "GPU-5f",
            "cpu-0": "",
        }
        assert resources(client) == [("cpu-0", {}), ("gpu-0", {"GPU": 1}), ("gpu-1", {"GPU": 1})]


def test_devices_are_numbered_where_nobody_names_them(monkeypatch):
    monkeypatch.setattr(local, "cuda_devices", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_devices() == ["0", "1", "2"]
    assert list(cuda_workers(["0"], 2, {"NET": 1})) == ["gpu-0", "cpu-0", "cpu-1"]


def test_a_taken_port_of_the_dashboard_is_left():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert free_address(address) == "127.0.0.1:0"


def test_a_scheduler_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(remote, "_CONNECT_SECONDS", 1)
    with (
        pytest.raises(UsageError, match="no Dask scheduler answers"),
        open_cluster(ClusterOptions(where="tcp://127.0.0.1:9")),
    ):
        pass


def test_ssh_needs_hosts():
    with (
        pytest.raises(UsageError, match=r"mapper\.ssh\.hosts"),
        open_cluster(ClusterOptions(where="ssh")),
    ):
        pass


# Dask's cluster is not closed where it could not be made
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed cluster")
def test_kubernetes_says_what_it_lacks(tmp_path, monkeypatch):
    pytest.importorskip("dask_kubernetes")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with (
        pytest.raises(UsageError, match="--cluster kubernetes"),
        open_cluster(ClusterOptions(where="kubernetes")),
    ):
        pass
    # here, and not in whatever test comes next
    gc.collect()


def test_tls_is_dasks_own_configuration(tmp_path):
    """A scheduler that wants certificates is reached with Dask's settings alone."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl")
    from distributed import LocalCluster

    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    line = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    line += ["-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(line, check=True, capture_output=True)
    files = {
        f"distributed.comm.tls.{who}.{what}": str(path)
        for who in ("client", "scheduler", "worker")
        for what, path in (("key", key), ("cert", cert))
    }
    settings = {**files, "distributed.comm.tls.ca-file": str(cert)}
    with dask.config.set(settings):
        options = {"n_workers": 1, "processes": False, "protocol": "tls://", "host": "127.0.0.1"}
        with LocalCluster(**options, dashboard_address=":0", threads_per_worker=1) as cluster:
            address = cluster.scheduler_address
            assert address.startswith("tls://")
            with open_cluster(ClusterOptions(where=address)) as client:
                assert client.submit(sum, [1, 2]).result() == 3
