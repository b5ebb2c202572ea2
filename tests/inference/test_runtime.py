"""Loading once, and saying plainly what a library's complaint means."""

import threading

import numpy as np
import pytest

from mapper.errors import DeviceError, DeviceMemoryError, ModelError
from mapper.inference import runtime as module
from mapper.inference.card import load_card
from mapper.inference.coding import Coding, Layer
from mapper.inference.composition import Composition
from mapper.inference.runtime import device_failure, load_program, load_runtime
from tests.inference.tiny_models import write_model

CODING = Coding(layers=(Layer(name="s2", dtype="uint16", nodata=0, channels=(0, 1)),), bands=2)


@pytest.fixture
def card(tmp_path):
    return load_card(str(write_model(tmp_path / "tiny")))


def test_threads_that_load_at_once_get_the_same(card, monkeypatch):
    made, start = [], threading.Barrier(8)
    inner = module.make_runtime

    def make(*given):
        made.append(given)
        return inner(*given)

    monkeypatch.setattr(module, "make_runtime", make)
    found = []

    def load():
        start.wait(5)
        runtime = load_runtime(card, 1)
        found.append((runtime, load_program(runtime, Composition(card=card, coding=CODING))))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len({(id(r), id(p)) for r, p in found}) == 1
    assert len(found) == 8


def test_a_runtime_still_runs_bare_after_it_was_dressed(card):
    runtime = load_runtime(card, 1)
    image = np.random.default_rng(0).normal(size=(2, 2, 5, 5)).astype(np.float32)
    before = runtime.run(image, image)
    program = load_program(runtime, Composition(card=card, coding=CODING))
    np.testing.assert_array_equal(runtime.run(image, image), before)
    assert program.run((np.ones((1, 2, 5, 5), np.uint16),))["classes"].shape == (1, 1, 5, 5)


def test_a_program_may_be_called_from_several_threads(card):
    program = load_program(load_runtime(card, 2), Composition(card=card, coding=CODING))
    assert program.parallel == 2
    rng = np.random.default_rng(1)
    given = [rng.integers(0, 4000, (2, 2, 40, 40)).astype(np.uint16) for _ in range(8)]
    alone = [program.run((stored,)) for stored in given]
    together = [None] * len(given)

    def act(number):
        together[number] = program.run((given[number],))

    threads = [threading.Thread(target=act, args=(n,)) for n in range(len(given))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together, strict=True):
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name])


def test_a_graph_that_was_loaded_may_go(card):
    """The file is read once; the program does not look for it again."""
    runtime = load_runtime(card, 1)
    card.artifact.path.unlink()
    program = load_program(runtime, Composition(card=card, coding=CODING))
    assert program.run((np.ones((1, 2, 5, 5), np.uint16),))["classes"].shape == (1, 1, 5, 5)


@pytest.mark.parametrize(
    "reason",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for requested"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        MemoryError("Unable to take 8 GiB"),
        MemoryError(),
    ],
    ids=repr,
)
def test_what_does_not_fit_is_said_to_need_a_smaller_batch(card, reason):
    found = device_failure(card, reason)
    assert isinstance(found, DeviceMemoryError)
    assert "predict.batch" in str(found)


@pytest.mark.parametrize(
    "reason",
    [
        RuntimeError("CUDA error: device-side assert triggered\nand more\nlines"),
        RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered"),
    ],
    ids=repr,
)
def test_a_lost_device_is_said_in_one_line(card, reason):
    found = device_failure(card, reason)
    assert isinstance(found, DeviceError)
    assert not isinstance(found, DeviceMemoryError)
    assert "'tiny' lost its device" in str(found)
    assert len(str(found).splitlines()) == 1


@pytest.mark.parametrize("reason", [RuntimeError(), ValueError("shapes\ndiffer")], ids=repr)
def test_whatever_else_stops_a_model_is_the_model_s(card, reason):
    found = device_failure(card, reason)
    assert isinstance(found, ModelError)
    assert "cannot be run as its card says" in str(found)
    assert len(str(found).splitlines()) == 1


def test_long_complaints_are_cut(card):
    assert len(str(device_failure(card, RuntimeError("x" * 5000)))) < 600
