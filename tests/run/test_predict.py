"""`mapper predict`: single images through the engine, right or refused before a pixel is read."""

import json
import warnings

import numpy as np
import pytest
import rasterio
import rasterio.control
from affine import Affine
from PIL import Image
from rasterio.enums import ColorInterp
from rio_cogeo.cogeo import cog_validate

from mapper.errors import (
    ImageError,
    MapperError,
    PartlyDoneError,
    ResourceError,
    UsageError,
)
from mapper.run.images import ImageWishes, describe_image
from mapper.run.predict import PredictOptions, predict_images
from tests.inference.tiny_models import model_item, tiny_answer, tiny_graph, write_folder

BANDS = ("hr:red", "hr:green", "hr:blue")
PLACE = Affine(0.5, 0, 500_000.0, 0, -0.5, 4_500_000.0)
pytestmark = pytest.mark.filterwarnings(
    "ignore:Use `@` matmul instead of:PendingDeprecationWarning",
    "ignore::rasterio.errors.NotGeoreferencedWarning",
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Probes of tests are not those of the user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A 3 x 3 convolution over three bands of 8 bits, windows of 34 pixels."""
    item = model_item(bands=BANDS, kernel=3, mapper_window={"size": 34, "mode": "core"})
    item["properties"]["mlm:input"][0]["value_scaling"] = [{"type": "scale", "value": 255}]
    graph = tiny_graph(bands=3, kernel=3)
    return write_folder(tmp_path_factory.mktemp("models") / "tiny", item, graph)


@pytest.fixture
def picture():
    return np.random.default_rng(4).integers(0, 256, (3, 75, 110)).astype(np.uint8)


@pytest.fixture
def image(tmp_path):
    """Writes a GeoTIFF; gives its path."""

    def write(values, name="town.tif", **changes):
        path = tmp_path / "images" / name
        path.parent.mkdir(exist_ok=True)
        mask = changes.pop("mask", None)
        alpha = changes.pop("alpha", False)
        profile = {
            "driver": "GTiff",
            "count": values.shape[0],
            "height": values.shape[1],
            "width": values.shape[2],
            "dtype": values.dtype,
            "crs": "EPSG:32632",
            "transform": PLACE,
            **changes,
        }
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as d:
            d.write(values)
            if mask is not None:
                d.write_mask(mask)
            if alpha:
                d.colorinterp = [*d.colorinterp[:-1], ColorInterp.alpha]
        return path

    return write


def predict(image, model, out, *settings, **more):
    wishes = ImageWishes(bands=more.pop("bands", ()), scale=more.pop("scale", None))
    options = PredictOptions(
        image=image, model=str(model), out=out, settings=settings, images=wishes, **more
    )
    return predict_images(options)


def expected(values):
    """Labels of a whole picture in numpy; beyond its border there is zero, the model's fill."""
    return tiny_answer(values[None].astype(np.float64) / 255, kernel=3)[0]


def check(path, values, valid=None):
    with rasterio.open(path) as dataset:
        found = dataset.read(1)
    scores = expected(values)
    order = np.sort(scores, axis=0)
    valid = np.ones(found.shape, bool) if valid is None else valid
    clear = valid & (order[-1] - order[-2] > 1e-4)
    assert clear.mean() > 0.2
    np.testing.assert_array_equal(found[clear], scores.argmax(0)[clear])
    assert (found[~valid] == 255).all()


@pytest.mark.parametrize("settings", [(), ("batch=3",), ("size=66", "stride=64"), ("threads=2",)])
def test_a_geotiff_becomes_a_cog_in_its_place(model, image, picture, tmp_path, settings):
    report = predict(image(picture), model, tmp_path / "out", *settings)
    assert report.results[0].state == "mapped"
    assert report.results[0].files == ("town.tif", "town_confidence.tif")
    check(tmp_path / "out" / "town.tif", picture)
    with rasterio.open(tmp_path / "out" / "town.tif") as dataset:
        assert dataset.crs == "EPSG:32632"
        assert dataset.transform == PLACE
        assert dataset.nodata == 255
        assert dataset.colormap(1)[1] == (0x39, 0x7D, 0x49, 255)
    for name in report.results[0].files:
        assert cog_validate(tmp_path / "out" / name, strict=True, quiet=True)[0]


def test_a_picture_wider_and_higher_than_many_blocks(model, image, tmp_path):
    values = np.random.default_rng(5).integers(0, 256, (3, 1100, 700)).astype(np.uint8)
    path = image(values, tiled=True, blockxsize=256, blockysize=256, compress="deflate")
    predict(path, model, tmp_path / "out")
    check(tmp_path / "out" / "town.tif", values)


def test_neighbouring_images_share_the_lattice(model, image, tmp_path):
    values = np.random.default_rng(6).integers(0, 256, (3, 90, 200)).astype(np.uint8)
    image(values, "whole.tif")
    right = values[:, :, 61:]
    image(right, "right.tif", transform=PLACE @ Affine.translation(61, 0))
    predict(tmp_path / "images", model, tmp_path / "out", "mode=blend", "stride=17")
    with rasterio.open(tmp_path / "out" / "whole.tif") as dataset:
        whole = dataset.read(1)
    with rasterio.open(tmp_path / "out" / "right.tif") as dataset:
        part = dataset.read(1)
    # a window's breadth away from the cut the same windows saw the same ground
    np.testing.assert_array_equal(part[:, 34:], whole[:, 61 + 34 :])


@pytest.mark.parametrize("shape", [(64, 64), (75, 110)])
def test_whole_shows_the_model_the_image_at_once(shape, model, image, tmp_path):
    values = np.random.default_rng(5).integers(0, 256, (3, *shape)).astype(np.uint8)
    path = image(values)
    report = predict(path, model, tmp_path / "out", "mode=whole")
    check(tmp_path / "out" / "town.tif", values)
    with rasterio.open(tmp_path / "out" / "town.tif") as mapped, rasterio.open(path) as given:
        assert mapped.transform == given.transform
    # the model sees a pixel beyond each side, and takes sides of 32
    side = -(-(max(shape) + 2) // 32) * 32
    assert (report.plan["size"], report.plan["stride"]) == (side, side - 2)


def test_whole_is_one_window_where_all_of_it_counts(image, tmp_path):
    item = model_item(bands=BANDS, kernel=3)
    item["properties"] |= {"mapper:global_context": True, "mapper:data_type": "uint8"}
    model = write_folder(tmp_path / "global", item, tiny_graph(bands=3, kernel=3))
    values = np.random.default_rng(6).integers(0, 256, (3, 64, 40)).astype(np.uint8)
    report = predict(image(values), model, tmp_path / "out", "mode=whole")
    assert (report.plan["size"], report.plan["stride"], report.plan["mode"]) == (64, 64, "core")


def test_images_smaller_than_a_window_are_mapped_whole(model, image, tmp_path):
    values = np.random.default_rng(7).integers(0, 256, (3, 9, 5)).astype(np.uint8)
    predict(image(values), model, tmp_path / "out", "size=512")
    check(tmp_path / "out" / "town.tif", values)


def test_nodata_masks_and_alpha_leave_no_class(model, image, picture, tmp_path):
    hole = np.zeros(picture.shape[1:], bool)
    hole[20:40, 30:70] = True
    blank = picture.copy()
    blank[:, hole] = 0
    # zero is the model's fill too, so what lies beside a hole sees the same
    solid = np.where(picture == 0, 1, picture)
    solid[:, hole] = 0
    image(solid, "nodata.tif", nodata=0)
    image(blank, "mask.tif", mask=np.where(hole, 0, 255).astype(np.uint8))
    alpha = np.where(hole, 0, 255).astype(np.uint8)
    image(np.concatenate([blank, alpha[None]]), "alpha.tif", alpha=True)
    predict(tmp_path / "images", model, tmp_path / "out")
    check(tmp_path / "out" / "nodata.tif", solid, ~hole)
    check(tmp_path / "out" / "mask.tif", blank, ~hole)
    check(tmp_path / "out" / "alpha.tif", blank, ~hole)


def test_an_image_of_nothing_but_nodata_gives_a_map_of_nodata(model, image, tmp_path):
    report = predict(image(np.zeros((3, 40, 40), np.uint8), nodata=0), model, tmp_path / "out")
    assert report.results[0].state == "empty"
    with rasterio.open(tmp_path / "out" / "town.tif") as dataset:
        assert (dataset.read(1) == 255).all()


def test_an_image_without_a_crs_is_mapped_in_pixels(model, image, picture, tmp_path):
    path = image(picture, crs=None, transform=Affine.identity())
    report = predict(path, model, tmp_path / "out")
    assert report.results[0].state == "mapped"
    check(tmp_path / "out" / "town.tif", picture)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(tmp_path / "out" / "town.tif") as dataset:
            assert dataset.crs is None


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_chips_keep_their_name_and_get_a_palette(model, picture, tmp_path, suffix):
    (tmp_path / "chips").mkdir()
    path = tmp_path / "chips" / f"chip{suffix}"
    Image.fromarray(picture.transpose(1, 2, 0)).save(path)
    report = predict(tmp_path / "chips", model, tmp_path / "out")
    assert report.results[0].files == ("chip.png",)
    made = Image.open(tmp_path / "out" / "chip.png")
    assert made.mode == "P"
    with rasterio.open(path) as dataset:
        seen = dataset.read()
    labels, scores = np.array(made), expected(seen)
    order = np.sort(scores, axis=0)
    clear = order[-1] - order[-2] > 1e-4
    np.testing.assert_array_equal(labels[clear], scores.argmax(0)[clear])
    red = np.array(made.convert("RGB"))[labels == 1]
    assert (red == (0x39, 0x7D, 0x49)).all()


def test_every_array_that_is_asked_for_is_written(model, image, picture, tmp_path):
    report = predict(
        image(picture), model, tmp_path / "out", "mode=blend", "entropy=true", "probabilities=true"
    )
    assert report.results[0].files[2:] == ("town_entropy.tif", "town_probabilities.tif")
    with rasterio.open(tmp_path / "out" / "town_probabilities.tif") as dataset:
        shares = dataset.read().astype(float)
        assert dataset.descriptions == ("water", "green", "built")
        assert dataset.scales == (0.004,) * 3
    assert np.abs(shares.sum(axis=0) - 250).max() <= 1.5


@pytest.mark.parametrize(
    ("head", "activation", "kind"), [("values", "none", "float32"), ("labels", "sigmoid", "uint8")]
)
def test_numbers_and_independent_labels(image, picture, tmp_path, head, activation, kind):
    item = model_item(bands=BANDS, kernel=3, mapper_head=head, mapper_activation=activation)
    item["properties"]["mapper:window"] = {"size": 34, "mode": "core"}
    item["properties"]["mlm:input"][0]["value_scaling"] = [{"type": "scale", "value": 255}]
    folder = write_folder(tmp_path / "model", item, tiny_graph(bands=3, kernel=3))
    report = predict(image(picture), folder, tmp_path / "out")
    assert report.results[0].files == ("town.tif",)
    with rasterio.open(tmp_path / "out" / "town.tif") as dataset:
        found = dataset.read()
    assert found.dtype == kind
    raw = expected(picture)
    wanted = raw if head == "values" else 250 / (1 + np.exp(-raw))
    np.testing.assert_allclose(found, wanted, atol=0.51 if head == "labels" else 1e-4)


def test_no_number_and_nodata_of_floats_leave_no_class(model, image, picture, tmp_path):
    values = picture.astype(np.float32)
    values[0, 3, 4], values[1, 8, 9], values[2, 20, 30] = np.nan, np.inf, -9999
    predict(image(values, nodata=-9999), model, tmp_path / "out", scale=1.0)
    with rasterio.open(tmp_path / "out" / "town.tif") as dataset:
        classes = dataset.read(1)
    assert set(map(tuple, np.argwhere(classes == 255))) == {(3, 4), (8, 9), (20, 30)}


def test_one_black_band_is_no_hole(model, image, picture, tmp_path):
    values = np.maximum(picture, 1)
    values[0, 10:20] = 0
    predict(image(values, nodata=0), model, tmp_path / "out")
    with rasterio.open(tmp_path / "out" / "town.tif") as dataset:
        assert (dataset.read(1) != 255).all()


# refusals ----------------------------------------------------------------------------------


def refused(said, error=ImageError):
    return pytest.raises(error, match=said)


def test_thirteen_bands_for_three_need_a_choice(model, image, picture, tmp_path):
    many = np.concatenate([picture[:1]] * 10 + [picture])
    path = image(many)
    with refused(r"13 bands, model 'tiny' takes 3 \(red, green, blue\).*--bands"):
        predict(path, model, tmp_path / "out")
    predict(path, model, tmp_path / "out", bands=(11, 12, 13))
    check(tmp_path / "out" / "town.tif", picture)
    with refused("asks for"):
        predict(path, model, tmp_path / "out", bands=(1, 2, 14))
    with refused("names 2", UsageError):
        predict(path, model, tmp_path / "out", bands=(1, 2))


def test_bands_that_are_named_are_found(model, image, picture, tmp_path):
    path = image(picture[[2, 0, 1]])
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("Blue", "Red", "Green")
    predict(path, model, tmp_path / "out")
    check(tmp_path / "out" / "town.tif", picture)


def test_sixteen_bits_for_a_model_of_eight(model, image, picture, tmp_path):
    path = image(picture.astype(np.uint16) * 16)
    with refused("is uint16, model 'tiny' is made for uint8.*--scale"):
        predict(path, model, tmp_path / "out")
    predict(path, model, tmp_path / "out", scale=1 / 16)
    check(tmp_path / "out" / "town.tif", picture)


def test_whole_numbers_for_a_model_of_reflectance(image, tmp_path):
    path = image(np.ones((7, 20, 20), np.uint16))
    with refused("takes reflectance; give --scale, 0.0001"):
        describe_image(path, load("spectral-baseline"), ImageWishes())


def load(name):
    from mapper.inference.card import load_card

    return load_card(str(name))


def test_files_that_are_no_images(model, tmp_path):
    path = tmp_path / "notes.tif"
    path.write_text("not an image")
    with refused("no image that can be read"):
        predict(path, model, tmp_path / "out")
    with refused("neither a file nor a folder", UsageError):
        predict(tmp_path / "nowhere", model, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with refused("holds no image", UsageError):
        predict(tmp_path / "empty", model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_kinds_of_numbers_that_no_model_takes(model, image, tmp_path):
    path = image(np.ones((3, 20, 20), np.complex64))
    with refused("complex64; write its bands as one real type"):
        predict(path, model, tmp_path / "out", scale=1.0)


def test_images_located_by_control_points_are_warped_first(model, tmp_path):
    path = tmp_path / "gcp.tif"
    points = [rasterio.control.GroundControlPoint(r, c, c, -r) for r, c in ((0, 0), (0, 9), (9, 0))]
    profile = {"driver": "GTiff", "count": 3, "height": 20, "width": 20, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.gcps = (points, rasterio.crs.CRS.from_epsg(32632))
    with refused("ground control points; warp it first"):
        predict(path, model, tmp_path / "out")


def test_a_palette_is_no_measurement(model, tmp_path):
    path = tmp_path / "palette.png"
    Image.fromarray(np.zeros((20, 20), np.uint8)).convert("P").save(path)
    with refused("colour table"):
        predict(path, model, tmp_path / "out")


def test_a_cut_off_image_fails_and_the_others_do_not(model, image, picture, tmp_path):
    noisy = np.random.default_rng(8).integers(0, 256, (3, 600, 600)).astype(np.uint8)
    broken = image(noisy, "broken.tif", tiled=True, blockxsize=256, blockysize=256)
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    image(picture, "good.tif")
    report = predict(tmp_path / "images", model, tmp_path / "out")
    assert [r.state for r in report.results] == ["failed", "mapped"]
    assert "cut off" in report.results[0].reason
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "good.tif",
        "good.tif.aux.xml",
        "good_confidence.tif",
    }
    with pytest.raises(PartlyDoneError, match=r"broken\.tif"):
        report.check()


def test_two_images_of_one_name_and_maps_over_images(model, image, picture, tmp_path):
    path = image(picture, "town.tif")
    with refused("written over an image", UsageError):
        predict(path, model, path.parent)
    image(picture, "town.tiff")
    with refused("would both give town.tif", UsageError):
        predict(path.parent, model, tmp_path / "out")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("mode", "KEY=VALUE"),
        ("mode=sideways", "mode"),
        ("colour=red", "colour"),
        ("size=2", "size"),
    ],
)
def test_settings_that_cannot_be(model, image, picture, tmp_path, setting, said):
    with refused(said, UsageError):
        predict(image(picture), model, tmp_path / "out", setting)


def test_a_plan_that_does_not_fit_the_memory_is_refused(
    model, image, picture, tmp_path, monkeypatch
):
    monkeypatch.setattr("mapper.run.predict.free_memory", lambda: 1 << 20)
    with refused(r"would take \d\.\d+ GiB, 0\.00 GiB are there", ResourceError) as caught:
        predict(image(picture), model, tmp_path / "out")
    assert caught.value.exit_code == 3
    assert not (tmp_path / "out").exists()


def test_a_model_that_yields_nan_names_itself(image, picture, tmp_path):
    item = model_item(bands=BANDS, kernel=1, mapper_window={"size": 34, "mode": "core"})
    item["properties"]["mlm:input"][0]["value_scaling"] = [{"type": "offset", "value": 1e38}]
    folder = write_folder(tmp_path / "model", item, tiny_graph(bands=3))
    report = predict(image(picture), folder, tmp_path / "out", "batch=1")
    assert report.results[0].state == "failed"
    assert "'tiny' yields NaN" in report.results[0].reason
    assert not list((tmp_path / "out").glob("*.tif"))


def test_a_device_that_is_not_there(model, image, picture, tmp_path):
    with pytest.raises(MapperError, match=r"cuda here.*--device cpu"):
        predict(image(picture), model, tmp_path / "out", device="cuda")


def test_a_probe_is_made_once_and_kept(model, image, picture, tmp_path, monkeypatch):
    import mapper.inference.probe

    path, calls = image(picture), []
    rate = mapper.inference.probe.core_rate

    def counted(engine, *rest):
        calls.append(engine.plan.batch)
        return rate(engine, 0.001)

    monkeypatch.setattr(mapper.inference.probe, "core_rate", counted)
    predict(path, model, tmp_path / "out")
    assert calls[0] == 1
    assert len(calls) > 1
    kept = json.loads((tmp_path / "cache" / "mapper" / "probes.json").read_text())
    assert len(kept) == 1
    calls.clear()
    predict(path, model, tmp_path / "out")
    assert not calls
