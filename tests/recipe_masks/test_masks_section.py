"""Masks as recipes write them."""

import pytest
from pydantic import TypeAdapter, ValidationError

from mapper.recipe.masks import CloudMask, Mask, ModelMask, SclMask
from mapper.recipe.section import Section, problems


class Holder(Section):
    """A source, as far as masks go."""

    mask: Mask | None = SclMask()


def read(mask):
    return Holder.model_validate({"mask": mask}).mask


def refused(mask):
    with pytest.raises(ValidationError) as error:
        read(mask)
    return problems(error.value, "recipe")


def test_a_mask_without_a_kind_is_by_scl():
    assert read({"invalid": [3, 8], "required": False}) == SclMask(invalid=[3, 8], required=False)
    assert read({}) == SclMask()
    assert Holder().mask == SclMask()


def test_the_defaults_are_those_that_recipes_had_before():
    mask = SclMask()
    assert (mask.invalid, mask.required) == ([0, 1, 3, 8, 9, 10], True)
    assert (mask.always_masked_share, mask.dilate) == (0.9, 0)


def test_no_mask_is_a_choice():
    assert read(None) is None


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ({"kind": "scl"}, SclMask),
        ({"kind": "clouds"}, CloudMask),
        ({"kind": "model", "model": "models/clouds", "invalid": ["cloud"]}, ModelMask),
    ],
)
def test_a_kind_is_read_and_survives_being_written(written, kind):
    mask = read(written)
    assert type(mask) is kind
    dumped = Holder(mask=mask).model_dump(mode="json")
    assert Holder.model_validate(dumped).mask == mask
    assert TypeAdapter(Mask).validate_python(mask) is mask


def test_the_numbers_of_the_published_rule_are_the_defaults():
    mask = CloudMask(kind="clouds")
    assert (mask.probability, mask.shadow_nir, mask.shadow_distance) == (50, 0.15, 1000)
    assert (mask.erode, mask.dilate, mask.growth, mask.resolution) == (2, 50, 100, 20)


def test_an_unknown_kind_is_refused_with_the_known_ones():
    assert "write kind: scl, clouds or model" in refused({"kind": "fmask"})
    assert "write kind: scl, clouds or model" in refused({"kind": ["scl"]})
    assert "write kind: scl, clouds or model" in refused("scl")


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        ({"dilate": 501}, "500"),
        ({"dilate": -1}, "0"),
        ({"invalid": [12]}, "[12]: SCL's classes go from 0 to 11"),
        ({"invalid": [-1]}, "[-1]: SCL's classes go from 0 to 11"),
        ({"always_masked_share": 0}, "greater than 0"),
        ({"probability": 40}, "unknown key"),
        ({"kind": "clouds", "probability": 101}, "100"),
        ({"kind": "clouds", "invalid": [3]}, "unknown key"),
        ({"kind": "model", "invalid": ["cloud"]}, "model"),
        ({"kind": "model", "model": "m", "invalid": []}, "at least 1"),
    ],
)
def test_what_cannot_be_is_refused(mask, said):
    assert said in refused(mask)


def test_each_says_what_it_reads():
    assert SclMask().bands == ["scl"]
    assert CloudMask(kind="clouds").bands == ["clp", "nir", "green", "scl"]
    assert ModelMask(kind="model", model="m", invalid=["cloud"]).bands == []


@pytest.mark.parametrize(
    ("metres", "resolution", "pixels"),
    [(0, 10, 0), (50, 10, 5), (51, 10, 6), (0.3, 0.1, 3), (2.1, 0.3, 7), (15, 10, 2), (500, 60, 9)],
)
def test_the_reach_of_scl_is_its_growth_rounded_up(metres, resolution, pixels):
    assert SclMask(dilate=metres).reach(resolution) == pixels


@pytest.mark.parametrize(
    ("resolution", "block", "reach"),
    [
        (10, 2, 2 * (5 + 2 + 50) + 1),
        (20, 1, 5 + 2 + 50),
        (60, 1, 2 + 1 + 17),
        (5, 4, 4 * (5 + 2 + 50) + 3),
        (12, 2, 2 * (5 + 2 + 42) + 1),
    ],
)
def test_the_reach_of_clouds_is_all_its_steps_in_whole_squares(resolution, block, reach):
    mask = CloudMask(kind="clouds")
    assert (mask.block(resolution), mask.reach(resolution)) == (block, reach)


def test_the_reach_of_a_model_is_known_elsewhere():
    assert ModelMask(kind="model", model="m", invalid=["cloud"], dilate=100).reach(10) == 0
