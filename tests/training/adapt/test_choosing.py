"""Choosing without labels: measures against plain numpy, and what they say of models that fail."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mapper.errors import ModelError
from mapper.training.adapt import choosing
from mapper.training.adapt.choosing import (
    TargetMeasures,
    choose_epoch,
    neighbourhood_density,
    score,
    stopped,
)

pytestmark = pytest.mark.usefixtures("one_thread")

MEASURES = ("entropy", "information", "density", "agreement", "dominance")


def drawn(seed=0, shape=(2, 3, 6, 5), sharpness=2.0):
    """Probabilities `(batch, class, y, x)`."""
    raw = torch.from_numpy(np.random.default_rng(seed).normal(0, sharpness, shape))
    return raw.softmax(dim=1).float()


def measured(probabilities, other=None, valid=None):
    found = TargetMeasures(probabilities.shape[1])
    everything = torch.ones(probabilities[:, 0].shape, dtype=torch.bool)
    found.add(probabilities, other, everything if valid is None else valid)
    return found.result()


def constant(values, side=8):
    """The same probabilities everywhere."""
    return torch.tensor(values)[None, :, None, None].repeat(1, 1, side, side)


def entropy(shares):
    """In nats, of `(..., class)`."""
    safe = np.where(shares > 0, shares, 1)
    return -(shares * np.log(safe)).sum(axis=-1)


def density(rows, temperature=0.05):
    """Pixel by pixel, each against the others alone."""
    rows = rows.astype(np.float64)
    rows = rows / np.sqrt((rows**2).sum(axis=1, keepdims=True))
    found = []
    for number, row in enumerate(rows):
        weights = np.exp(np.delete(rows, number, axis=0) @ row / temperature)
        found.append(entropy(weights / weights.sum()))
    return np.mean(found)


# measures against plain numpy ---------------------------------------------------------------


@given(st.integers(0, 10**6), st.integers(2, 7))
def test_measures_are_those_of_plain_numpy(seed, classes):
    probabilities, other = (drawn(seed + k, (2, classes, 4, 5)) for k in range(2))
    valid = torch.from_numpy(np.random.default_rng(seed).random((2, 4, 5)) < 0.7)
    valid[0, 0, :2] = True
    found = measured(probabilities, other, valid)
    seen = valid.numpy()
    rows, turned = (p.numpy().transpose(0, 2, 3, 1)[seen] for p in (probabilities, other))
    unit = np.log(classes)
    np.testing.assert_allclose(found["entropy"], entropy(rows).mean() / unit, rtol=1e-5)
    expected = entropy(rows.mean(axis=0)) / unit - entropy(rows).mean() / unit
    np.testing.assert_allclose(found["information"], expected, atol=1e-6)
    np.testing.assert_allclose(found["density"], density(rows), rtol=1e-4)
    same = rows.argmax(axis=1) == turned.argmax(axis=1)
    assert found["agreement"] == pytest.approx(same.mean())
    assert found["dominance"] == np.bincount(rows.argmax(axis=1)).max() / len(rows)


@pytest.mark.parametrize("bands", [1, 3])
def test_pixels_with_data_in_any_band_count(bands):
    probabilities, other = drawn(1), drawn(2)
    known = torch.from_numpy(np.random.default_rng(0).random((2, bands, 6, 5)) < 0.5).float()
    any_band = known.sum(dim=1) > 0
    assert measured(probabilities, other, known) == measured(probabilities, other, any_band)


def test_what_is_not_valid_has_no_say():
    probabilities, other = drawn(), drawn(1)
    valid = torch.ones(2, 6, 5)
    valid[:, 2:4] = 0
    expected = measured(probabilities, other, valid)
    for values in (probabilities, other):
        values[:, :, 2:4] = float("nan")
    assert measured(probabilities, other, valid) == expected


def test_density_of_rows_in_pieces(monkeypatch):
    rows = drawn(shape=(1, 4, 10, 10)).flatten(2)[0].T
    whole = neighbourhood_density(rows)
    monkeypatch.setattr(choosing, "_ROWS", 7)
    assert neighbourhood_density(rows) == pytest.approx(whole, rel=1e-6)
    assert whole == pytest.approx(density(rows.numpy()), rel=1e-4)


# models of known behaviour ------------------------------------------------------------------


def test_an_undecided_model():
    found = measured(constant([0.25] * 4))
    assert found["entropy"] == pytest.approx(1)
    assert found["information"] == pytest.approx(0, abs=1e-6)
    assert found["density"] == pytest.approx(np.log(63), rel=1e-5)


def test_a_sure_model_that_finds_all_classes():
    label = torch.arange(64).reshape(1, 8, 8) % 4
    sure = torch.nn.functional.one_hot(label, 4).movedim(3, 1).float()
    found = measured(sure, sure)
    assert found["entropy"] == 0
    assert found["information"] == pytest.approx(1)
    assert found["agreement"] == 1
    assert found["dominance"] == 0.25
    # each pixel has the 15 others of its class for neighbours, and hardly any else
    assert found["density"] == pytest.approx(np.log(15), rel=1e-5)


def test_a_collapsed_model_is_seen_through():
    found = measured(constant([0.0, 1.0, 0.0, 0.0]), constant([0.0, 1.0, 0.0, 0.0]))
    assert (found["entropy"], found["agreement"], found["dominance"]) == (0, 1, 1)
    assert found["information"] == pytest.approx(0, abs=1e-9)


def test_nothing_seen_is_no_number():
    nothing = measured(drawn(), drawn(), torch.zeros(2, 6, 5))
    assert set(nothing) == set(MEASURES)
    assert np.isnan(list(nothing.values())).all()
    alone = measured(drawn())
    assert np.isnan(alone["agreement"])
    assert not np.isnan([alone[name] for name in MEASURES if name != "agreement"]).any()
    assert np.isnan(neighbourhood_density(torch.ones(1, 3)))


def test_a_model_that_went_astray_is_no_number():
    broken = drawn()
    broken[0, 0, 0, 0] = float("nan")
    assert np.isnan([measured(broken)[name] for name in ("entropy", "information")]).all()


# batches and processes ----------------------------------------------------------------------


@given(st.integers(0, 10**6), st.lists(st.integers(1, 7), max_size=3))
def test_batches_change_nothing(seed, cuts):
    probabilities, other = drawn(seed, (8, 3, 4, 4)), drawn(seed + 1, (8, 3, 4, 4))
    valid = torch.from_numpy(np.random.default_rng(seed).random((8, 4, 4)) < 0.8)
    parts = TargetMeasures(3)
    bounds = [0, *sorted(set(cuts)), 8]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choosing, "SAMPLE", 40)
        whole = measured(probabilities, other, valid)
        for low, high in pairwise(bounds):
            parts.add(probabilities[low:high], other[low:high], valid[low:high])
        found = parts.result()
    for name in MEASURES:
        assert found[name] == pytest.approx(whole[name], rel=1e-6)


def test_the_sample_is_bounded_and_fair(monkeypatch):
    """Of pixels in a row, early and late ones are sampled alike."""
    monkeypatch.setattr(choosing, "SAMPLE", 500)
    found = TargetMeasures(2)
    for number in range(20):
        share = torch.full((1, 1, 20, 50), number / 20)
        found.add(torch.cat([share, 1 - share], dim=1), None, torch.ones(1, 20, 50))
    assert found._vectors.shape == (500, 2)
    counts = np.unique(found._vectors[:, 0], return_counts=True)[1]
    assert len(counts) == 20
    assert (np.abs(counts - 25) < 15).all()


def test_what_one_process_measured_says_the_same_in_another():
    found = TargetMeasures(4)
    found.add(drawn(3, (6, 4, 4, 4)), drawn(4, (6, 4, 4, 4)), torch.ones(6, 4, 4))
    there = pickle.loads(pickle.dumps(found))
    assert there.result() == found.result()
    assert there.seen == 6 * 16


# choosing -----------------------------------------------------------------------------------


def line(epoch, **measures):
    return {"epoch": float(epoch), "miou": 0.5, **measures}


def test_higher_is_better_whatever_the_criterion():
    better = line(1, miou=0.7, entropy=0.1, information=0.6, density=5.0, agreement=0.9)
    worse = line(0, miou=0.6, entropy=0.3, information=0.2, density=4.0, agreement=0.8)
    for criterion in ("last", "source", "entropy", "information", "density", "agreement"):
        assert score(better, criterion) > score(worse, criterion)
    assert score(better, "entropy") == -0.1
    assert np.isnan(score(line(0), "density"))


@pytest.mark.parametrize(
    ("criterion", "chosen"),
    [("last", 3), ("source", 0), ("entropy", 3), ("information", 1), ("agreement", 2)],
)
def test_each_criterion_chooses_its_own(criterion, chosen):
    """The last epoch has collapsed, which entropy takes for success and information does not."""
    lines = [
        line(0, miou=0.9, entropy=0.5, information=0.3, agreement=0.6),
        line(1, miou=0.8, entropy=0.3, information=0.5, agreement=0.7),
        line(2, miou=0.7, entropy=0.4, information=0.4, agreement=0.95),
        line(3, miou=0.3, entropy=0.0, information=0.0, agreement=0.9),
    ]
    assert choose_epoch(lines, criterion) == chosen


values = st.lists(st.sampled_from([0.1, 0.2, 0.3, float("nan")]), min_size=1, max_size=8)


@given(values, st.sampled_from(["entropy", "density"]))
def test_the_first_of_the_best_is_chosen_and_never_one_without_a_number(found, criterion):
    lines = [line(number, **{criterion: value}) for number, value in enumerate(found)]
    numbers = [value for value in found if not np.isnan(value)]
    if not numbers:
        with pytest.raises(ModelError, match=rf"{len(found)} epochs .* '{criterion}'"):
            choose_epoch(lines, criterion)
        return
    best = min(numbers) if criterion == "entropy" else max(numbers)
    assert choose_epoch(lines, criterion) == found.index(best)


@given(values, st.integers(1, 5))
def test_it_stops_after_so_many_epochs_without_a_better_one(found, patience):
    lines = [line(number, agreement=value) for number, value in enumerate(found)]
    best, waited = -1.0, 0
    for value in found:
        waited += 1
        if value > best:
            best, waited = value, 0
    assert stopped(lines, "agreement", patience) == (waited >= patience)
    assert not stopped(lines, "agreement", None)
    assert not stopped(lines, "last", patience)
