"""What is trained on and what is not never share a block."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapper.errors import DataError
from mapper.recipe.training import Split
from mapper.training.data.labelled import LabelledImage
from mapper.training.data.split import split_blocks


def image(name, group="", subset="", place=None, side=10):
    path = Path(f"{name}.tif")
    return LabelledImage(
        name=name, image=path, label=path, shape=(side, side), group=group, subset=subset,
        place=place,
    )  # fmt: skip


@st.composite
def image_lists(draw, subsets=("",)):
    places = st.none() | st.tuples(st.floats(-300, 300), st.floats(-300, 300))
    entries = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["", "a", "b"]),
                st.sampled_from(subsets),
                places,
                st.integers(1, 30),
            ),
            max_size=25,
        )
    )
    return [image(f"i{n}", *entry) for n, entry in enumerate(entries)]


splits = st.builds(
    Split, validation=st.floats(0.05, 0.95), block=st.floats(20, 400), seed=st.integers(0, 99)
)


def names(images):
    return [i.name for i in images]


def block(one, side):
    return one.name if one.place is None else (one.crs, *(p // side for p in one.place))


@given(image_lists(), splits)
def test_blocks_are_never_cut(images, split):
    blocks = {block(i, split.block) for i in images}
    if len(blocks) < 2:
        with pytest.raises(DataError):
            split_blocks(images, split)
        return
    train, validation = split_blocks(images, split)
    assert sorted(names(train) + names(validation)) == sorted(names(images))
    sides = [{block(i, split.block) for i in side} for side in (train, validation)]
    assert not sides[0] & sides[1]
    assert all(sides)
    # without its last block, validation would fall short
    total = sum(i.shape[0] ** 2 for i in images)
    sizes = {b: sum(i.shape[0] ** 2 for i in images if block(i, split.block) == b) for b in blocks}
    held = sum(sizes[b] for b in sides[1])
    assert held >= split.validation * total or len(sides[0]) == 1
    assert held - max(sizes[b] for b in sides[1]) < split.validation * total


@given(image_lists(("", "train", "validation", "test")), splits, st.randoms())
def test_order_does_not_matter_and_subsets_are_kept(images, split, shuffler):
    mixed = images.copy()
    shuffler.shuffle(mixed)
    try:
        train, validation = split_blocks(images, split)
    except DataError:
        with pytest.raises(DataError):
            split_blocks(mixed, split)
        return
    assert split_blocks(mixed, split) == (train, validation)
    assert not set(names(train)) & set(names(validation))
    kept = [i for i in images if i.subset != "test"]
    assert sorted(names(train) + names(validation)) == sorted(names(kept))
    stated = {i.name for i in images if i.subset == "validation"}
    assert stated <= set(names(validation))
    if stated:
        assert {i.name for i in images if i.subset == "train"} <= set(names(train))


def test_the_seed_draws_other_blocks():
    images = [image(f"i{n}") for n in range(40)]
    drawn = {tuple(names(split_blocks(images, Split(seed=seed))[1])) for seed in range(5)}
    assert len(drawn) == 5
    assert {len(d) for d in drawn} == {8}


def test_a_draw_is_the_same_tomorrow():
    images = [image(f"i{n}", place=(n * 10, 0)) for n in range(12)]
    _, validation = split_blocks(images, Split(block=30, validation=0.4))
    assert names(validation) == ["i3", "i4", "i5", "i6", "i7", "i8"]


def test_groups_are_held_out_by_name():
    images = [image(f"{g}{n}", g, place=(0, 0)) for g in "abc" for n in range(2)]
    random.Random(3).shuffle(images)
    train, validation = split_blocks(images, Split(held_out=["b", "c"]))
    assert names(train) == ["a0", "a1"]
    assert names(validation) == ["b0", "b1", "c0", "c1"]


@pytest.mark.parametrize(
    ("held_out", "says"),
    [(["d"], "groups are a, b"), (["a", "b"], "none to train on")],
)
def test_groups_that_cannot_be_held_out(held_out, says):
    images = [image("a", "a"), image("b", "b")]
    with pytest.raises(DataError, match=says):
        split_blocks(images, Split(held_out=held_out))


def test_a_held_out_group_is_not_trained_on_behind_its_back():
    images = [image("a", "a", "train"), image("b", "b", "train"), image("c", "a", "validation")]
    with pytest.raises(DataError, match="'b', which the data set itself trains on"):
        split_blocks(images, Split(held_out=["b"]))
    train, validation = split_blocks(images[:2], Split(held_out=["b"]))
    assert (names(train), names(validation)) == (["a"], ["b"])


def test_no_groups_is_said():
    with pytest.raises(DataError, match=r"data\.group"):
        split_blocks([image("a"), image("b")], Split(held_out=["rome"]))


def test_one_block_is_too_few():
    near = [image("a", place=(1, 1)), image("b", place=(2, 2))]
    with pytest.raises(DataError, match=r"1 block.*split\.block smaller than 5000"):
        split_blocks(near, Split())
    with pytest.raises(DataError, match="0 block"):
        split_blocks([image("a", subset="test")], Split())


def test_what_the_data_set_states_needs_no_second_block():
    images = [image("a", subset="train"), image("b", subset="validation"), image("c")]
    assert [names(side) for side in split_blocks(images, Split())] == [["a", "c"], ["b"]]
