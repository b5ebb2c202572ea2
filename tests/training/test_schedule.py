"""Learning rates by step and by parameter."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mapper.recipe.learning import Optimizer, Schedule
from mapper.training.networks import Supervised
from mapper.training.networks.build import NETWORKS
from mapper.training.schedule import make_optimizer, parameter_groups, rate_factor
from tests.training.lessons import TINY

pytestmark = pytest.mark.usefixtures("one_thread")

schedules = st.builds(
    Schedule,
    kind=st.sampled_from(["poly", "cosine", "constant"]),
    power=st.floats(0.1, 3),
    warmup=st.integers(0, 40),
)


def wrapped(name="ugsnet", device="cpu"):
    with torch.device(device):
        network = NETWORKS[name](3, 4, **TINY[name])
    return Supervised(network, sources=((0, 1, 2),), fill=0, validity=False, presence=False)


def test_poly():
    factor = rate_factor(Schedule(kind="poly", power=0.9), 100)
    assert [factor(s) for s in (0, 50, 100)] == pytest.approx([1, 0.5**0.9, 0])
    assert factor(99) == pytest.approx(0.01**0.9)


def test_cosine():
    factor = rate_factor(Schedule(kind="cosine"), 100)
    expected = [1, (1 + math.cos(math.pi / 4)) / 2, 0.5, 0]
    assert [factor(s) for s in (0, 25, 50, 100)] == pytest.approx(expected)


def test_constant():
    factor = rate_factor(Schedule(kind="constant", warmup=4), 100)
    assert [factor(s) for s in (4, 50, 100)] == [1, 1, 1]


def test_published_warm_up():
    """1,500 steps up to the peak, then poly of power 1 over the rest of 40,000."""
    factor = rate_factor(Schedule(kind="poly", power=1.0, warmup=1500), 40_000)
    assert factor(0) < 0.02
    assert factor(750) == pytest.approx(0.5, abs=0.01)
    assert factor(1500) == pytest.approx(1)
    assert factor(20_750) == pytest.approx(0.5)
    assert factor(40_000) == 0


@given(schedules, st.integers(1, 200))
def test_factors_rise_then_fall(schedule, steps):
    factor = rate_factor(schedule, steps)
    found = [factor(step) for step in range(steps + 5)]
    assert all(0 <= f <= 1 for f in found)
    top = min(schedule.warmup, len(found) - 1)
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    assert found[0] > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_each_parameter_is_in_one_group(name):
    network = wrapped(name, "meta")
    settings = Optimizer(rate=0.01, decay=0.05, head_factor=10)
    groups = parameter_groups(network, settings)
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in network.parameters())
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    heads = network.network.head_names
    assert sorted({g["lr"] for g in groups}) == pytest.approx([0.01, 0.1])
    for place, parameter in network.network.named_parameters():
        # the network inside of a sub-pixel one has a head of its own
        part = place.removeprefix("cells.").split(".")[0]
        assert rates[id(parameter)] == pytest.approx(0.1 if part in heads else 0.01), place
    for module in network.modules():
        for kind, parameter in module.named_parameters(recurse=False):
            plain = kind == "bias" or "Norm" in type(module).__name__
            assert decays[id(parameter)] == (0 if plain else 0.05), (module, kind)


def test_the_published_head_learns_ten_times_as_fast():
    network = wrapped("daformer", "meta")
    groups = parameter_groups(network, Optimizer(rate=6e-5, head_factor=10))
    backbone = {id(p) for p in network.network.backbone.parameters()}
    for group in groups:
        inside = {id(p) in backbone for p in group["params"]}
        assert inside == {group["lr"] < 1e-4}


def test_what_does_not_learn_is_left_out():
    network = wrapped()
    for parameter in network.network.backbone.parameters():
        parameter.requires_grad = False
    listed = {id(p) for g in parameter_groups(network, Optimizer()) for p in g["params"]}
    assert not listed & {id(p) for p in network.network.backbone.parameters()}


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (Optimizer(kind="sgd", rate=0.005, momentum=0.9, decay=1e-5), torch.optim.SGD),
        (Optimizer(kind="sgd", rate=0.005, momentum=0), torch.optim.SGD),
        (Optimizer(kind="adam", rate=1e-4, decay=0), torch.optim.Adam),
        (Optimizer(kind="adamw", rate=6e-5, decay=0.01), torch.optim.AdamW),
    ],
)
def test_optimisers(settings, kind):
    optimiser = make_optimizer(wrapped(), settings)
    assert type(optimiser) is kind
    assert {g["lr"] for g in optimiser.param_groups} == {settings.rate}
    decays = {g["weight_decay"] for g in optimiser.param_groups}
    assert decays == {0.0, settings.decay}
    if kind is torch.optim.SGD:
        for group in optimiser.param_groups:
            assert group["momentum"] == settings.momentum
            assert group["nesterov"] == (settings.momentum > 0)


def test_groups_keep_their_proportions_over_the_steps():
    optimiser = make_optimizer(wrapped(), Optimizer(rate=0.01, head_factor=10))
    factor = rate_factor(Schedule(kind="poly", warmup=3), 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
    for step in range(10):
        found = sorted({g["lr"] for g in optimiser.param_groups})
        assert found == pytest.approx([0.01 * factor(step), 0.1 * factor(step)])
        optimiser.step()
        schedule.step()
