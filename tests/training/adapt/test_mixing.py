"""ClassMix pixel by pixel."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mapper.training.adapt.mixing import Labelled, class_mix

pytestmark = pytest.mark.usefixtures("one_thread")


def domain(seed, batch=3, classes=5, bands=4, low=-1, weight=0.25):
    """Of the classes every other one is never there."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, bands, 8, 9)
    label = torch.randint(low, classes, (batch, 8, 9), generator=generator)
    return Labelled(
        image=torch.rand(shape, generator=generator),
        valid=(torch.rand(shape, generator=generator) > 0.3).float(),
        label=torch.where(label > 0, 2 * label, label),
        weight=torch.full((batch, 8, 9), weight),
    )


def pasted_classes(source, mixed, k):
    """Classes whose pixels are those of the source, all of them or none."""
    of = k % len(source.image)
    found = set()
    for kind in source.label[of].unique().tolist():
        where = source.label[of] == kind
        same = (mixed.image[k] == source.image[of]).all(dim=0)[where]
        assert same.all() or not same.any()
        found |= {kind} if same.all() else set()
    return found


@given(
    seed=st.integers(0, 10**6), share=st.floats(0.01, 1), sizes=st.sampled_from([(3, 3), (2, 5)])
)
def test_whole_classes_are_pasted_with_all_that_belongs_to_them(seed, share, sizes):
    source, target = domain(seed, sizes[0]), domain(seed + 1, sizes[1])
    torch.manual_seed(seed)
    mixed = class_mix(source, target, share)
    for k in range(sizes[1]):
        of = k % sizes[0]
        present = {c for c in source.label[of].unique().tolist() if c >= 0}
        chosen = pasted_classes(source, mixed, k)
        assert chosen <= present
        assert len(chosen) == max(1, int(np.floor(share * len(present) + 0.5)))
        over = np.isin(source.label[of].numpy(), list(chosen))
        for name in ("image", "valid", "label"):
            ours, theirs = getattr(source, name)[of].numpy(), getattr(target, name)[k].numpy()
            expected = np.where(over, ours, theirs)
            np.testing.assert_array_equal(getattr(mixed, name)[k].numpy(), expected)
        np.testing.assert_array_equal(mixed.weight[k].numpy(), np.where(over, 1, 0.25))


@pytest.mark.parametrize(("present", "pasted"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (7, 4)])
def test_half_of_the_classes_is_rounded_up(present, pasted):
    """As published: (n + n % 2) / 2."""
    source, target = domain(0, 1, present, low=0), domain(1, 1)
    assert len(pasted_classes(source, class_mix(source, target, 0.5), 0)) == pasted


def test_every_class_is_drawn_alike():
    source, target = domain(0, 1, 4, low=0), domain(1, 600)
    mixed = class_mix(source, target, 0.5)
    counts = np.zeros(7)
    pairs = set()
    for k in range(600):
        chosen = pasted_classes(source, mixed, k)
        counts[list(chosen)] += 1
        pairs.add(tuple(sorted(chosen)))
    assert len(pairs) == 6
    # 5 standard deviations of a binomial
    np.testing.assert_allclose(counts[::2], 300, atol=5 * np.sqrt(150))


def test_nothing_to_paste():
    source, target = domain(0), domain(1)
    blank = Labelled(
        image=source.image,
        valid=source.valid,
        label=torch.full_like(source.label, -1),
        weight=source.weight,
    )
    for mixed in (class_mix(blank, target, 0.5), class_mix(source, target, 0.0)):
        for name in ("image", "valid", "label", "weight"):
            assert torch.equal(getattr(mixed, name), getattr(target, name))


def test_neither_domain_is_changed():
    source, target = domain(0), domain(1)
    images, labels = source.image.clone(), target.label.clone()
    class_mix(source, target, 0.5)
    assert torch.equal(source.image, images)
    assert torch.equal(target.label, labels)
    assert (target.weight == 0.25).all()


def test_the_generator_alone_decides():
    source, target = domain(0), domain(1)
    found = []
    for seed in (4, 4, 5):
        torch.manual_seed(seed)
        found.append(class_mix(source, target, 0.5).label)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
