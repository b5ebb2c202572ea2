"""Networks that draw finer than the sensor sees: cells, their head, and maps made with them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from mapper.area.grid import PixelBox
from mapper.errors import RecipeError
from mapper.inference.card import load_card
from mapper.inference.coding import Coding, Layer
from mapper.inference.engine import make_engine
from mapper.inference.folder import Opening, check_forms, open_unchecked
from mapper.inference.plan import plan_inference
from mapper.inference.predict import predict_box
from mapper.inference.rows import Source
from mapper.inference.runtime import load_runtime
from mapper.recipe import Predict
from mapper.training import export as module
from mapper.training.export import ExportOptions, export_model
from mapper.training.finetune import Ends, start_from
from mapper.training.networks import build_network
from mapper.training.networks.build import NETWORKS, check_sizes
from mapper.training.networks.subpixel import SubPixel, cut, repeated
from tests.training.lessons import BANDS, TINY, listed, make_trained, train_section

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"width": 4, "depth": 2, "hidden": 6}


def made(ratio=5, seed=0, **options):
    torch.manual_seed(seed)
    return SubPixel(3, 4, ratio=ratio, **(SMALL | options)).eval()


def noise(height, width, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, height, width, generator=generator, dtype=dtype)


# what the sensor saw ------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [2, 3, 5])
def test_only_the_mean_of_a_cell_is_seen(ratio):
    """Pixels that change places within their cells change nothing."""
    network, image = made(ratio).double(), noise(6 * ratio, 4 * ratio, dtype=torch.float64)
    network.train()
    cells = image.reshape(1, 3, 6, ratio, 4, ratio)
    shuffled = cells.flip(3).roll(1, 5).reshape(image.shape)
    other = image.roll(1, 3)
    with torch.inference_mode():
        found = network(image)
        torch.testing.assert_close(network(shuffled), found)
        assert (network(other) - found).abs().max() > 0.1


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("ratio", [2, 5])
def test_pixels_of_a_cell_can_differ(ratio, coarse):
    network = made(ratio, coarse=coarse)
    torch.nn.init.normal_(network.divide.weight)
    with torch.inference_mode():
        found = network(noise(4 * ratio, 4 * ratio))
    cells = found.reshape(1, 4, 4, ratio, 4, ratio)
    assert (cells.amax(dim=(3, 5)) - cells.amin(dim=(3, 5))).median() > 0.01


def test_the_network_on_the_cells_is_any():
    for name, kind in NETWORKS.items():
        if name in ("subpixel", "ugsnet"):
            with pytest.raises(RecipeError, match=rf"of is '{name}'; use one of gum, unet"):
                SubPixel(3, 4, of=name)
            continue
        network = SubPixel(3, 4, of=name, ratio=2, hidden=6, **TINY[name]).eval()
        assert isinstance(network.cells, kind)
        inner = network.cells
        assert network.multiple == 2 * inner.multiple
        assert network.global_context == inner.global_context
        assert network.least_batch == inner.least_batch
        assert set(inner.head_names) < set(network.head_names)
        with torch.inference_mode():
            assert network(noise(64, 64)).shape == (1, 4, 64, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 1}, "ratio is 1; give pixels along a cell, 2 or more"),
        ({"hidden": 0}, "hidden is 0; give 1 channel or more"),
        ({"of": "resunet"}, "of is 'resunet'; use one of gum, unet"),
        ({"wide": 3}, "unexpected keyword argument 'wide'"),
    ],
)
def test_options_that_will_not_do(options, message):
    train = train_section(network="subpixel", options=TINY["subpixel"] | options)
    with pytest.raises(RecipeError, match=message):
        build_network(train)


# the start ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [2, 3, 5])
def test_at_the_start_it_is_nearly_the_interpolation_of_the_cells(ratio):
    # normalised by what it sees: what an unlearned network yields is else almost constant
    network = made(ratio, hidden=16).train()
    image = noise(16 * ratio, 16 * ratio)
    with torch.inference_mode():
        features = network.features(image)
        spread = functional.pixel_shuffle(network.divide(features), ratio)
        nearest = spread[..., ::ratio, ::ratio]
        torch.testing.assert_close(
            spread, functional.interpolate(nearest, scale_factor=ratio, mode="nearest")
        )
        coarse = functional.interpolate(
            network.coarse(features), scale_factor=ratio, mode="bilinear"
        )
        off = network(image) - coarse
    assert 0 < off.std(dim=(2, 3)).max() < 0.3 * coarse.std(dim=(2, 3)).min()


def test_it_learns_what_is_finer_than_its_cells():
    """Each cell is split in two where its colour says so."""
    torch.manual_seed(1)
    network = SubPixel(3, 2, ratio=4, hidden=8, width=4, depth=2)
    rng = np.random.default_rng(0)
    share = torch.from_numpy(rng.integers(1, 4, (4, 1, 8, 8)).astype(np.float32))
    label = (torch.arange(32) % 4 < share.repeat_interleave(4, 2).repeat_interleave(4, 3)).long()
    image = label.float().repeat(1, 3, 1, 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        network.loss(image, label[:, 0], functional.cross_entropy).backward()
        optimizer.step()
    with torch.inference_mode():
        right = (network.eval()(image).argmax(dim=1) == label[:, 0]).float().mean()
    # the best that one class a cell could do is 2/3 of 3/4 and 1/3 of 1/2
    assert right > 0.95


# sides that are no multiples ----------------------------------------------------------------


@pytest.mark.parametrize(("height", "width", "multiple"), [(7, 12, 5), (10, 11, 10), (4, 8, 4)])
def test_the_last_row_and_column_are_repeated(height, width, multiple):
    image = noise(height, width)
    found = repeated(image, multiple)
    sides = [-(-side // multiple) * multiple for side in (height, width)]
    padding = ((0, 0), (0, 0), (0, sides[0] - height), (0, sides[1] - width))
    np.testing.assert_array_equal(found.numpy(), np.pad(image.numpy(), padding, mode="edge"))
    np.testing.assert_array_equal(cut(found, image).numpy(), image.numpy())


def test_any_side_will_do():
    network = made(5)
    whole = noise(60, 60)
    with torch.inference_mode():
        for height, width in ((33, 47), (60, 59), (60, 60), (1, 1)):
            part = whole[..., :height, :width]
            found = network(part)
            assert found.shape == (1, 4, height, width)
            torch.testing.assert_close(found, cut(network(repeated(part, 10)), part))


def test_patches_and_windows_are_of_whole_cells():
    options = TINY["subpixel"]
    good = {"patch": 40, "window": {"size": 60, "stride": 20}}
    for changed, said in (
        ({}, None),
        ({"patch": 64}, "patch is 64; subpixel takes multiples of 10"),
        ({"window": {"size": 64}}, "window size is 64; subpixel takes multiples of 10"),
        ({"window": {"size": 60, "stride": 32}}, "stride is 32; subpixel takes multiples of 5"),
    ):
        train = train_section(network="subpixel", options=options, **(good | changed))
        network = build_network(train)
        if said is None:
            check_sizes(network, train)
            continue
        with pytest.raises(RecipeError, match=said):
            check_sizes(network, train)


# beginning with other weights ---------------------------------------------------------------


@pytest.mark.parametrize("coarse", [False, True])
def test_weights_go_over_to_other_bands_and_classes(coarse):
    options = TINY["subpixel"] | {"coarse": coarse}
    source = make_trained(network="subpixel", options=options)
    names = [("water", "E2A929"), ("land", "8429F6"), ("wood", "00FF00")]
    train = train_section(
        network="subpixel",
        options=options,
        bands=[BANDS[2], BANDS[0]],
        classes=listed(names),
    )
    network = build_network(train)
    ends = Ends.of(network, train)
    assert ends.first.startswith("network.cells.")
    about = start_from(network, train, source)
    assert about["random"] == []
    old, new = source.network.network, network.network
    first = next(n for n, m in old.named_modules() if isinstance(m, torch.nn.Conv2d))
    was, now = (n.get_submodule(first).weight for n in (old, new))
    torch.testing.assert_close(now, was[:, [2, 0]])
    was, now = old.classify.weight, new.classify.weight
    torch.testing.assert_close(now[:2, -4:], was[[2, 0], -4:])
    torch.testing.assert_close(new.divide.weight, old.divide.weight)
    if coarse:
        torch.testing.assert_close(now[:2, :2], was[[2, 0]][:, [2, 0]])
        torch.testing.assert_close(new.coarse.weight[:2], old.coarse.weight[[2, 0]])


# exported, and on the lattice ---------------------------------------------------------------


AREA = PixelBox(row0=-400, col0=-390, row1=800, col1=810)
"""Of the ground: its corner lies on the corner of a cell."""
BOX = PixelBox(row0=-57, col0=33, row1=131, col1=284)
CODING = Coding(
    layers=(Layer(name="highres", dtype="uint8", nodata=0, channels=(0, 1, 2)),), bands=3
)


@pytest.fixture(scope="module")
def ground():
    """Squares of 15 pixels of all colours, and noise."""
    rng = np.random.default_rng(3)
    colours = rng.integers(40, 215, (3, 80, 80)).repeat(15, axis=1).repeat(15, axis=2)
    return (colours + rng.integers(-39, 40, colours.shape)).astype(np.uint8)


def _balance(trained, ground):
    """Classes that come up alike often, and differ enough to be told apart."""
    network = trained.network.network
    piece = torch.from_numpy(ground[None, :, :200, :200].astype(np.float32))
    with torch.no_grad():
        network.train()(piece)
        network.eval().coarse.weight.mul_(8)
        network.classify.bias -= network(piece).mean(dim=(0, 2, 3))


@pytest.fixture(scope="module")
def exported(tmp_path_factory, ground):
    """A network of 5 x 5 pixels a cell as a model folder, and the network itself."""
    folder = tmp_path_factory.mktemp("subpixel")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
            patch.setenv(name, str(folder / name))
        patch.setattr(module, "_REFERENCE_SIDE", 40)
        trained = make_trained(
            network="subpixel",
            options=TINY["subpixel"] | {"width": 2, "hidden": 3},
            window={"size": 200, "mode": "core"},
            scaling=[None],
        )
        _balance(trained, ground)
        options = ExportOptions(
            out=folder / "model", name="cells", formats=("onnx",), field_limit=192
        )
        export_model(trained, options)
    return trained, load_card(str(folder / "model"))


def test_the_graph_is_the_network(exported):
    trained, card = exported
    assert card.artifact.shape == (None, None)
    assert [(c.form, c.state) for c in check_forms(card, "all", Opening())] == [("onnx", "ok")]
    runtime = open_unchecked(card, Opening())
    for side in ((50, 80), (64, 47), (5, 10)):
        image = noise(*side).numpy()
        with torch.inference_mode():
            expected = trained.network(torch.from_numpy(image)).numpy()
        found = runtime.run(image, np.ones_like(image))
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.ptp(expected))


def test_the_card_knows_the_cell(exported):
    _, card = exported
    assert (card.window["cell"], card.window["multiple"]) == (5, 10)
    assert not card.global_context
    plain = make_trained().network.network
    assert getattr(plain, "cell", 1) == 1


def mapped(card, ground, box, block=64, area=AREA, **wanted):
    def read(place):
        return (ground[(slice(None), *place.slices_in(area))],)

    runtime = load_runtime(card, 1)
    plan = plan_inference(card, runtime, Predict(**wanted), CODING)
    engine = make_engine(card, plan, CODING, runtime)
    return plan, predict_box(engine, Source(read=read, block=block), box).arrays


PARTS = (
    PixelBox(row0=-57, col0=33, row1=-56, col1=34),
    PixelBox(row0=-40, col0=77, row1=33, col1=201),
    PixelBox(row0=0, col0=256, row1=128, col1=284),
)


@pytest.mark.parametrize(
    "wanted",
    [{}, {"mode": "blend", "size": 100}, {"augmentation": "d4"}],
    ids=["core", "blend", "views"],
)
def test_a_map_is_the_same_wherever_it_is_cut(exported, ground, wanted):
    _, card = exported
    plan, whole = mapped(card, ground, BOX, **wanted)
    assert plan.stride % 5 == plan.windows.halo % 5 == plan.size % 5 == 0
    assert len(np.unique(whole["classes"])) > 1
    for block, part in zip((7, 64, 256), PARTS, strict=True):
        _, alone = mapped(card, ground, part, block=block, **wanted)
        for name, values in alone.items():
            np.testing.assert_array_equal(values, whole[name][part.slices_in(BOX)])


@pytest.mark.parametrize("wanted", [{}, {"mode": "blend", "size": 100}], ids=["core", "blend"])
def test_tiles_that_are_no_multiples_of_cells_make_the_same_map(exported, ground, wanted):
    """Cells of 5 pixels, tiles of 512 and 1280, and one box without tiles at all."""
    _, card = exported
    box = PixelBox(row0=-30, col0=340, row1=640, col1=640)
    _, whole = mapped(card, ground, box, **wanted)
    for side in (512, 1280):
        found = {name: np.zeros_like(values) for name, values in whole.items()}
        met = 0
        for row, col in np.ndindex(4, 4):
            row0, col0 = (row - 2) * side, (col - 2) * side
            tile = PixelBox(row0=row0, col0=col0, row1=row0 + side, col1=col0 + side)
            part = tile.intersect(box)
            if part.empty:
                continue
            _, alone = mapped(card, ground, part, block=side, **wanted)
            for name, values in alone.items():
                found[name][part.slices_in(box)] = values
            met += 1
        assert met == {512: 6, 1280: 2}[side]
        for name, values in found.items():
            np.testing.assert_array_equal(values, whole[name])
    # windows counted from the corner of a tile would cut cells elsewhere
    tile, area = replace(box, row0=512), replace(AREA, row0=AREA.row0 - 512, row1=AREA.row1 - 512)
    moved = replace(tile, row0=0, row1=tile.row1 - 512)
    _, alone = mapped(card, ground, moved, area=area, **wanted)
    there = whole["classes"][tile.slices_in(box)]
    assert (alone["classes"] != there).mean() > 0.02


def test_windows_give_what_the_whole_field_gives(exported, ground):
    """Cells are those of the ground: a field that is cut through them gives another map."""
    trained, card = exported
    _, found = mapped(card, ground, BOX)
    for row, col, alike in ((0, 0, True), (0, 2, False)):
        box = replace(AREA, row0=AREA.row0 + row, col0=AREA.col0 + col)
        stored = ground[(slice(None), *box.slices_in(AREA))].astype(np.float32)
        with torch.inference_mode():
            logits = trained.network(torch.from_numpy(stored)[None])[0].numpy()
        logits = logits[(slice(None), *BOX.slices_in(box))]
        order = np.sort(logits, axis=0)
        clear = order[-1] - order[-2] > 1e-3 * np.ptp(logits)
        same = (found["classes"] == logits.argmax(axis=0))[clear].mean()
        assert (same == 1) == alike, same
        assert clear.mean() > 0.9
