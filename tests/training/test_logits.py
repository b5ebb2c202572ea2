"""Windows over an image equal one run over the whole of it."""

import numpy as np
import pytest

from mapper.area.grid import PixelBox
from mapper.errors import ModelError
from mapper.inference.card import load_card
from mapper.inference.plan import window_layout
from mapper.inference.runtime import load_runtime
from mapper.recipe import Predict
from mapper.training.logits import Piece, logits_within
from tests.inference.tiny_models import tiny_answer, write_model


def image(height=75, width=93, holes=False):
    rng = np.random.default_rng(height)
    values = rng.normal(0, 1, (2, height, width)).astype(np.float32)
    valid = rng.random(values.shape) > (0.1 if holes else -1)
    return np.where(valid, values, np.float32(np.nan)), valid


def map_logits(card, runtime, values, valid):
    """What a model yields for a whole image."""
    box = PixelBox(row0=0, col0=0, row1=values.shape[1], col1=values.shape[2])
    piece = Piece(box=box, values=values, valid=valid)
    return logits_within(card, runtime, window_layout(card, runtime, Predict()), piece, box)


def opened(folder, **options):
    card = load_card(str(write_model(folder / "tiny", **options)))
    return card, load_runtime(card, 1)


@pytest.mark.parametrize("kernel", [1, 5])
@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("shape", [(75, 93), (7, 40)])
def test_core_crop_equals_the_whole(tmp_path, kernel, holes, shape):
    card, runtime = opened(tmp_path, kernel=kernel, validity=holes)
    values, valid = image(*shape, holes=holes)
    found = map_logits(card, runtime, values, valid)
    assert found.dtype == np.float32
    expected = tiny_answer(np.where(valid, values, 0)[None], kernel=kernel)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_fill_stands_for_what_is_not_there(tmp_path):
    card, runtime = opened(tmp_path, kernel=3, mapper_fill=0.5)
    values, valid = image(holes=True)
    filled = np.pad(np.where(valid, values, 0.5), [(0, 0), (1, 1), (1, 1)], constant_values=0.5)
    expected = tiny_answer(filled[None], kernel=3)[0][:, 1:-1, 1:-1]
    np.testing.assert_allclose(map_logits(card, runtime, values, valid), expected, atol=1e-5)


def test_values_are_scaled_by_the_card(tmp_path):
    scaling = [{"type": "z-score", "mean": 0.3, "stddev": 2.0}]
    about = [{"name": "image", "bands": ["s2:red", "s2:nir"], "value_scaling": scaling}]
    card, runtime = opened(tmp_path, mlm_input=about)
    values, valid = image()
    expected = tiny_answer((values[None] - 0.3) / 2)[0]
    np.testing.assert_allclose(map_logits(card, runtime, values, valid), expected, atol=1e-5)


def test_blended_windows_count_alike(tmp_path):
    """Mean over the windows that cover a pixel, each run by itself with nothing around it."""
    window = {"size": 32, "stride": 12, "mode": "blend"}
    card, runtime = opened(tmp_path, kernel=5, mapper_window=window)
    values, valid = image(50, 41)
    wide = np.pad(values, [(0, 0), (48, 48), (48, 48)])
    total, count = np.zeros((3, *wide.shape[1:])), np.zeros(wide.shape[1:])
    for row in range(0, wide.shape[1] - 31, 12):
        for col in range(0, wide.shape[2] - 31, 12):
            place = (slice(None), slice(row, row + 32), slice(col, col + 32))
            total[place] += tiny_answer(wide[place][None], kernel=5)[0]
            count[place[1:]] += 1
    inside = (slice(48, 98), slice(48, 89))
    expected = total[(slice(None), *inside)] / count[inside]
    np.testing.assert_allclose(map_logits(card, runtime, values, valid), expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["core", "blend"])
def test_blocks_equal_the_whole(tmp_path, mode):
    window = {"size": 32, "stride": 16, "mode": mode}
    card, runtime = opened(tmp_path, kernel=5, mapper_window=window)
    values, valid = image()
    whole = map_logits(card, runtime, values, valid)
    windows = window_layout(card, runtime, Predict())
    assert (windows.mode, windows.stride) == (mode, 16)
    image_box = PixelBox(row0=0, col0=0, row1=75, col1=93)
    wanted = PixelBox(row0=20, col0=3, row1=75, col1=50)
    box = windows.reach(wanted).intersect(image_box)
    place = (slice(None), *box.slices_in(image_box))
    piece = Piece(box=box, values=values[place], valid=valid[place])
    found = logits_within(card, runtime, windows, piece, wanted)
    np.testing.assert_allclose(found, whole[:, 20:75, 3:50], atol=1e-5)


class Recorded:
    """A runtime that is not bit-stable over the batch, and what it was given."""

    version, fixed_batch, fixed_size = "recorded", True, None

    def __init__(self, runtime, value=None):
        self.runtime, self.value, self.batches = runtime, value, []

    def run(self, image, valid):
        self.batches.append(len(image))
        raw = self.runtime.run(image, valid)
        return raw if self.value is None else np.full_like(raw, self.value)

    def compose(self, composition):
        return self.runtime.compose(composition)


def test_batches_are_filled_up_where_they_matter(tmp_path):
    card, runtime = opened(tmp_path)
    recorded = Recorded(runtime)
    values, valid = image(40, 70)
    found = map_logits(card, recorded, values, valid)
    assert set(recorded.batches) == {4}
    np.testing.assert_allclose(found, tiny_answer(values[None])[0], atol=1e-5)


def test_nan_is_refused(tmp_path):
    card, runtime = opened(tmp_path)
    values, valid = image(20, 20)
    with pytest.raises(ModelError, match="NaN"):
        map_logits(card, Recorded(runtime, np.nan), values, valid)
