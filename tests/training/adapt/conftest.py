"""A source, a target and a network that knows the source, made once."""

import pytest
import torch

from mapper.training.adapt import choosing
from mapper.training.train import TrainOptions, train_model
from tests.training.adapt.running import adapted, narrow
from tests.training.adapt.shifted import adapting, write_source, write_target


@pytest.fixture(scope="module")
def small_sample():
    """`density` of few pixels: all pairs of thousands take longer than the learning."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choosing, "SAMPLE", 256)
        yield


@pytest.fixture(scope="session")
def near(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("near"))


@pytest.fixture(scope="session")
def far(tmp_path_factory):
    return write_target(tmp_path_factory.mktemp("far"))


@pytest.fixture(scope="session")
def base(near, tmp_path_factory):
    """A network that knows the source well."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("base") / "training"
    recipe = adapting("source", "epochs=8", "patches=32", "keep=last")
    train_model(TrainOptions(recipe=recipe, data=near, out=out, device="cpu"))
    return out


@pytest.fixture(scope="session")
def done(near, far, base, tmp_path_factory):
    """By method, the report of its adaptation; no test may change what is in its folder."""
    made = {}

    def report(method):
        if method not in made:
            torch.set_num_threads(1)
            out = tmp_path_factory.mktemp(method) / "out"
            made[method] = adapted(narrow(method), (near, far), out, start=base)
        return made[method]

    return report
