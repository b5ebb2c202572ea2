"""Archives are read by workers that may reach them, and by no others."""

import pytest

from mapper.errors import UsageError


@pytest.fixture
def two_workers():
    """A scheduler with a transfer node, which offers NET, and a compute node, which does not."""
    from distributed import Scheduler, SpecCluster, Worker

    def worker(name, **resources):
        options = {"nthreads": 1, "name": name, "resources": resources, "host": "127.0.0.1"}
        return {"cls": Worker, "options": options}

    scheduler = {
        "cls": Scheduler,
        "options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"},
    }
    workers = {"transfer": worker("transfer", NET=2), "compute": worker("compute")}
    with SpecCluster(workers=workers, scheduler=scheduler, asynchronous=False) as cluster:
        ran = {name: _Spy() for name in cluster.workers}
        for name, one in cluster.workers.items():
            one.plugins["spy"] = ran[name]
        yield cluster.scheduler_address, ran


class _Spy:
    """Stages of the tasks that a worker carries out."""

    def __init__(self):
        self.stages = set()

    def transition(self, key, start, finish, **_):
        if finish == "executing":
            self.stages.add(str(key).split("-")[0])


def test_only_workers_that_offer_net_read_archives(map_world, two_workers):
    address, ran = two_workers
    report = map_world(cluster=address, net_workers=True, cities=("Plainville",))
    assert report.results[0].state == "published"
    assert {"inspect", "ingest"} <= ran["transfer"].stages
    assert not {"inspect", "ingest"} & ran["compute"].stages


def test_without_such_a_worker_the_run_says_so(map_world, in_process):
    with pytest.raises(
        UsageError, match=r"no worker offers the resource NET.*--resources \"NET=1\""
    ):
        map_world(cluster=in_process, net_workers=True, patience=1.0, cities=("Plainville",))
