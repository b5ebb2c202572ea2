"""Hidden squares: where they lie, and how many they are."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mapper.training.adapt.masking import hidden, masked

pytestmark = pytest.mark.usefixtures("one_thread")


@given(
    height=st.integers(3, 40),
    width=st.integers(3, 40),
    share=st.floats(0.05, 0.95),
    side=st.floats(0.01, 0.5),
)
def test_squares_lie_on_a_lattice(height, width, share, side):
    torch.manual_seed(height * 100 + width)
    hide = hidden(2, height, width, share, side, "cpu").numpy()
    assert hide.shape == (2, 1, height, width)
    assert hide.dtype == bool
    cell = max(1, round(side * height))
    for k, y, x in np.ndindex(2, height, width):
        assert hide[k, 0, y, x] == hide[k, 0, y - y % cell, x - x % cell]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.7])
def test_each_is_hidden_with_the_probability(share):
    hide = hidden(50, 64, 64, share, 0.125, "cpu")[:, 0, ::8, ::8]
    count = hide.numel()
    assert count == 50 * 64
    spread = 5 * np.sqrt(count * share * (1 - share))
    assert abs(int(hide.sum()) - count * share) < spread
    assert not torch.equal(hide[0], hide[1])


def test_what_is_hidden_is_zero_and_nothing_is_said_of_it():
    image = torch.rand(2, 5, 16, 16) + 1
    valid = (torch.rand_like(image) > 0.5).float()
    hide = hidden(2, 16, 16, 0.5, 0.25, "cpu")
    assert hide.any()
    assert not hide.all()
    found, known = masked(image, valid, hide)
    over = np.broadcast_to(hide.numpy(), image.shape)
    np.testing.assert_array_equal(found.numpy(), np.where(over, 0, image.numpy()))
    assert torch.equal(known, valid)
    assert (image > 0).all()
