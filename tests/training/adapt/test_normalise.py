"""The target in the source's scale."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from mapper.inference.scaling import scaling_of
from mapper.training.adapt.domains import open_domains
from mapper.training.adapt.normalise import matched
from mapper.training.adapt.statistics import BandStatistics
from mapper.training.adapt.target import open_target
from tests.training.lessons import BANDS, town, train_section, write_tiff

numbers = st.floats(-1e4, 1e4, allow_nan=False)
spans = st.floats(1e-2, 1e4)
STEPS = (
    None,
    {"type": "min-max", "minimum": 0, "maximum": 255},
    {"type": "z-score", "mean": 100.0, "stddev": 40.0},
    {"type": "offset", "value": 7},
    {"type": "scale", "value": 10_000},
)


def of(mean, deviation, count=3):
    return BandStatistics(mean=(mean,) * count, deviation=(deviation,) * count, pixels=(9,) * count)


@given(numbers, spans, numbers, spans, st.sampled_from(STEPS), st.floats(-3, 3))
def test_equal_distances_from_the_mean_enter_alike(near, spread, far, wide, step, distance):
    """Whatever the scaling was: so many deviations off are as many in the other domain."""
    train = train_section(scaling=[step])
    other = matched(train, of(near, spread), of(far, wide)).scaling[0]
    known, new = scaling_of(step), scaling_of(other)
    own = known.factor * (near + distance * spread) + known.offset
    theirs = new.factor * (far + distance * wide) + new.offset
    size = abs(known.factor) * spread + abs(known.factor * near) + abs(known.offset)
    loss = abs(new.factor) * (abs(far) + 3 * wide) + abs(new.offset)
    assert theirs == pytest.approx(own, abs=2e-5 * (size + loss))


def test_a_clip_stays():
    step = {"type": "min-max", "minimum": 0, "maximum": 1, "mapper:clip": [0, 1]}
    found = matched(train_section(scaling=[step]), of(0.2, 0.1), of(2000.0, 500.0)).scaling[0]
    assert (scaling_of(found).low, scaling_of(found).high) == (0.0, 1.0)


def test_bands_without_light_and_without_data_keep_their_scale():
    bands = ["highres:red", "sentinel1:vv_ascending", "highres:nir"]
    steps = [{"type": "scale", "value": 255}, {"type": "offset", "value": -25}, None]
    train = train_section(bands=bands, scaling=steps)
    near, far = of(100.0, 40.0), of(50.0, 20.0)
    empty = BandStatistics(mean=(50.0, -9.0, 0.0), deviation=(20.0, 3.0, 0.0), pixels=(9, 9, 0))
    assert matched(train, near, far).scaling[1] == steps[1]
    assert matched(train, near, empty).scaling[1:] == steps[1:]
    assert matched(train, near, empty).scaling[0] != steps[0]


def test_the_card_says_exactly_what_was_trained_with():
    """Six digits, and the recipe holds them, not more exact ones."""
    found = matched(train_section(), of(1 / 3, 1 / 7), of(np.pi, np.e))
    for entry in found.scaling:
        assert all(float(f"{entry[key]:.6g}") == entry[key] for key in ("mean", "stddev"))
    assert found.bands == list(BANDS)


# a target that a coarser sensor saw ---------------------------------------------------------


@pytest.fixture(scope="module")
def seen_twice(tmp_path_factory):
    """The same ground, as it is and through a sensor of 4 pixels, each with noise of its own."""
    root = tmp_path_factory.mktemp("seen")
    for number in range(8):
        image, label = town(number)
        rng = np.random.default_rng(number)
        image = np.clip(image + rng.normal(0, 40, image.shape), 1, 254).astype(np.uint8)
        write_tiff(root / "source" / "images" / f"town{number}.tif", image)
        write_tiff(root / "source" / "labels" / f"town{number}.tif", label[None])
        cells = image.reshape(3, 16, 4, 16, 4).mean(axis=(2, 4))
        wide = functional.interpolate(
            torch.from_numpy(cells)[None], size=(64, 64), mode="bilinear"
        )[0].numpy()
        write_tiff(root / "target" / f"far{number}.tif", wide.round().astype(np.uint8))
    return root


@pytest.mark.parametrize("start", ["source", "scratch"])
def test_coarseness_is_no_want_of_contrast(start, seen_twice):
    """What is seen through squares alike enters alike, whichever of the two stretched it."""
    spread = {}
    for side in (1, 4):
        train = train_section(augment={"coarsen": side}, adapt={"start": start, "method": "dpa"})
        target = open_target(seen_twice / "target", train)
        domains = open_domains(train, (seen_twice / "source", target), None, 0)
        steps = [scaling_of(made.scaling[0]) for made in (domains.source, domains.target)]
        spread[side] = steps[1].factor / steps[0].factor
    # the four held-out images are not measured, so that it is not exactly 1
    assert spread[4] == pytest.approx(1, abs=0.08)
    assert spread[1] > 1.2
