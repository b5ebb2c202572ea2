"""The discriminator's layers, its loss by hand, and where gradients go."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mapper.errors import ModelError
from mapper.training.adapt.discriminator import Discriminator, domain_loss, frozen_forward

pytestmark = pytest.mark.usefixtures("one_thread")


def maps(classes=3, side=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, classes, side, side, generator=generator).softmax(dim=1)


def test_layers_are_those_of_the_paper():
    """4x4 of stride 2: 2 -> 64 -> 128 -> 256 -> 512 -> 1, 2.8 million weights."""
    layers = list(Discriminator(2).layers)
    convs = [m for m in layers if isinstance(m, nn.Conv2d)]
    assert [m.in_channels for m in convs] == [2, 64, 128, 256, 512]
    assert convs[-1].out_channels == 1
    assert {(m.kernel_size, m.stride, m.padding) for m in convs} == {((4, 4), (2, 2), (1, 1))}
    between = [m for m in layers if isinstance(m, nn.LeakyReLU)]
    assert [m.negative_slope for m in between] == [0.2] * 4
    assert isinstance(layers[-1], nn.Conv2d)


@pytest.mark.parametrize(("side", "cells"), [(32, 1), (63, 1), (64, 2), (320, 10)])
def test_five_halvings(side, cells):
    with torch.inference_mode():
        assert Discriminator(3, width=4)(maps(side=side)).shape == (2, 1, cells, cells)


@pytest.mark.parametrize("shape", [(31, 64), (64, 16)])
def test_maps_too_small_are_refused(shape):
    with pytest.raises(ModelError, match=f"{shape[0]} x {shape[1]} px.*32 px"):
        Discriminator(3, width=4)(torch.rand(1, 3, *shape))


@pytest.mark.parametrize("source", [True, False])
def test_the_loss_by_hand(source):
    logits = torch.tensor([0.0, 2.0, -1.0]).reshape(1, 1, 1, 3)
    sign = 1 if source else -1
    expected = np.mean([math.log(1 + math.exp(-sign * v)) for v in (0.0, 2.0, -1.0)])
    assert float(domain_loss(logits, source)) == pytest.approx(expected, rel=1e-6)


def test_half_precision_loses_nothing():
    logits = torch.tensor([0.1, 3.3, -0.7]).half().reshape(1, 1, 1, 3)
    loss = domain_loss(logits, source=False)
    assert loss.dtype == torch.float32
    expected = np.mean(np.logaddexp(0, logits.numpy().astype(np.float64)))
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_a_frozen_forward_moves_the_map_and_not_the_weights():
    judge = Discriminator(3, width=4)
    shown = maps().requires_grad_()
    logits = frozen_forward(judge, shown)
    torch.testing.assert_close(logits, judge(shown), rtol=0, atol=0)
    domain_loss(logits, source=True).backward()
    assert shown.grad is not None
    assert float(shown.grad.abs().sum()) > 0
    assert all(p.grad is None for p in judge.parameters())
    assert all(p.requires_grad for p in judge.parameters())


def test_both_losses_go_backward_once():
    """The same gradients as in two backwards, each with the other part held."""
    judge = Discriminator(3, width=4)
    shown = maps().requires_grad_()
    fooled = domain_loss(frozen_forward(judge, shown), source=True)
    told = domain_loss(judge(shown.detach()), source=False)
    (fooled + told).backward()
    apart = torch.autograd.grad(domain_loss(judge(shown), source=True), shown)[0]
    torch.testing.assert_close(shown.grad, apart)
    own = torch.autograd.grad(domain_loss(judge(shown), source=False), list(judge.parameters()))
    for weight, gradient in zip(judge.parameters(), own, strict=True):
        torch.testing.assert_close(weight.grad, gradient)


def test_it_learns_to_tell_two_kinds_of_maps():
    judge = Discriminator(2, width=4)
    sharp = torch.zeros(4, 2, 32, 32)
    sharp[:, 0] = 1.0
    unsure = torch.full((4, 2, 32, 32), 0.5)
    moved = torch.optim.Adam(judge.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = domain_loss(judge(sharp), True) + domain_loss(judge(unsure), False)
        moved.zero_grad()
        loss.backward()
        moved.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 1.2
    assert losses[-1] < 0.1
