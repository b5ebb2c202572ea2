"""The last steps to a geometric median, where Weiszfeld's iteration alone would be slow."""

import numpy as np
import pytest
from scipy.optimize import minimize

from mapper.cube.reduce import newton
from mapper.cube.reduce.geomedian import geomedian
from mapper.cube.reduce.newton import finish
from tests.cube.reduce.reference import cost


def valleys(pixels=40):
    """Two looks at the ground and two at cloud: a long flat valley between them."""
    draw = np.random.default_rng(11)
    ground = draw.integers(300, 2_000, (1, 4, pixels)) + draw.normal(0, 150, (2, 4, pixels))
    cloud = draw.integers(4_000, 9_000, (1, 4, pixels)) + draw.normal(0, 400, (2, 4, pixels))
    return np.clip(np.concatenate([ground, cloud]), 1, 65534).round()


def smallest(looks, start):
    options = {"xatol": 1e-3, "fatol": 1e-7, "maxiter": 4000, "maxfev": 4000}
    found = minimize(lambda p: cost(looks, p), start, method="Nelder-Mead", options=options).fun
    return min([found, *(cost(looks, look) for look in looks)])


def test_a_flat_valley_is_followed_to_its_end():
    looks = valleys()
    found = finish(looks, looks.mean(axis=0), 0.02)
    plain = looks.mean(axis=0)
    for _ in range(12):
        weight = 1 / np.linalg.norm(looks - plain, axis=1)
        plain = (looks * weight[:, None]).sum(axis=0) / weight.sum(axis=0)
    slower = 0
    for pixel in range(looks.shape[2]):
        one = looks[:, :, pixel]
        least = smallest(one, found[:, pixel])
        assert cost(one, found[:, pixel]) <= least * (1 + 1e-6)
        slower += cost(one, plain[:, pixel]) > least * (1 + 1e-5)
    assert slower > 5, "or this test would be of nothing"
    stack = looks.astype("uint16")[:, :, None]
    values, _ = geomedian(stack, np.ones((4, 1, looks.shape[2]), bool))
    exact = finish(looks, found, 1e-9)
    np.testing.assert_allclose(values[:, 0], exact, atol=0.6)


def test_where_a_look_is_the_optimum_it_is_found_exactly():
    """A look amid three others that pull evenly, and one that lies at an angle over 120 degrees."""
    star = np.array([[1000, 1000], [4000, 1000], [1000, 5000], [200, 100]], float)
    flat = np.array([[0, 0], [1000, 100], [2000, 0]], float)
    assert finish(star[:, :, None], star.mean(axis=0)[:, None], 0.02)[:, 0].tolist() == [1000, 1000]
    assert finish(flat[:, :, None], flat.mean(axis=0)[:, None], 0.02)[:, 0].tolist() == [1000, 100]
    values, _ = geomedian(flat[:, :, None, None].astype("uint16"), np.ones((3, 1, 1), bool))
    assert values[:, 0, 0].tolist() == [1000, 100]


def test_from_a_look_that_is_not_the_optimum_it_goes_on():
    looks = np.array([[1000, 1000], [0, 2000], [0, 2100], [50, 1900], [100, 2000]], float)
    found = finish(looks[:, :, None], looks[0][:, None], 0.02)[:, 0]
    assert cost(looks, found) <= smallest(looks, looks.mean(axis=0)) * (1 + 1e-6)


def test_the_step_from_a_look_goes_no_farther_than_it_helps(monkeypatch):
    """The two others pull with little more than the look holds: Weiszfeld's full step is uphill."""
    looks = np.array([[1000, 1000], [1510, 1860], [1510, 140]], float)
    monkeypatch.setattr(newton, "MOST_STEPS", 1)
    found = finish(looks[:, :, None], looks[0][:, None], 0.02)[:, 0]
    assert cost(looks, found) < cost(looks, looks[0])
    assert cost(looks, [1510, 1000]) > cost(looks, looks[0]) + 100


def test_an_estimate_that_meets_the_optimum_stays_there(monkeypatch):
    """The mean is a look that holds three against a pull of two; Newton is not called."""

    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr("mapper.cube.reduce.geomedian.finish", refuse)
    looks = np.array([[1000, 9]] * 3 + [[1300, 9]] + [[900, 9]] * 3, "uint16")
    values, _ = geomedian(looks[:, :, None, None], np.ones((7, 1, 1), bool))
    assert values[:, 0, 0].tolist() == [1000, 9]


@pytest.mark.parametrize("pixels", [1, 3])
def test_a_pixel_does_not_depend_on_those_beside(pixels):
    looks = valleys()
    whole = finish(looks, looks.mean(axis=0), 0.02)
    part = looks[:, :, 5 : 5 + pixels]
    np.testing.assert_array_equal(finish(part, part.mean(axis=0), 0.02), whole[:, 5 : 5 + pixels])
