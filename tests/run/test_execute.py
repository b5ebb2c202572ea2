"""Which workers a step may go to."""

from types import SimpleNamespace

import pytest

from mapper.errors import DeviceError
from mapper.events import ignore
from mapper.run.execute import Execution


class FakeClient:
    """A scheduler with some workers, of which some have a device."""

    def __init__(self, devices):
        self.devices, self.asked = devices, []

    def scheduler_info(self, n_workers):
        return {"workers": {address: {} for address in self.devices}}

    def run(self, what, workers):
        self.asked += workers
        return {address: self.devices[address] for address in workers}


def where(execution, stage, device):
    job = SimpleNamespace(
        plan=SimpleNamespace(request=SimpleNamespace(inference=SimpleNamespace(device=device)))
    )
    return execution._workers_for(job, SimpleNamespace(stage=stage))


def execution_on(devices):
    return Execution([], FakeClient(devices), None, ignore)


def test_plans_for_a_gpu_go_to_workers_that_have_one():
    execution = execution_on({"tcp://a": 0, "tcp://b": 2, "tcp://c": 1})
    assert where(execution, "predict", "cuda") == ["tcp://b", "tcp://c"]
    assert where(execution, "ingest", "cuda") is None
    assert where(execution, "predict", "cpu") is None


def test_each_worker_is_asked_once_and_new_ones_too():
    execution = execution_on({"tcp://a": 1})
    where(execution, "predict", "cuda")
    execution.client.devices["tcp://b"] = 1
    assert where(execution, "predict", "cuda") == ["tcp://a", "tcp://b"]
    assert where(execution, "predict", "cuda") == ["tcp://a", "tcp://b"]
    assert execution.client.asked == ["tcp://a", "tcp://b"]


def test_where_no_worker_has_the_device_the_step_says_so():
    with pytest.raises(DeviceError, match=r"no worker has a CUDA device.*--device cpu"):
        where(execution_on({"tcp://a": 0}), "predict", "cuda")
