"""Distances of features by numpy, and to whose weights they are."""

import logging

import numpy as np
import pytest
import torch

from mapper.errors import ModelError
from mapper.training.adapt.distance import FeatureDistance, feature_distance, last_features
from mapper.training.networks import build_network
from mapper.training.networks.backbone import MixTransformer, ResNet
from tests.training.lessons import train_section

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


@pytest.mark.parametrize("name", ["segformer", "unet"])
def test_off_where_nothing_is_pretrained(name, caplog):
    train = train_section(network=name)
    with caplog.at_level(logging.WARNING):
        assert feature_distance(build_network(train, pretrained=False), train) is None
    assert "feature distance is off" in caplog.text


def test_off_where_there_is_no_backbone(caplog):
    network = build_network(train_section(network="unet"), pretrained=False)
    with caplog.at_level(logging.WARNING):
        assert feature_distance(network, train_section(network="unet", pretrained="x")) is None
    assert "unet has no backbone" in caplog.text


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
