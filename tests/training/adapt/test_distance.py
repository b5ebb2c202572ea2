"""Distances of features by numpy, and to whose weights they are."""

import logging

import numpy as np
import pytest
import torch

from mapper.errors import ModelError
from mapper.training.adapt.distance import FeatureDistance, feature_distance, last_features
from mapper.training.networks import build_network
from mapper.training.networks.backbone import MixTransformer, ResNet
from tests.training.lessons import TINY, train_section

pytestmark = pytest.mark.usefixtures("one_thread")

BACKED = ["segformer", "daformer", "deeplabv3", "deeplabv3plus", "ugsnet"]


def resnet(channels=3):
    return ResNet(channels, "resnet18", 32, width=0.125)


def transformer(channels=3):
    return MixTransformer(channels, "mit-b0")


def seen(bands=3, side=64):
    image = torch.rand(2, bands, side, side)
    return image, torch.ones_like(image)


@pytest.mark.parametrize("make", [resnet, transformer])
def test_the_distance_is_that_of_a_loop(make):
    backbone = make().train()
    image, _ = seen()
    away = FeatureDistance(backbone)
    with torch.no_grad():
        known = backbone.eval()(image)[-1]
    assert known.shape[2:] == (2, 2)
    features = known + torch.randn_like(known)
    lengths = [
        np.sqrt(((features[k, :, y, x] - known[k, :, y, x]).numpy() ** 2).sum())
        for k, y, x in np.ndindex(2, 2, 2)
    ]
    found = away(features, image)
    assert found.shape == ()
    assert float(found) == pytest.approx(np.mean(lengths), rel=1e-5)


def test_no_distance_has_a_finite_gradient():
    backbone = transformer().eval()
    image, _ = seen()
    found = FeatureDistance(backbone)(backbone(image)[-1], image)
    found.backward()
    assert float(found.detach()) == 0
    gradients = [p.grad for p in backbone.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("make", [resnet, transformer])
def test_the_frozen_backbone_stays_as_it_was(make):
    backbone = make().train()
    away = torch.nn.ModuleList([FeatureDistance(backbone)]).train()[0]
    image, _ = seen()
    before = {n: t.clone() for n, t in away.state_dict().items()}
    features = backbone(image)[-1]
    found = [away(features, image) for _ in range(2)]
    found[0].backward()
    assert torch.equal(*found)
    assert all(torch.equal(t, before[n]) for n, t in away.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in away.parameters())
    assert any(p.grad is not None and p.grad.any() for p in backbone.parameters())


# of a recipe --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKED)
def test_last_features_of_every_network_with_a_backbone(name):
    network = build_network(train_section(network=name), pretrained=False).train()
    found = last_features(network, *seen())
    assert found.shape[:2] == (2, network.network.backbone.widths[-1])
    found.sum().backward()
    assert any(p.grad is not None for p in network.network.backbone.parameters())


def test_networks_without_a_backbone():
    network = build_network(train_section(network="unet"), pretrained=False)
    with pytest.raises(ModelError, match=r"UNet has no backbone.*daspm\.distance"):
        last_features(network, *seen())


def on_cells(**changed):
    """Of a network that works on cells of 2 pixels."""
    options = TINY["segformer"] | {"of": "segformer", "ratio": 2, "hidden": 4}
    return train_section(network="subpixel", options=options, patch=64, **changed)


def test_features_on_cells_are_those_of_their_means():
    network = build_network(on_cells(), pretrained=False).eval()
    image, valid = seen()
    means = image.reshape(2, 3, 32, 2, 32, 2).mean(dim=(3, 5))
    expected = network.network.cells.backbone(means)[-1]
    torch.testing.assert_close(last_features(network, image, valid), expected)


def test_the_distance_on_cells_is_to_the_pretrained_weights(tmp_path, caplog):
    transformer().body.save_pretrained(tmp_path)
    train = on_cells(pretrained=str(tmp_path))
    network = build_network(train, pretrained=False).eval()
    away = feature_distance(network, train)
    image, valid = seen()
    expected = build_network(train).eval()
    assert float(away(last_features(expected, image, valid), image).detach()) == 0
    assert float(away(last_features(network, image, valid), image).detach()) > 0.1
    assert not caplog.records


@pytest.mark.parametrize(
    ("options", "warned"),
    [(TINY["subpixel"], False), (TINY["segformer"] | {"of": "segformer", "ratio": 2}, True)],
    ids=["unet", "segformer"],
)
def test_a_backbone_on_cells_that_starts_at_random_is_told_of(options, warned, caplog):
    with caplog.at_level(logging.WARNING):
        build_network(train_section(network="subpixel", options=options))
    assert ("backbone of subpixel starts at random" in caplog.text) == warned


@pytest.mark.parametrize("name", ["segformer", "unet", "subpixel"])
def test_off_where_nothing_is_pretrained(name, caplog):
    train = train_section(network=name)
    with caplog.at_level(logging.WARNING):
        assert feature_distance(build_network(train, pretrained=False), train) is None
    assert "feature distance is off" in caplog.text


@pytest.mark.parametrize("name", ["unet", "subpixel"])
def test_off_where_there_is_no_backbone(name, caplog):
    network = build_network(train_section(network=name), pretrained=False)
    with caplog.at_level(logging.WARNING):
        assert feature_distance(network, train_section(network=name, pretrained="x")) is None
    assert f"{name} has no backbone" in caplog.text


def test_it_is_to_the_pretrained_weights_whatever_was_learned_since(tmp_path):
    published = transformer()
    published.body.save_pretrained(tmp_path)
    train = train_section(
        network="segformer", pretrained=str(tmp_path), presence=True, bands=["a:red", "b:nir"]
    )
    # random weights, as after a training on the source
    network = build_network(train, pretrained=False).eval()
    state = torch.get_rng_state()
    away = feature_distance(network, train)
    assert torch.equal(torch.get_rng_state(), state)
    image, valid = seen(2)
    valid[:, 1, :32] = 0
    entered = network.channels(image, valid)
    assert entered.shape[1] == 4
    expected = build_network(train).eval()
    same = away(last_features(expected, image, valid), entered)
    assert float(same.detach()) == 0
    assert float(away(last_features(network, image, valid), entered).detach()) > 0.1
