"""Classes and pieces of the adaptation benchmark's data."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rasterio.warp import transform_bounds

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
IGNORED = 255


@pytest.fixture(scope="module", autouse=True)
def _importable():
    # scripts of one folder, which find each other when one of them is started
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def pieces():
    return importlib.import_module("adapt_pieces")


@pytest.fixture(scope="module")
def data():
    return importlib.import_module("adapt_data")


def sections():
    return yaml.safe_load((BENCHMARKS / "adapt_classes.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("task", sorted(sections()))
def test_every_class_of_a_task_has_a_class_of_each_data_set(pieces, task):
    harmony = pieces.Harmony.of(task)
    names = {entry.name for entry in harmony.classes}
    assert [entry.value for entry in harmony.classes] == list(range(len(names)))
    for rows in harmony.sets.values():
        assert {row["to"] for row in rows.values()} - {None} == names
        codes = [row["code"] for row in rows.values()]
        assert len(set(codes)) == len(codes)
        assert all(set(row) == {"code", "to", "why"} and row["why"] for row in rows.values())


def test_every_section_is_a_task_and_every_task_has_one(data):
    listed = {task.harmony for task in [*data.TASKS.values(), *data.VARIANTS.values()]}
    assert listed == set(sections())


def test_numbers_and_colours_become_classes(pieces):
    harmony = pieces.Harmony.of("dubai-valencia")
    assert dict(harmony.code("dubai").colors)[0xFEDD3A] == 1
    assert dict(harmony.code("dubai").colors)[0x9B9B9B] == IGNORED
    # a black pixel is not the number 0
    assert dict(harmony.code("dubai").values) == {}
    label = np.array([[0, 1, 255]], np.uint8)
    np.testing.assert_array_equal(harmony.read("valencia", label), [[0, 1, IGNORED]])
    with pytest.raises(ValueError, match=r"hold \[7\]"):
        harmony.read("valencia", np.full((2, 2), 7, np.uint8))


def test_majority_ignores_what_is_unknown_and_prefers_the_lower_class(pieces):
    label = np.array(
        [
            [1, 1, 255, 255, 2, 0],
            [1, 0, 255, 3, 0, 2],
            [255, 255, 4, 4, 1, 1],
            [255, 255, 4, 4, 0, 255],
        ],
        np.uint8,
    )
    np.testing.assert_array_equal(pieces.majority(label, 2), [[1, 3, 0], [255, 4, 1]])
    np.testing.assert_array_equal(pieces.majority(np.full((2, 2), 255, np.uint8), 2), [[255]])


def test_averages_are_those_of_squares(pieces):
    values = np.random.default_rng(3).integers(0, 65535, (2, 6, 9), dtype=np.uint16)
    found = pieces.averaged(values, 3)
    assert found.dtype == np.uint16
    for band in range(2):
        for row in range(2):
            for col in range(3):
                square = values[band, 3 * row : 3 * row + 3, 3 * col : 3 * col + 3]
                assert found[band, row, col] == round(square.astype(float).mean())


@given(
    counts=st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=12
    )
)
def test_halves_keep_units_whole_and_no_exchange_makes_them_more_alike(counts):
    pieces = importlib.import_module("adapt_pieces")
    classes = pieces.Harmony.of("dubai-banepa").classes
    made = [
        pieces.Piece(
            name=f"p{number}-{part}",
            values=np.zeros((3, 1, zeros + ones + unknown + 1), np.uint8),
            label=np.repeat([0, 1, 255], [zeros, ones, unknown + 1])[None].astype(np.uint8),
            unit=f"u{number}",
        )
        for number, (zeros, ones, unknown) in enumerate(counts)
        for part in range(2)
    ]
    half = pieces.halves(made, classes)
    assert half == pieces.halves(made[::-1], classes)
    sides = [half[f"p{number}-0"] for number in range(len(counts))]
    assert sides == [half[f"p{number}-1"] for number in range(len(counts))]
    assert set(sides) == {"train", "test"}

    def apart(sides):
        found = 0.0
        # what each column holds: class 0, class 1, pixels
        for column in (
            [c[0] for c in counts],
            [c[1] for c in counts],
            [sum(c) + 1 for c in counts],
        ):
            total = max(sum(column), 0.5)
            signed = sum(n if s == "train" else -n for n, s in zip(column, sides, strict=True))
            found += (signed / total) ** 2
        return found

    for one in range(len(sides)):
        for other in range(len(sides)):
            if sides[one] != sides[other]:
                changed = list(sides)
                changed[one], changed[other] = changed[other], changed[one]
                assert apart(sides) <= apart(changed) + 1e-9


def test_what_cannot_be_prepared_is_said(data, tmp_path):
    from mapper.errors import UsageError

    with pytest.raises(UsageError, match="choose among dubai-valencia"):
        data.prepare("dubai", tmp_path, None)
    with pytest.raises(UsageError, match="MAPPER_TEST_ARCHIVE"):
        data.prepare("naip-trees", tmp_path, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.archive
def test_a_task_of_real_images_is_written_whole_and_once(data, archive, tmp_path):
    from mapper.recipe.training import Data
    from mapper.training.data.layouts import open_data

    folder = data.prepare("dubai-banepa-1m", tmp_path, archive)
    about = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dubai-banepa-1m"]
    harmony = importlib.import_module("adapt_pieces").Harmony.of("dubai-banepa")
    table = importlib.import_module("mapper.recipe.training").table_of(list(harmony.classes))
    read = Data(layout="images", bands=about["bands"])
    found = open_data(folder / "target", read, table)
    names = [image.name for image in found.images]
    assert sorted(about["target"]["train"] + about["target"]["test"]) == names
    assert {image.shape for image in found.images} == {(128, 128)}
    # majorities close narrow gaps, so shares agree roughly; that all of them do is no chance
    built = [(found.read(image, None).label == 1).mean() for image in found.images]
    wanted = [_built_share(archive / "labelled" / "banepa", image.image) for image in found.images]
    assert np.std(wanted) > 0.05
    np.testing.assert_allclose(built, wanted, atol=0.02)
    source = open_data(folder / "source", read, table)
    assert about["source"]["names"] == [image.name for image in source.images]
    before = (folder / "task.json").stat().st_mtime_ns
    assert data.prepare("dubai-banepa-1m", tmp_path, None) == folder
    assert (folder / "task.json").stat().st_mtime_ns == before


def _built_share(root, image):
    """Share of an image's ground inside outlines, by their geometry alone."""
    outlines = json.loads((root / "buildings.geojson").read_text(encoding="utf-8"))
    shapes = [shapely.geometry.shape(feature["geometry"]) for feature in outlines["features"]]
    with rasterio.open(image) as dataset:
        ground = shapely.box(*transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds))
    return shapely.union_all(shapes).intersection(ground).area / ground.area
