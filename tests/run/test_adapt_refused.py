"""What `mapper adapt` refuses for cities, before a pixel is read or anything is learned."""

import json
import shutil
from dataclasses import replace

import pytest

from mapper.area.aoi import read_areas
from mapper.errors import DataError, RecipeError, StoreError, UsageError
from mapper.recipe import load_recipe
from mapper.recipe.settings import changed
from mapper.run.adapt.batch import adapt_cities
from mapper.run.adapt.claim import claim_of
from mapper.run.adapt.maps import check_gives
from mapper.run.adapt.request import AdaptRequest, check_options, kind_of, settled
from mapper.run.layout import Version

pytestmark = [
    pytest.mark.filterwarnings("ignore:Use `@` matmul instead of:PendingDeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]

PRODUCT = "tiny-10m-2022"


def latest(mapped, slug, number):
    return Version(root=mapped, slug=slug, product=PRODUCT, number=number)


def test_a_recipe_that_did_not_make_the_map_is_refused(request_, mapped, tmp_path):
    """Its next version would be of other scenes, or of another product."""
    with pytest.raises(UsageError, match="another form of recipe 'tiny-10m'; give --catalog"):
        adapt_cities(replace(request_, catalog=None))
    other = request_.recipe.model_copy(update={"name": "other-10m"})
    with pytest.raises(UsageError, match="next version by its own model would be of other-10m"):
        adapt_cities(replace(request_, recipe=other))
    with pytest.raises(UsageError, match="--year is 2021"):
        adapt_cities(replace(request_, year=2021))
    alone = replace(request_, together=True, cities=("plainville",))
    with pytest.raises(UsageError, match="of several cities"):
        adapt_cities(alone)
    assert not request_.out.exists()


def test_the_area_of_a_version_is_exact(request_, mapped, world):
    from mapper.run.adapt.batch import Batch
    from mapper.run.adapt.maps import area_file

    batch = Batch(request=request_, out=request_.out, listener=print, stack=None, kind="run")
    version = latest(mapped, "zweistadt", 1)
    written = area_file(batch.wishes, version, request_.out)
    (own,) = read_areas(written)
    (first,) = [a for a in read_areas(world / "cities.geojson") if a.slug == "zweistadt"]
    assert (own.digest, own.name, own.country, own.slug) == (
        first.digest, first.name, first.country, first.slug,
    )  # fmt: skip
    content = json.loads(written.read_text())
    ring = content["features"][0]["geometry"]["coordinates"][0]
    ring[1][0] += 1e-6
    moved = request_.out / "moved.geojson"
    moved.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="another area for zweistadt"):
        area_file(replace(batch.wishes, aoi=moved), version, request_.out)


def test_a_folder_of_something_else_is_left_alone(request_):
    request_.out.mkdir()
    (request_.out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty and holds no adaptation"):
        adapt_cities(request_)
    assert [p.name for p in request_.out.iterdir()] == ["notes.txt"]


def test_a_target_without_the_bands_is_refused_before_anything(request_):
    recipe = changed(request_.recipe, ["bands=['sentinel2:red', 'sentinel2:coastal']"])
    with pytest.raises(DataError, match="needs sentinel2:coastal"):
        adapt_cities(replace(request_, recipe=recipe))
    assert not request_.out.exists()
    with pytest.raises(RecipeError, match="sentinel2:coastal, which none of its sources"):
        check_gives(recipe)


@pytest.mark.parametrize(
    ("target", "changes", "says"),
    [
        ("run", {"judge": "x"}, "--judge: not of a target that is a run's folder"),
        ("areas", {"year": 2022, "product": "x"}, "--product: not of a target"),
        ("areas", {}, "which year with --year"),
        ("images", {"together": True}, "--together: not of a target that is a folder of images"),
        ("run", {"devices": 2}, "--devices is of one model"),
        ("images", {"predict": False}, "--no-predict: not of a target that is a folder of images"),
        ("nothing", {}, "neither a folder of images"),
    ],
)
def test_options_that_would_do_nothing_are_refused(tmp_path, recipe_file, target, changes, says):
    (tmp_path / "run" / "cities").mkdir(parents=True)
    (tmp_path / "images").mkdir()
    (tmp_path / "source").mkdir()
    (tmp_path / "areas.geojson").touch()
    path = tmp_path / ("areas.geojson" if target == "areas" else target)
    request_ = AdaptRequest(
        recipe=load_recipe(str(recipe_file)), recipe_name="x", target=path,
        source=tmp_path / "source", out=tmp_path / "out", **changes,
    )  # fmt: skip
    with pytest.raises(UsageError, match=says):
        check_options(request_)
    if target != "nothing":
        assert kind_of(path) == target


# what the folder is for --------------------------------------------------------------------


def claimed(request_, **changes):
    """Whether the folder takes it; what it says is written down as the batch does."""
    request_ = replace(request_, **changes)
    claim, cities = claim_of(request_, request_.out, kind_of(request_.target), {})
    request_.out.mkdir(exist_ok=True)
    (request_.out / "adapt.json").write_text(json.dumps(claim | {"cities": cities}))
    return claim


def test_a_claim_is_of_one_recipe_and_one_run(request_, mapped, tmp_path):
    claim = claimed(request_)
    (request_.out / "source").mkdir()
    assert claimed(request_)["fingerprint"] == claim["fingerprint"]
    assert str(tmp_path) not in json.dumps(claim)
    for changes in ({"name": "other-10m"}, {"resolution": 20.0}, {"description": "anew"}):
        other = request_.recipe.model_copy(update=changes)
        with pytest.raises(UsageError, match="holds another adaptation; its recipe"):
            claimed(request_, recipe=other)
    # the same name, and not one version in common
    run = shutil.copytree(mapped, tmp_path / "elsewhere" / mapped.name)
    assert claimed(request_, target=run)["chosen"] == claim["chosen"]
    for path in run.rglob("version.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"token": "another"}))
    with pytest.raises(UsageError, match="was begun for another run"):
        claimed(request_, target=run)


def test_what_was_never_begun_is_claimed_anew(request_, samples, tmp_path):
    """A mistyped option must not spoil the folder."""
    other = shutil.copytree(samples, tmp_path / "other")
    claimed(request_, source=other)
    (request_.out / ".lock").touch()
    assert claimed(request_)["source"]["set"] == samples.name
    (request_.out / "cities").mkdir()
    with pytest.raises(UsageError, match="another adaptation"):
        claimed(request_, source=other)


def test_a_damaged_claim_is_named(request_):
    request_.out.mkdir()
    for content in ("{", "[1]"):
        (request_.out / "adapt.json").write_text(content)
        with pytest.raises(StoreError, match=r"adapt\.json is damaged"):
            adapt_cities(request_)


def test_a_source_that_does_not_fit_is_refused_before_areas_are_mapped(
    request_, world, samples, tmp_path
):
    areas = world / "cities.geojson"
    request_ = replace(request_, target=areas, year=2022)
    broken = shutil.copytree(samples, tmp_path / "broken")
    for path in (broken / "images").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="--source: "):
        adapt_cities(replace(request_, source=broken))
    recipe = changed(request_.recipe, ["bands=['sentinel2:red', 'sentinel1:vv']"])
    with pytest.raises(DataError, match=r"--source: .*sentinel1:vv"):
        adapt_cities(replace(request_, recipe=recipe, start=None))
    assert not request_.out.exists()


def test_what_is_written_may_not_lie_in_what_is_read(request_):
    inside = replace(request_, out=request_.source / "new" / "adapted")
    with pytest.raises(UsageError, match=r"--out .* lies in --source"):
        adapt_cities(inside)
    assert not inside.out.parent.exists()


# a target inside of a run ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("within", "product", "number"),
    [
        ("", None, None),
        (PRODUCT, PRODUCT, None),
        (f"{PRODUCT}/v1", PRODUCT, 1),
        (f"{PRODUCT}/v1/cube.zarr", PRODUCT, 1),
        (f"{PRODUCT}/v1/product", PRODUCT, 1),
    ],
)
def test_a_target_inside_of_a_run_is_a_city_of_it(request_, mapped, within, product, number):
    found = settled(replace(request_, target=mapped / "cities" / "zweistadt" / within))
    assert (found.target, found.cities) == (mapped.resolve(), ("zweistadt",))
    assert (found.product, found.version) == (product, number)
    assert settled(found) == found


def test_other_things_inside_of_a_run_are_refused(request_, mapped, tmp_path):
    zweistadt = mapped / "cities" / "zweistadt"
    for path in (mapped / "cities", zweistadt / PRODUCT / "v1" / "map.zarr"):
        with pytest.raises(UsageError, match=r"lies inside of a run; give --target .*/maps,"):
            settled(replace(request_, target=path))
    with pytest.raises(UsageError, match=r"--city: --target .* says it"):
        settled(replace(request_, target=zweistadt, cities=("plainville",)))
    images = tmp_path / "cities" / "rome"
    images.mkdir(parents=True)
    assert settled(replace(request_, target=images)).target == images
    with pytest.raises(UsageError, match="is no cube of a run's city"):
        kind_of(shutil.copytree(zweistadt / PRODUCT / "v1" / "cube.zarr", tmp_path / "my.zarr"))


def test_a_version_that_was_named_is_learned_of(request_, mapped):
    """Not the latest; one that is begun with another is refused."""
    zweistadt = mapped / "cities" / "zweistadt"
    first, second = (latest(mapped, "zweistadt", number) for number in (1, 2))
    shutil.copytree(first.path, second.path)
    cube = first.path / "cube.zarr"
    (city,) = adapt_cities(replace(request_, target=cube, predict=False)).cities
    assert city.learned == [first.key]
    with pytest.raises(UsageError, match=r"was begun with zweistadt/\S+/v1, and not with"):
        adapt_cities(replace(request_, target=second.path, predict=False))
    with pytest.raises(UsageError, match="v3 is not finished"):
        adapt_cities(replace(request_, target=zweistadt / PRODUCT / "v3"))
