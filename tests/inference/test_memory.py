"""Memory is that of a slab of rows: it does not grow with the area, and keeps to the estimate."""

import tracemalloc

import numpy as np
import pytest

from mapper.area.grid import PixelBox
from mapper.errors import ResourceError
from mapper.inference.card import load_card
from mapper.inference.coding import Coding, Layer
from mapper.inference.engine import make_engine
from mapper.inference.memory import check_memory, pixel_bytes, predict_memory
from mapper.inference.plan import plan_inference
from mapper.inference.predict import predict_rows
from mapper.inference.rows import Source
from mapper.inference.runtime import load_runtime
from mapper.recipe import Predict
from tests.inference.tiny_models import write_model

CODING = Coding(layers=(Layer(name="s2", dtype="uint16", nodata=0, channels=(0, 1)),), bands=2)
WIDTH = 640


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    return load_card(str(write_model(tmp_path_factory.mktemp("models") / "tiny", kernel=3)))


def engine_for(card, **predict):
    runtime = load_runtime(card, 1)
    plan = plan_inference(card, runtime, Predict(**predict), CODING)
    return make_engine(card, plan, CODING, runtime)


def read(box: PixelBox):
    rows, cols = np.ogrid[box.row0 : box.row1, box.col0 : box.col1]
    ground = (rows * 7 + cols * 3) % 911 + 1
    return (np.stack([ground, ground]).astype(np.uint16),)


def peak(engine, rows: int) -> int:
    """Bytes that Python and numpy hold at most while rows come and go."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        box = PixelBox(row0=3, col0=5, row1=3 + rows, col1=5 + WIDTH)
        seen = sum(s.box.shape[0] for s in predict_rows(engine, Source(read=read, block=64), box))
        assert seen == rows
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("mode", ["core", "blend"])
def test_memory_does_not_grow_with_the_area(card, mode):
    engine = engine_for(card, mode=mode, size=66, stride=64 if mode == "core" else 48, batch=2)
    peak(engine, 200)
    # how full the queues get is a matter of timing: the small one needs several chances
    small, large = max(peak(engine, 800) for _ in range(6)), peak(engine, 6400)
    assert large < 1.15 * small
    estimate = predict_memory(card, engine.plan, CODING, WIDTH)
    assert large < estimate


def test_a_block_that_is_held_whole_counts(card):
    plan = engine_for(card, mode="core", size=66, stride=64).plan
    strips = predict_memory(card, plan, CODING, WIDTH)
    whole = predict_memory(card, plan, CODING, WIDTH, whole_rows=1000)
    assert whole - strips == 1000 * WIDTH * pixel_bytes(card, plan.decision)
    assert pixel_bytes(card, plan.decision) == 2


def test_what_does_not_fit_is_refused_with_both_numbers():
    check_memory(1 << 30, 1 << 30, "Metropolis")
    with pytest.raises(ResourceError, match=r"Metropolis would take 2\.00 GiB, 1\.50 GiB are"):
        check_memory(2 << 30, 3 << 29, "Metropolis")
