"""What each method minimises, and what it leaves alone."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from mapper.training.adapt.method import Labelled, Moment, loss_and_logits
from mapper.training.adapt.methods import METHODS, build_method
from mapper.training.losses import make_criterion
from mapper.training.networks import build_network
from tests.training.adapt.shifted import adapting

pytestmark = pytest.mark.usefixtures("one_thread")

LEARNED = [name for name, kind in METHODS.items() if kind.learns]
FIRST = Moment(epoch=0, epochs=4, step=0)


def made(method, *settings, **changes):
    """A method around a fresh student."""
    train = adapting(method, *settings, **changes).train
    torch.manual_seed(5)
    student = build_network(train).train()
    return build_method(student, train, make_criterion(train.loss, None)), student


def batches(count=4, side=32, seed=2):
    """A labelled batch, and one of another look without labels."""
    torch.manual_seed(seed)
    label = torch.randint(0, 3, (count, side, side))
    image = functional.one_hot(label, 3).movedim(-1, 1).float() + 0.1 * torch.randn(
        count, 3, side, side
    )
    other = torch.rand(count, 3, side, side) * 0.3 + 0.5
    valid = torch.ones_like(other)
    valid[0, :, :8] = 0
    ones = torch.ones(count, side, side)
    unknown = torch.full_like(label, -1)
    source = Labelled(image=image, valid=torch.ones_like(image), label=label, weight=ones)
    return source, Labelled(image=other, valid=valid, label=unknown, weight=ones)


@pytest.mark.parametrize("method", LEARNED)
def test_losses_are_finite_and_move_the_student(method):
    made_, student = made(method)
    losses = made_.losses(*batches(), FIRST)
    assert {"source_loss", "target_loss"} <= losses.keys()
    torch.stack(list(losses.values())).sum().backward()
    moved = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in student.parameters()]
    assert np.mean(moved) > 0.9
    assert all(torch.isfinite(p.grad).all() for p in student.parameters() if p.grad is not None)


@pytest.mark.parametrize("method", LEARNED)
@pytest.mark.parametrize("network", ["ugsnet", "fbp-unet", "daformer"])
def test_every_network_can_be_adapted(method, network):
    """Points, an unlabelled channel, transformers."""
    sides = {"ugsnet": 32, "fbp-unet": 32, "daformer": 64}
    made_, _student = made(method, network=network)
    losses = made_.losses(*batches(side=sides[network]), FIRST)
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize("method", LEARNED)
def test_a_target_without_a_valid_pixel_teaches_nothing(method):
    made_, _ = made(method)
    source, target = batches()
    blank = Labelled(
        image=target.image,
        valid=torch.zeros_like(target.valid),
        label=target.label,
        weight=target.weight,
    )
    losses = made_.losses(source, blank, FIRST)
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_dpa_normalises_both_domains_together():
    """One forward: running statistics are those of the joint batch."""
    method, student = made("dpa")
    source, target = batches()
    first = next(m for m in student.modules() if isinstance(m, torch.nn.BatchNorm2d))
    seen = []
    handle = first.register_forward_hook(lambda module, given, made: seen.append(given[0]))
    method.losses(source, target, FIRST)
    handle.remove()
    assert [len(batch) for batch in seen] == [8]
    wanted = 0.1 * seen[0].mean(dim=(0, 2, 3))
    assert torch.allclose(first.running_mean, wanted, atol=1e-6)


def test_dpa_is_the_sum_of_two_equal_losses():
    method, student = made("dpa", "adapt.dpa.share=0.5")
    source, target = batches()
    state = {k: v.clone() for k, v in student.state_dict().items()}
    found = method.losses(source, target, Moment(epoch=1, epochs=4, step=9))
    student.load_state_dict(state)
    with torch.no_grad():
        joint = student(torch.cat([source.image, target.image]))
    logits = joint[4:].double().numpy()
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    entropy = -(shares * np.log(shares)).sum(axis=1) / np.log(3)
    valid = target.valid[:, 0].numpy() > 0
    keep = round((2 / 4) * 0.5 * valid.sum())
    limit = np.sort(entropy[valid])[keep - 1]
    chosen = valid & (entropy <= limit)
    assert chosen.sum() == keep
    own = -np.log(shares.max(axis=1))[chosen].mean()
    assert found["target_loss"].item() == pytest.approx(own, rel=1e-4)
    plain = functional.cross_entropy(joint[:4], source.label)
    assert found["source_loss"].item() == pytest.approx(float(plain), rel=1e-5)


def test_daspm_weighs_the_target_by_how_sure_the_teacher_is():
    """A teacher that is never sure leaves the pasted pixels alone to teach."""
    source, target = batches()
    losses = []
    for threshold in (0.999999, 1e-6):
        method, _ = made("daspm", f"adapt.daspm.threshold={threshold}", "adapt.daspm.rare=null")
        torch.manual_seed(3)
        losses.append(method.losses(source, target, FIRST)["target_loss"].item())
    assert losses[0] < losses[1]


def test_daspm_has_no_distance_without_pretrained_weights(caplog):
    with caplog.at_level("INFO"):
        method, _ = made("daspm")
    assert "distance_loss" not in method.losses(*batches(), FIRST)
    assert "off" in caplog.text


def test_the_teacher_begins_as_the_student_and_follows_it():
    method, student = made("daspm")
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)
    source, target = batches()
    method.losses(source, target, Moment(epoch=0, epochs=4, step=0))
    own = dict(method.teacher.copy.named_parameters())
    for name, parameter in student.named_parameters():
        assert torch.equal(own[name], parameter)


def test_the_discriminator_learns_from_its_own_loss_alone():
    method, student = made("adversarial")
    found = method.losses(*batches(), FIRST)
    found["target_loss"].backward(retain_graph=True)
    assert all(p.grad is None for p in method.discriminator.parameters())
    assert any(p.grad is not None for p in student.parameters())
    student.zero_grad(set_to_none=True)
    found["domain_loss"].backward()
    assert all(p.grad is not None for p in method.discriminator.parameters())
    assert all(p.grad is None for p in student.parameters())


def test_a_network_that_looks_alike_on_both_sides_fools_it():
    """The fooling loss falls when the network follows it alone."""
    method, student = made("adversarial", "adapt.adversarial.weight=1.0")
    source, target = batches()
    others = method.others()[0]
    for _ in range(30):
        others.zero_grad()
        method.losses(source, target, FIRST)["domain_loss"].backward()
        others.step()
    before = method.losses(source, target, FIRST)["target_loss"].item()
    mover = torch.optim.SGD(student.parameters(), lr=0.05)
    for _ in range(20):
        mover.zero_grad()
        method.losses(source, target, FIRST)["target_loss"].backward()
        mover.step()
    assert method.losses(source, target, FIRST)["target_loss"].item() < before


def test_the_kept_teacher_knows_the_statistics_of_the_target():
    method, student = made("consistent", "adapt.consistent.restyle=0")
    source, target = batches()
    for step in range(40):
        method.losses(source, target, Moment(epoch=0, epochs=4, step=step))
    layers = [m for m in method.result.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    inputs = []
    handle = layers[0].register_forward_hook(lambda module, given, made: inputs.append(given[0]))
    method.teacher.probabilities(target.image, target.valid)
    handle.remove()
    mean = inputs[0].mean(dim=(0, 2, 3))
    own = next(m for m in student.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert torch.allclose(layers[0].running_mean, mean, atol=0.02)
    assert not torch.allclose(own.running_mean, mean, atol=0.02)


def test_the_teacher_says_the_mean_of_its_mirrored_views():
    method, _ = made("consistent", "adapt.consistent.views=4")
    _, target = batches()
    found = method._guess(target)
    each = []
    for axes in ((), (3,), (2,), (2, 3)):
        image, valid = target.image.flip(axes), target.valid.flip(axes)
        each.append(method.teacher.probabilities(image, valid).flip(axes))
    torch.testing.assert_close(found, torch.stack(each).mean(dim=0), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(each[0], each[1], atol=1e-3)
    torch.testing.assert_close(found.sum(dim=1), torch.ones_like(found[:, 0]))


def test_restyling_leaves_labels_and_gives_colours_of_the_target():
    method, _ = made("consistent", "adapt.consistent.restyle=1")
    source, target = batches()
    shown = method._restyled(source, target)
    assert torch.equal(shown.label, source.label)
    assert abs(float(shown.image.mean()) - float(target.image[target.valid > 0].mean())) < 0.05


def test_one_forward_where_the_network_has_no_loss_of_its_own():
    _, student = made("dpa")
    source, _ = batches()
    calls = []
    handle = student.register_forward_hook(lambda *_: calls.append(1))
    loss, logits = loss_and_logits(student, source, functional.cross_entropy)
    handle.remove()
    assert len(calls) == 1
    assert loss.item() == pytest.approx(functional.cross_entropy(logits, source.label).item())
    assert not logits.requires_grad
