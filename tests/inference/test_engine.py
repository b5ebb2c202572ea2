"""One batch: views that are averaged, and batches that do not fit the memory."""

from dataclasses import replace

import numpy as np
import pytest

from mapper.errors import DeviceMemoryError
from mapper.inference.card import load_card
from mapper.inference.coding import Coding, Layer
from mapper.inference.engine import Engine, make_engine
from mapper.inference.plan import plan_inference
from mapper.inference.runtime import load_runtime
from mapper.recipe import Predict
from tests.inference.tiny_models import write_model

CODING = Coding(layers=(Layer(name="s2", dtype="uint16", nodata=0, channels=(0, 1)),), bands=2)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    card = load_card(str(write_model(tmp_path_factory.mktemp("models") / "tiny", kernel=3)))
    runtime = load_runtime(card, 1)
    plan = plan_inference(card, runtime, Predict(size=34, stride=32, batch=7), CODING)
    return make_engine(card, plan, CODING, runtime)


@pytest.fixture
def windows():
    return (np.random.default_rng(1).integers(1, 900, (7, 2, 34, 34)).astype(np.uint16),)


class Small:
    """A program on a device that holds so many windows at once."""

    digest, parallel = "none", 1

    def __init__(self, inner, most):
        self._inner, self._most, self.asked = inner, most, []

    def run(self, stored):
        self.asked.append(len(stored[0]))
        if len(stored[0]) > self._most:
            raise DeviceMemoryError("out of memory; use a smaller batch")
        return self._inner.run(stored)


def limited(engine, most, fixed_batch=False):
    program = Small(engine.program, most)
    plan = replace(engine.plan, batch_matters=fixed_batch)
    return Engine(engine.card, plan, CODING, program), program


@pytest.mark.parametrize("most", [1, 2, 3, 6])
def test_a_batch_that_does_not_fit_is_halved_until_it_does(engine, windows, most):
    small, program = limited(engine, most)
    whole, found = engine.run(windows), small.run(windows)
    for name, values in whole.items():
        np.testing.assert_array_equal(found[name], values)
    tried = len(program.asked)
    again = small.run(windows)
    np.testing.assert_array_equal(again["classes"], whole["classes"])
    # what did not fit once is not tried again
    assert max(program.asked[tried:]) <= most


def test_a_window_that_does_not_fit_alone_is_an_error(engine, windows):
    small, _ = limited(engine, 0)
    with pytest.raises(DeviceMemoryError, match="smaller batch"):
        small.run(windows)


def test_where_the_batch_decides_labels_it_is_not_changed(engine, windows):
    small, program = limited(engine, 3, fixed_batch=True)
    with pytest.raises(DeviceMemoryError):
        small.run(windows)
    assert program.asked == [7]


def test_the_engine_of_a_plan_is_made_once(engine):
    runtime = load_runtime(engine.card, 1)
    assert make_engine(engine.card, engine.plan, CODING, runtime) is engine
