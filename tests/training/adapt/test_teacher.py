"""The moving mean by hand, and what a teacher of every network does and does not do."""

import numpy as np
import pytest
import torch
from torch import nn

from mapper.errors import ModelError
from mapper.training.adapt.teacher import Teacher
from mapper.training.networks import Supervised, build_network
from mapper.training.networks.build import NETWORKS
from mapper.training.networks.network import Segmenter
from tests.training.lessons import train_section

pytestmark = pytest.mark.usefixtures("one_thread")


def student(name="unet"):
    return build_network(train_section(network=name), pretrained=False).train()


def seen(batch=2, side=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, 3, side, side, generator=generator)
    return image, torch.ones_like(image)


def buffers(module):
    return {n: b.clone() for n, b in module.named_buffers()}


class One(Segmenter):
    """One weight, one batch normalisation of a single channel."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.norm = nn.BatchNorm2d(1)

    def forward(self, image):
        return torch.cat([self.norm(image) * self.weight, -image], dim=1)


def one():
    return Supervised(One(), sources=((0,),), fill=0.0, validity=False, presence=False)


# moving mean --------------------------------------------------------------------------------


def test_the_moving_mean_by_hand():
    """a = 0, 1/2, 2/3, then 3/4 > 0.7: 0.7."""
    taught = one()
    teacher = Teacher(taught)
    found = []
    for step, value in enumerate([8.0, 4.0, 9.0, 17.0]):
        with torch.no_grad():
            taught.network.weight.fill_(value)
        teacher.update(taught, step, 0.7)
        found.append(float(teacher.weights().network.weight))
    np.testing.assert_allclose(found, [8, 6, 7, 0.7 * 7 + 0.3 * 17], rtol=1e-6)


def test_the_first_step_copies_every_parameter():
    taught = student()
    teacher = Teacher(student())
    pairs = list(zip(teacher.weights().parameters(), taught.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in pairs)
    teacher.update(taught, 0, 0.999)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_running_statistics_are_not_averaged():
    taught = student()
    teacher = Teacher(taught)
    before = buffers(teacher)
    taught(*seen())
    teacher.update(taught, 0, 0.9)
    assert all(torch.equal(b, before[n]) for n, b in teacher.named_buffers())
    moved = zip(taught.buffers(), teacher.weights().buffers(), strict=True)
    assert not all(torch.equal(a, b) for a, b in moved)


def test_the_student_and_its_copy_share_nothing():
    taught = student()
    teacher = Teacher(taught)
    own = {p.data_ptr() for p in teacher.parameters()} | {b.data_ptr() for b in teacher.buffers()}
    theirs = {p.data_ptr() for p in taught.parameters()} | {b.data_ptr() for b in taught.buffers()}
    assert not own & theirs
    assert all(p.requires_grad for p in taught.parameters())
    assert not any(p.requires_grad for p in teacher.parameters())


# what it says -------------------------------------------------------------------------------


def test_statistics_are_of_the_batch_and_noted():
    teacher = Teacher(one())
    with torch.no_grad():
        teacher.weights().network.weight.fill_(1.0)
    image = torch.tensor([1.0, 2, 3, 6]).reshape(1, 1, 2, 2)
    found = teacher.probabilities(image, None).numpy()
    values = image.numpy().ravel()
    normed = (values - 3) / np.sqrt(3.5 + 1e-5)
    expected = 1 / (1 + np.exp(-values - normed))
    np.testing.assert_allclose(found[0, 0].ravel(), expected, rtol=1e-5)
    norm = teacher.weights().network.norm
    assert float(norm.running_mean) == pytest.approx(0.3)
    assert float(norm.running_var) == pytest.approx(0.9 + 0.1 * 14 / 3)
    assert not norm.training


@pytest.mark.parametrize("name", NETWORKS)
def test_a_teacher_of_every_network(name):
    """Dropout and stochastic depth are off even where the lesson around it is in training."""
    taught = student(name)
    teacher = nn.ModuleList([Teacher(taught)]).train()[0]
    image, valid = seen()
    before = buffers(teacher)
    state = torch.get_rng_state()
    first, second = (teacher.probabilities(image, valid) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == (2, 3, 64, 64)
    assert first.dtype == torch.float32
    assert not first.requires_grad
    torch.testing.assert_close(first.sum(dim=1), torch.ones(2, 64, 64))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not any(m.training for m in teacher.weights().modules())
    means = [n for n in before if n.endswith("running_mean")]
    after = dict(teacher.named_buffers())
    assert means
    assert not any(torch.equal(before[n], after[n]) for n in means)


def test_stochastic_depth_is_there_to_be_switched_off():
    """Else the test above proves nothing: the same network in training differs from itself."""
    taught = student("segformer")
    image, _ = seen()
    with torch.no_grad():
        first, second = (taught.network.backbone(image)[-1] for _ in range(2))
    assert not torch.equal(first, second)
    kinds = {type(m).__name__ for m in taught.modules()}
    assert "SegformerDropPath" in kinds


def test_what_it_says_is_the_networks_softmax():
    teacher = Teacher(student())
    image, valid = seen()
    found = teacher.probabilities(image, valid)
    with torch.no_grad():
        logits = teacher.weights().train()(image, valid)
    torch.testing.assert_close(found, logits.softmax(dim=1))


@pytest.mark.parametrize("name", ["gum", "ugsnet"])
def test_too_few_images(name):
    with pytest.raises(ModelError, match=r"train\.adapt\.batch"):
        Teacher(student(name)).probabilities(*seen(batch=1))


def test_a_teacher_comes_back_from_a_checkpoint():
    teacher, other = Teacher(student()), Teacher(student())
    teacher.probabilities(*seen(seed=1))
    other.load_state_dict(teacher.state_dict())
    found = [t.probabilities(*seen(seed=2)) for t in (teacher, other)]
    assert torch.equal(*found)
    states = [t.state_dict() for t in (teacher, other)]
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
