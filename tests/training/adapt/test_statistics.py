"""Statistics of bands against numpy, of layers against numpy and PyTorch's own average."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from mapper.errors import DataError, ModelError
from mapper.inference.scaling import scaled, scaling_of
from mapper.training.adapt import statistics as module
from mapper.training.adapt.statistics import (
    Moments,
    adapted_statistics,
    band_statistics,
    bare_images,
    own_scaling,
    rescaled,
    statistics_of,
)
from mapper.training.data.labelled import Pixels
from mapper.training.networks import Supervised, build_network
from mapper.training.networks.network import Segmenter
from tests.training.lessons import BANDS, TINY, train_section
from tests.training.test_patches import labelled

pytestmark = pytest.mark.usefixtures("one_thread")


def riddled(rng, shape, bands=3, dtype=np.float32):
    """Values with holes of several kinds, and which are data."""
    values = (rng.normal(size=(bands, *shape)) * 50 + 1000).astype(dtype)
    known = rng.random((bands, *shape)) > 0.4
    mask = known.copy()
    # some of the holes are NaN, others are numbers under a mask
    if values.dtype.kind == "f":
        values[~known & (rng.random(known.shape) > 0.5)] = np.nan
    values[~known & ~np.isnan(values.astype(float))] = -9999 if dtype != np.uint16 else 0
    return Pixels(values=values, valid=mask, label=None), known


def plain(pieces, scale=1.0):
    """Mean, deviation and count of each band, by all of its values at once."""
    found = []
    for band in range(len(pieces[0][0].values)):
        known = np.concatenate([pixels.values[band][mask[band]] for pixels, mask in pieces])
        known = (known.astype(np.float32) * np.float32(scale)).astype(np.float64)
        found.append((known.mean(), known.std(), known.size))
    return tuple(zip(*found, strict=True))


# bands --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
@pytest.mark.parametrize("strip", [1 << 22, 100])
def test_statistics_are_those_of_all_valid_pixels(dtype, strip, monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", strip)
    rng = np.random.default_rng(3)
    pieces = [riddled(rng, shape, dtype=dtype) for shape in ((40, 30), (9, 77), (64, 64))]
    data, _ = labelled([pixels for pixels, _ in pieces], scale=0.01)
    found = statistics_of(train_section(), data)
    mean, deviation, count = plain(pieces, 0.01)
    assert found.pixels == count
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(found.deviation, deviation, rtol=1e-10)


def test_statistics_are_of_the_recipes_bands_in_its_order():
    rng = np.random.default_rng(4)
    pixels, known = riddled(rng, (20, 20), bands=4)
    names = ("highres:nir", BANDS[2], BANDS[0], BANDS[1])
    data, _ = labelled([pixels], bands=names)
    order = [names.index(band) for band in BANDS]
    chosen = Pixels(values=pixels.values[order], valid=known[order], label=None)
    mean, _, count = plain([(chosen, known[order])])
    found = statistics_of(train_section(), data)
    assert found.pixels == count
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12)


def test_only_the_images_that_are_named_count():
    pieces = [Pixels(values=np.arange(27).reshape(3, 3, 3) + k, valid=None, label=None)
              for k in (0, 100)]  # fmt: skip
    data, _ = labelled(pieces)
    found = statistics_of(train_section(), data, data.images[1:])
    np.testing.assert_allclose(found.mean, [104, 113, 122])


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=6),
    st.floats(-1e5, 1e5),
    st.floats(1e-2, 1e3),
    st.integers(0, 10**6),
)
def test_merging_is_the_same_as_counting_all_at_once(sizes, middle, spread, seed):
    rng = np.random.default_rng(seed)
    pieces = [rng.normal(middle, spread, (1, size)) for size in sizes]
    moments = [Moments.of(p, np.ones(p.shape, bool)) for p in pieces]
    merged = moments[0]
    for one in moments[1:]:
        merged = merged.merged(one)
    backwards = moments[-1]
    for one in moments[-2::-1]:
        backwards = one.merged(backwards)
    known = np.concatenate(pieces, axis=1)
    assert merged.count == backwards.count == known.size
    for found in (merged.statistics(), backwards.statistics()):
        mean, deviation = (known.mean(), known.std()) if known.size else (0, 0)
        assert found.mean[0] == pytest.approx(mean, rel=1e-12, abs=1e-9)
        assert found.deviation[0] == pytest.approx(deviation, rel=1e-6, abs=1e-6)


def test_large_numbers_lose_no_digits():
    """What sums of squares would: a deviation of 1 about ten million."""
    values = np.full((3, 200, 200), 10_000_000, np.float32)
    values[:, ::2] += 2
    data, _ = labelled([Pixels(values=values, valid=None, label=None)])
    found = statistics_of(train_section(), data)
    np.testing.assert_allclose(found.mean, 10_000_001, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.deviation, 1.0, rtol=1e-9)


def test_a_target_that_is_all_nodata_is_refused():
    rng = np.random.default_rng(5)
    pixels, known = riddled(rng, (20, 20))
    known[1] = False
    data, _ = labelled([Pixels(values=pixels.values, valid=known, label=None)])
    with pytest.raises(DataError, match=r"no valid pixel of highres:green: .*nodata; give.*--set"):
        statistics_of(train_section(), data)
    # a source that may be missing may be missing everywhere
    found = statistics_of(train_section(required=[BANDS[0]]), data)
    assert found.pixels[1] == 0
    assert (found.mean[1], found.deviation[1]) == (0.0, 0.0)
    known[:] = False
    with pytest.raises(DataError, match="any band: all of it is nodata"):
        statistics_of(train_section(required=[]), data)


@pytest.mark.parametrize("value", [0.1, 255.0, 1 / 3])
def test_a_constant_band_of_light_is_refused(value, monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    rng = np.random.default_rng(6)
    values = rng.random((3, 23, 31)).astype(np.float32)
    values[2] = value
    data, _ = labelled([Pixels(values=values, valid=None, label=None)] * 3, scale=0.7)
    with pytest.raises(DataError, match=r"in every valid pixel of highres:blue.*--set bands"):
        statistics_of(train_section(), data)
    # a plain has no slope
    bands = (*BANDS[:2], "elevation:slope")
    level, _ = labelled([Pixels(values=values, valid=None, label=None)], bands=bands)
    train = train_section(bands=list(bands))
    assert statistics_of(train, level).deviation[2] == 0.0


def test_images_without_an_image_are_refused():
    data, _ = labelled([Pixels(values=np.ones((3, 4, 4)), valid=None, label=None)])
    with pytest.raises(DataError, match="holds no image"):
        band_statistics(bare_images(train_section(), data, []))


# through a coarser sensor -----------------------------------------------------------------------


@pytest.mark.parametrize("strip", [1 << 22, 100, 1])
def test_a_coarser_sensor_has_the_statistics_of_what_it_sees(strip, monkeypatch):
    """Against PyTorch's pooling and interpolation of whole images, in strips of any height."""
    monkeypatch.setattr(module, "_AT_ONCE", strip)
    rng = np.random.default_rng(11)
    pieces = [rng.uniform(5, 90, (3, *shape)).astype(np.float32) for shape in ((40, 30), (15, 65))]
    content = [Pixels(values=values, valid=None, label=None) for values in pieces]
    bands = (*BANDS[:2], "elevation:elevation")
    data, _ = labelled(content, bands=bands)
    found = statistics_of(train_section(bands=list(bands)), data, coarser=5)
    seen = []
    for values in pieces:
        cells = functional.avg_pool2d(torch.from_numpy(values)[None], 5)
        coarse = functional.interpolate(cells, size=values.shape[1:], mode="bilinear")[0].numpy()
        seen.append(np.concatenate([coarse[:2], values[2:]]))
    for band in range(3):
        known = np.concatenate([values[band].ravel() for values in seen]).astype(np.float64)
        assert found.pixels[band] == known.size
        assert found.mean[band] == pytest.approx(known.mean(), rel=1e-6)
        assert found.deviation[band] == pytest.approx(known.std(), rel=1e-5)


def test_holes_have_no_say_in_a_coarser_view():
    rng = np.random.default_rng(12)
    pixels, known = riddled(rng, (60, 45))
    data, _ = labelled([pixels])
    found = statistics_of(train_section(), data, coarser=5)
    assert found.pixels == tuple(known.sum(axis=(1, 2)).tolist())
    # noise of 50, averaged over about 15 of 25 pixels
    assert all(deviation < 20 for deviation in found.deviation)
    np.testing.assert_allclose(found.mean, 1000, atol=5)


@pytest.mark.parametrize("value", [0.1, 255.0, 1 / 3])
def test_a_band_that_is_level_when_seen_coarsely_is_refused(value, monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", 70)
    rng = np.random.default_rng(6)
    values = rng.random((3, 23, 31)).astype(np.float32)
    values[2] = value
    known = rng.random(values.shape) > 0.3
    data, _ = labelled([Pixels(values=values, valid=known, label=None)] * 2, scale=0.7)
    with pytest.raises(DataError, match=r"in every valid pixel of highres:blue.*--set bands"):
        statistics_of(train_section(), data, coarser=7)


# scaling ------------------------------------------------------------------------------------


def test_scaled_by_its_own_statistics_a_domain_has_mean_0_and_deviation_1():
    rng = np.random.default_rng(7)
    pixels, known = riddled(rng, (60, 60))
    data, _ = labelled([pixels], scale=0.01)
    train = train_section()
    own = rescaled(train, own_scaling(statistics_of(train, data)))
    assert [step["type"] for step in own.scaling] == ["z-score"] * 3
    for step in own.scaling:
        for number in (step["mean"], step["stddev"]):
            assert float(f"{number:.6g}") == number
    images = bare_images(own, data)
    image, valid, _ = images.scaled(images.piece(0, (0, 0, 60, 60)))
    for band, there in zip(image, valid > 0, strict=True):
        assert band[there].mean() == pytest.approx(0, abs=1e-4)
        assert band[there].std() == pytest.approx(1, abs=1e-5)
    # all else of the recipe stays, and the network is given just what the card says
    assert own.model_dump() | {"scaling": None} == train.model_dump() | {"scaling": None}
    physical = np.where(known, pixels.values * np.float32(0.01), 0).astype(np.float32)
    wanted = scaled(physical[None], [scaling_of(step) for step in own.scaling])[0]
    np.testing.assert_array_equal(image[known], wanted[known])


def test_bands_that_say_nothing_keep_their_scaling():
    statistics = module.BandStatistics(
        mean=(1.23456789, 5.0, 0.0), deviation=(0.000123456789, 0.0, 0.0), pixels=(9, 9, 0)
    )
    other = [None, {"type": "scale", "value": 90}, {"type": "offset", "value": 1}]
    own = own_scaling(statistics, other)
    assert own == [{"type": "z-score", "mean": 1.23457, "stddev": 0.000123457}, *other[1:]]
    assert own_scaling(statistics)[1:] == [None, None]


# layers -------------------------------------------------------------------------------------


class OneLayer(Segmenter):
    """A batch normalisation, and a dropout that would show."""

    def __init__(self, channels=3):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, momentum=0.3)
        self.unused = nn.BatchNorm2d(channels)
        self.classify = nn.Conv2d(channels, 2, 1)
        self.drop = nn.Dropout(0.5)

    def forward(self, image):
        return self.drop(self.classify(self.norm(self.drop(image))))


def supervised(network, validity=False):
    return Supervised(network, sources=((0, 1, 2),), fill=-1.0, validity=validity, presence=False)


def some_batches(count=4, seed=0, size=(5, 3, 12, 10)):
    rng = np.random.default_rng(seed)
    return [
        (
            torch.from_numpy(rng.normal(k, 1 + k, size).astype(np.float32)),
            torch.from_numpy((rng.random(size) > 0.2).astype(np.float32)),
        )
        for k in range(count)
    ]


@pytest.mark.parametrize("share", [1.0, 0.25])
@pytest.mark.parametrize("validity", [False, True])
def test_a_layer_gets_the_mean_of_the_batches(share, validity):
    """Two plain passes over each batch, in numpy."""
    network = supervised(OneLayer(), validity)
    network.network.norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    network.network.norm.running_var.copy_(torch.tensor([4.0, 5.0, 6.0]))
    network.eval()
    given = some_batches()
    means, variances = [], []
    for image, valid in given:
        seen = image.double().numpy()
        if validity:
            seen = np.where(valid.numpy() > 0.5, seen, -1.0)
        mean = seen.mean(axis=(0, 2, 3))
        count = seen[:, 0].size
        means.append(mean)
        variances.append(((seen - mean[:, None, None]) ** 2).sum(axis=(0, 2, 3)) / (count - 1))
    assert adapted_statistics(network, given, share) == 1
    norm = network.network.norm
    for found, new, old in (
        (norm.running_mean, np.mean(means, axis=0), np.array([1.0, 2, 3])),
        (norm.running_var, np.mean(variances, axis=0), np.array([4.0, 5, 6])),
    ):
        np.testing.assert_allclose(found.numpy(), share * new + (1 - share) * old, rtol=1e-5)


@pytest.mark.parametrize("name", ["unet", "ugsnet", "daformer", "gum"])
def test_networks_get_what_an_average_without_momentum_comes_to(name):
    """PyTorch's own: momentum None, in training, without dropout."""
    train = train_section(network=name)
    torch.manual_seed(2)
    network = build_network(train, pretrained=False).eval()
    other = copy.deepcopy(network)
    given = some_batches(3, size=(2, 3, 64, 64))
    layers = [m for m in other.modules() if isinstance(m, nn.BatchNorm2d)]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    with torch.no_grad():
        for image, valid in given:
            other(image.contiguous(memory_format=torch.channels_last), valid)
    before = torch.get_rng_state()
    assert adapted_statistics(network, iter(given), 1.0) == len(layers)
    assert torch.equal(torch.get_rng_state(), before)
    wanted = other.state_dict()
    for key, tensor in network.state_dict().items():
        if "num_batches_tracked" not in key:
            torch.testing.assert_close(tensor, wanted[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_nothing_else_of_the_network_changes(training):
    network = supervised(OneLayer())
    network.train(training)
    network.network.drop.eval()
    modes = [module.training for module in network.modules()]
    norm = network.network.norm
    norm.num_batches_tracked.fill_(7)
    kept = {n: p.clone() for n, p in network.named_parameters()}
    network.network.unused.running_mean.fill_(5.0)
    unused = copy.deepcopy(network.network.unused.state_dict())
    adapted_statistics(network, some_batches(), 1.0)
    assert [module.training for module in network.modules()] == modes
    assert (norm.momentum, int(norm.num_batches_tracked)) == (0.3, 7)
    assert all(torch.equal(p, kept[n]) for n, p in network.named_parameters())
    assert all(p.grad is None for p in network.parameters())
    # a layer that the images do not reach keeps what it has
    for key, tensor in network.network.unused.state_dict().items():
        assert torch.equal(tensor, unused[key])


def test_networks_without_batch_normalisation_are_left_alone():
    class Plain(Segmenter):
        def __init__(self):
            super().__init__()
            self.classify = nn.Conv2d(3, 2, 1)
            self.norm = nn.BatchNorm2d(3, track_running_stats=False)

        def forward(self, image):
            return self.classify(image)

    def never():
        raise AssertionError("no batch is needed")
        yield

    assert adapted_statistics(supervised(Plain()), never(), 1.0) == 0


def lost():
    yield from some_batches(2)
    raise DataError("an image is gone")


def endless():
    image = torch.full((2, 3, 8, 8), torch.inf)
    yield image, torch.ones_like(image)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        (list, ModelError, "no batch of the target"),
        (endless, ModelError, "not finite"),
        (lost, DataError, "gone"),
    ],
)
def test_a_network_is_as_it_was_where_it_fails(given, error, says):
    network = supervised(OneLayer())
    network.network.norm.running_mean.fill_(3.0)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(error, match=says):
        adapted_statistics(network, given(), 1.0)
    assert network.training
    assert network.network.norm.momentum == 0.3
    assert all(torch.equal(t, before[k]) for k, t in network.state_dict().items())


def test_every_network_can_be_adapted():
    for name in TINY:
        network = build_network(train_section(network=name), pretrained=False)
        layers = sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())
        assert adapted_statistics(network, some_batches(1, size=(2, 3, 64, 64)), 1.0) == layers
