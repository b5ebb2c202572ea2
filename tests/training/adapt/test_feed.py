"""Batches of two domains, drawn from folders of images as they are found."""

import json
import warnings

import lightning
import numpy as np
import pytest
import torch
import zarr

from mapper.errors import DataError
from mapper.recipe.adapting import Adapt, RareClasses
from mapper.training.adapt.feed import TARGET_CHECKED, CheckedPatches, DomainFeed, spread
from mapper.training.adapt.rare import RareClassPatches
from mapper.training.adapt.statistics import bare_images, own_scaling, rescaled, statistics_of
from mapper.training.adapt.target import open_target
from mapper.training.data.augment import coarsened
from mapper.training.data.feed import Feed, digest_of_images
from mapper.training.data.labelled import Pixels
from mapper.training.data.layouts import open_data
from mapper.training.data.split import split_blocks
from tests.training.lessons import listed, town, train_section, write_images, write_tiff
from tests.training.test_patches import labelled

pytestmark = pytest.mark.usefixtures("one_thread")

COLOURS = ((90, 60, 60), (60, 90, 60), (60, 60, 90))


@pytest.fixture(scope="module")
def towns(tmp_path_factory):
    """Eight labelled images, and three without labels in other colours, one in part nodata."""
    root = tmp_path_factory.mktemp("towns")
    write_images(root / "source")
    for number in range(3):
        image, _ = town(100 + number, 80, COLOURS)
        if number == 1:
            image[:, :40] = 0
        write_tiff(root / "target" / f"place{number}.tif", image, nodata=0)
    return root


def make_feed(towns, *, how=None, rare=None, workers=0, own=False, **changed):
    train = train_section(**changed)
    source = open_data(towns / "source", train.data, train.table)
    target = open_target(towns / "target", train)
    parts = split_blocks(source.images, train.split)
    scales = [train, train]
    if own:
        moments = (statistics_of(train, source, parts[0]), statistics_of(train, target))
        scales = [rescaled(train, own_scaling(one)) for one in moments]
    sets = (source, target)
    return DomainFeed(*scales, sets, parts, how or Adapt(), workers, rare)


class Still(lightning.LightningModule):
    """Learns nothing and keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen, self.judged = {}, {}

    def training_step(self, batch, number):
        self.seen[self.current_epoch, number] = batch
        return self.weight.sum()

    def validation_step(self, batch, number, dataloader_idx=0):
        self.judged[self.current_epoch, dataloader_idx, number] = batch

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def run(feed, folder, epochs, **more):
    lesson = Still()
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_progress_bar=False,
        enable_model_summary=False, reload_dataloaders_every_n_epochs=1, num_sanity_val_steps=0,
        use_distributed_sampler=False, default_root_dir=folder,
    )  # fmt: skip
    # Lightning advises more workers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(lesson, datamodule=feed, **more)
    return lesson, trainer


def same(one, other):
    return all(
        torch.equal(mine, theirs)
        for side, beside in zip(one, other, strict=True)
        for mine, theirs in zip(side, beside, strict=True)
    )


# batches ------------------------------------------------------------------------------------


def test_a_batch_holds_both_domains(towns):
    feed = make_feed(towns, how=Adapt(batch=2, patches=5))
    batches = list(feed.train_dataloader())
    assert len(batches) == feed.steps(1) == 3
    for (image, valid, label), (other, also) in batches:
        for tensor in (image, valid, other, also):
            assert (tensor.shape, tensor.dtype) == ((2, 3, 32, 32), torch.float32)
        assert (label.shape, label.dtype) == ((2, 32, 32), torch.int64)
        assert set(also.unique().tolist()) <= {0.0, 1.0}
        # colours of the source reach further than those of the target
        assert image.max() > 0.7
        assert other.max() < 0.6


def test_an_epoch_has_the_targets_patches(towns):
    """3 x 80 x 80 pixels in squares of 32, of the training's batch; shared by processes."""
    feed = make_feed(towns)
    assert len(feed.patches) == 19
    assert [feed.steps(n) for n in (1, 2, 3)] == [5, 3, 2]
    assert len(list(feed.train_dataloader())) == 5
    assert feed.steps(1) == len(feed.train_dataloader())


def test_the_source_is_drawn_as_when_it_trains_alone(towns):
    train = train_section(augment={"gain": 0.2, "scale": (0.8, 1.2)})
    feed = make_feed(towns, augment={"gain": 0.2, "scale": (0.8, 1.2)})
    source = open_data(towns / "source", train.data, train.table)
    alone = Feed(train, source, split_blocks(source.images, train.split))
    mine = next(iter(feed.train_dataloader()))[0]
    theirs = next(iter(alone.train_dataloader()))
    assert all(map(torch.equal, mine, theirs))
    assert feed.weights() is None
    weighted = make_feed(towns, loss={"class_weights": [1, 2, 3]})
    assert weighted.weights() == [1, 2, 3]


def test_every_domain_has_its_scaling(towns):
    feed = make_feed(towns, own=True, how=Adapt(patches=64))
    values = {0: [], 1: []}
    for both in feed.train_dataloader():
        for side, (image, valid) in enumerate((both[0][:2], both[1])):
            values[side].append(image.movedim(1, -1)[valid.movedim(1, -1)[..., 0] > 0])
    for found in values.values():
        known = torch.cat(found)
        assert known.mean(0).abs().max() < 0.15
        assert (known.std(0) - 1).abs().max() < 0.15
    # the held-out source is judged in the source's
    for loader in feed.val_dataloader():
        image, valid = next(iter(loader))[:2]
        assert image[valid > 0].std() == pytest.approx(1, abs=0.2)


def test_patches_of_the_target_are_moved_and_nothing_else(towns):
    """Mirrored, turned and zoomed: no light, noise or holes, whatever the source gets."""
    augment = {"gain": 0.5, "band_gain": 0.5, "noise": 0.3, "blur": 1.0, "clouds": 0.9}
    feed = make_feed(towns, augment=augment, scaling=[None])
    pictures = [feed.images.piece(k, (0, 0, 80, 80)).image for k in range(3)]
    known = {tuple(pixel) for one in pictures for pixel in one.reshape(3, -1).T} | {(0, 0, 0)}
    turned = set()
    for index in range(8):
        image, _ = feed.patches[0, index]
        assert {tuple(pixel) for pixel in image.reshape(3, -1).T} <= known
        turned.add(how_turned(image, pictures))
    assert len(turned) > 2


def how_turned(image, pictures):
    """Which of eight ways of mirroring and turning leads back to the images."""
    views = [np.lib.stride_tricks.sliding_window_view(one[0], (32, 32)) for one in pictures]
    for turns in range(4):
        for mirrored in (False, True):
            back = np.rot90(image[0], turns)
            back = back[:, ::-1] if mirrored else back
            for view in views:
                # most places are told apart by their first row
                first = (view[:, :, 0] == back[0]).all(axis=2)
                if any((view[r, c] == back).all() for r, c in np.argwhere(first)):
                    return turns, mirrored
    raise AssertionError("no piece of any image")


def test_targets_are_not_mirrored_where_the_source_is_not(towns):
    feed = make_feed(towns, augment={"flip": False, "turn": False}, scaling=[None])
    pictures = [feed.images.piece(k, (0, 0, 80, 80)).image for k in range(3)]
    found = {how_turned(feed.patches[0, k][0], pictures) for k in range(6)}
    assert found == {(0, False)}


def test_targets_are_zoomed_by_their_own_range(towns):
    plain, zoomed = (
        make_feed(towns, how=Adapt(scale=scale), scaling=[None]) for scale in ((1, 1), (2, 2))
    )
    # neighbours of an image of twice the size differ by half as much
    steps = [
        np.mean([np.abs(np.diff(feed.patches[0, k][0], axis=2)).mean() for k in range(20)])
        for feed in (plain, zoomed)
    ]
    assert steps[1] < 0.75 * steps[0]


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.5, 2.0)])
def test_patches_of_the_target_hold_data(scale, tmp_path):
    image, _ = town(1, 256)
    image[:, 40:] = image[:, :, 40:] = 0
    write_tiff(tmp_path / "target" / "a.tif", image, nodata=0)
    write_images(tmp_path / "source")
    feed = make_feed(tmp_path, how=Adapt(scale=scale))
    # a square of 32 meets the corner with a chance of (40 / 225)^2, in eight draws of 0.23
    patches = [feed.patches[0, k] for k in range(100)]
    assert all(valid.any() for _, valid in patches)
    again = make_feed(tmp_path, how=Adapt(scale=scale)).patches
    for k in reversed(range(100)):
        assert all(map(np.array_equal, patches[k], again[0, k]))
    # of the four squares that hold data, mirrored and turned, and of what the draws found
    assert len({image.tobytes() for image, _ in patches}) > 15


def test_rare_classes_are_sampled_where_it_is_asked_for(towns):
    feed = make_feed(towns, rare=RareClasses())
    assert isinstance(feed.drawn, RareClassPatches)
    (image, _, label), _ = next(iter(feed.train_dataloader()))
    own = feed.drawn[0, 0]
    np.testing.assert_array_equal(image[0], own[0])
    np.testing.assert_array_equal(label[0], own[2])
    shares = feed.facts()["source"]["sampled"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
    assert list(shares) == ["land", "road", "water"]


# processes and epochs -----------------------------------------------------------------------


class Place:
    """What a trainer says of itself."""

    def __init__(self, epoch, rank=0, world=1):
        self.current_epoch, self.global_rank, self.world_size = epoch, rank, world


def batches_at(feed, *place):
    feed.trainer = Place(*place)
    found = list(feed.train_dataloader())
    feed.trainer = None
    return found


def test_processes_share_an_epoch_out(towns):
    """Each patch once, whatever the number of processes."""
    feed = make_feed(towns, how=Adapt(batch=2, patches=8))
    alone = batches_at(feed, 3)
    first, second = (batches_at(feed, 3, rank, 2) for rank in (0, 1))
    assert len(first) == len(second) == feed.steps(2) == 2
    together = [batch for pair in zip(first, second, strict=True) for batch in pair]
    assert all(map(same, together, alone))
    for one, other in zip(first, second, strict=True):
        assert not torch.equal(one[0][0], other[0][0])
        assert not torch.equal(one[1][0], other[1][0])


def test_epochs_differ_and_domains_are_drawn_apart(towns):
    feed = make_feed(towns, how=Adapt(batch=4, patches=4))
    one, other = batches_at(feed, 0)[0], batches_at(feed, 1)[0]
    assert not torch.equal(one[0][0], other[0][0])
    assert not torch.equal(one[1][0], other[1][0])
    # where both sets are one, a step sees other places of it
    train = train_section(augment={"flip": False, "turn": False})
    data = open_data(towns / "source", train.data, train.table)
    parts = split_blocks(data.images, train.split)
    twice = DomainFeed(train, train, (data, data), parts, Adapt(patches=4))
    (image, _, _), (beside, _) = next(iter(twice.train_dataloader()))
    assert not any(torch.equal(a, b) for a, b in zip(image, beside, strict=True))


def test_reading_in_other_processes_changes_nothing(towns):
    how = Adapt(patches=8)
    here, there = (make_feed(towns, how=how, workers=n) for n in (0, 2))
    for one, other in zip(here.train_dataloader(), there.train_dataloader(), strict=True):
        assert same(one, other)


def test_a_resumed_run_gets_the_same_batches(towns, tmp_path):
    how = Adapt(batch=2, patches=4)
    whole, _ = run(make_feed(towns, how=how), tmp_path, 3)
    begun, trainer = run(make_feed(towns, how=how), tmp_path, 1)
    trainer.save_checkpoint(tmp_path / "kept.ckpt")
    rest, _ = run(
        make_feed(towns, how=how), tmp_path, 3, ckpt_path=tmp_path / "kept.ckpt", weights_only=True
    )
    assert set(begun.seen) | set(rest.seen) == set(whole.seen) == {
        (epoch, number) for epoch in range(3) for number in range(2)
    }  # fmt: skip
    assert not set(begun.seen) & set(rest.seen)
    for place, batch in whole.seen.items():
        assert same(batch, (begun.seen | rest.seen)[place])


def test_validation_is_the_same_in_every_epoch(towns, tmp_path):
    feed = make_feed(towns)
    lesson, _ = run(feed, tmp_path, 2)
    numbers = [{place[1:] for place in lesson.judged if place[0] == epoch} for epoch in (0, 1)]
    assert numbers[0] == numbers[1]
    assert {loader for loader, _ in numbers[0]} == {0, 1}
    for loader, number in numbers[0]:
        one, other = (lesson.judged[epoch, loader, number] for epoch in (0, 1))
        assert len(one) == (3 if loader == 0 else 2)
        assert all(map(torch.equal, one, other))


def test_the_held_out_source_is_as_coarse_as_what_is_learned(towns):
    feeds = [make_feed(towns, augment={"coarsen": side}, scaling=[None]) for side in (1, 4)]
    fine, coarse = (feed.source.held for feed in feeds)
    for k in range(len(fine)):
        image, valid, label = fine[k]
        np.testing.assert_array_equal(coarse[k][0], coarsened(image, 4))
        np.testing.assert_array_equal(coarse[k][1], valid)
        np.testing.assert_array_equal(coarse[k][2], label)
    # the target is as it is
    for k in range(len(feeds[0].checked)):
        assert all(map(np.array_equal, feeds[0].checked[k], feeds[1].checked[k]))
    source = open_data(towns / "source", feeds[0].target_settings.data, train_section().table)
    for feed in feeds:
        feed.judge_by(source)
    for k in range(len(feeds[0].judge)):
        assert all(map(np.array_equal, feeds[0].judge[k], feeds[1].judge[k]))


# patches that are checked -------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 7, 64, 1000, 12345])
def test_an_order_is_spread_at_every_beginning(count):
    order = spread(count)
    assert sorted(order.tolist()) == list(range(count))
    for share in (8, 64, 500):
        if share <= count:
            gaps = np.diff(np.sort(order[:share]))
            assert gaps.max() <= 3 * count / share + 1


def test_few_patches_are_all_checked(towns):
    """Three images of nine squares; of two squares of the second nothing is known."""
    feed = make_feed(towns, scaling=[None])
    checked = feed.checked
    assert len(checked) == 3 * 9 - 3
    total = 0
    for k in range(len(checked)):
        image, valid = checked[k]
        assert valid.any()
        assert image.shape == (3, 32, 32)
        total += int(valid[0].sum())
    assert total == feed.statistics.pixels[0]


def test_checked_patches_are_spread_over_all_images():
    rng = np.random.default_rng(3)
    content = [
        Pixels(values=rng.random((3, 320, 320)).astype(np.float32), valid=None, label=None)
        for _ in range(20)
    ]
    data, _ = labelled(content)
    checked = CheckedPatches(bare_images(train_section(), data), 32)
    assert len(checked) == TARGET_CHECKED
    images = np.bincount(np.array(checked.places) // 100, minlength=20)
    assert images.min() >= 2
    assert images.max() <= 5
    again = CheckedPatches(bare_images(train_section(), data), 32)
    assert again.places == checked.places


def test_a_needle_of_data_is_found():
    valid = np.zeros((3, 640, 640), bool)
    valid[:, 333, 100] = True
    pixels = Pixels(values=np.ones((3, 640, 640), np.float32), valid=valid, label=None)
    data, _ = labelled([pixels])
    checked = CheckedPatches(bare_images(train_section(), data), 32)
    assert checked.places == [10 * 20 + 3]


def test_batches_for_statistics_are_the_same_every_time(towns):
    feed = make_feed(towns)
    one, other = (list(feed.target_batches(3)) for _ in range(2))
    assert len(one) == 3
    assert same(one, other)
    image, valid = one[1]
    assert image.shape == valid.shape == (4, 3, 32, 32)
    np.testing.assert_array_equal(image[0], feed.patches[0, 4][0])
    assert not torch.equal(one[0][0], image)


# labels of the target -----------------------------------------------------------------------


def test_a_labelled_target_may_judge_and_does_not_teach(towns):
    train = train_section()
    data = open_data(towns / "source", train.data, train.table)
    parts = split_blocks(data.images, train.split)
    feed = DomainFeed(train, train, (data, data), parts, Adapt(patches=4))
    # of a target that has labels none is read
    assert all(image.label is None for image in feed.images.images)
    assert not feed.images.counts.any()
    assert len(feed.val_dataloader()) == 2
    feed.judge_by(data)
    loaders = feed.val_dataloader()
    assert len(loaders) == 3
    pixels = sum(int((label >= 0).sum()) for _, _, label in loaders[2])
    assert pixels == 8 * 64 * 64
    (_, target), *_ = feed.train_dataloader()
    assert len(target) == 2


def test_a_judge_without_labels_is_refused(towns):
    feed = make_feed(towns)
    with pytest.raises(DataError, match="target has no labelled pixel to judge by"):
        feed.judge_by(open_target(towns / "target", train_section()))


# facts --------------------------------------------------------------------------------------


def test_the_card_says_what_was_adapted_to_what(towns):
    feed = make_feed(towns)
    facts = json.loads(json.dumps(feed.facts()))
    assert facts["source"] == json.loads(json.dumps(feed.source.facts()))
    target = facts["target"]
    assert (target["set"], target["layout"], target["images"]) == ("target", "images", 3)
    pixels = 80 * 80 * 3 - 40 * 80
    assert target["pixels"] == dict.fromkeys(train_section().bands, pixels)
    stored = [feed.images.piece(k, (0, 0, 80, 80)) for k in range(3)]
    red = np.concatenate([piece.image[0][piece.valid[0]] for piece in stored]).astype(float)
    assert target["statistics"]["mean"]["highres:red"] == pytest.approx(red.mean(), rel=1e-5)
    assert target["statistics"]["deviation"]["highres:red"] == pytest.approx(red.std(), rel=1e-5)


def test_the_digest_is_of_names_and_sizes(towns, tmp_path):
    images = open_target(towns / "target", train_section()).images
    digest = digest_of_images(images)
    assert digest_of_images(reversed(images)) == digest
    assert digest_of_images(images[:2]) != digest
    # a group of arrays is no file
    group = zarr.open_group(tmp_path / "samples.zarr", mode="w")
    group.create_array("image", data=np.ones((2, 3, 40, 40), np.float32))
    group.create_array("label", data=np.arange(3200).reshape(2, 40, 40).astype(np.uint8) % 3)
    group.create_array("transform", data=np.ones((2, 6)))
    place = {"image": "samples.zarr", "shape": [40, 40], "place": [0, 0]}
    train = train_section(data={"layout": "samples"})
    index = {
        "format": "zarr",
        "bands": train.bands,
        "classes": train.table.to_stac(),
        "samples": [place | {"id": f"s{k}", "index": k} for k in range(2)],
    }
    (tmp_path / "samples.json").write_text(json.dumps(index))
    data = open_data(tmp_path, train.data, train.table)
    parts = (data.images[:1], data.images[1:])
    assert Feed(train, data, parts).facts()["train"]["images"] == 1


# what is refused ----------------------------------------------------------------------------


def target_of(towns, tmp_path, values, **profile):
    write_tiff(tmp_path / "target" / "a.tif", values, **profile)
    (tmp_path / "source").symlink_to(towns / "source")
    return tmp_path


def test_a_target_that_is_all_nodata_is_refused(towns, tmp_path):
    root = target_of(towns, tmp_path, np.zeros((3, 64, 64), np.uint8), nodata=0)
    with pytest.raises(DataError, match=r"target has no valid pixel.*nodata"):
        make_feed(root)


def test_a_target_of_one_colour_is_refused(towns, tmp_path):
    image = town(1)[0]
    image[2] = 255
    with pytest.raises(DataError, match=r"target holds 255 in every valid pixel of highres:blue"):
        make_feed(target_of(towns, tmp_path, image))


def test_a_source_without_labels_is_refused(towns):
    train = train_section()
    data = open_target(towns / "source", train)
    parts = (data.images[:6], data.images[6:])
    with pytest.raises(DataError, match="source has no labelled image"):
        DomainFeed(train, train, (data, data), parts, Adapt())


def test_classes_without_a_counterpart_are_named_with_their_set(towns):
    classes = listed((("land", "8429F6"), ("lane", "6EC1E4"), ("water", "E2A929")))
    data = {"layout": "images", "bands": train_section().bands, "classes": classes}
    with pytest.raises(DataError, match=r"/source: class 'lane' .*crosswalk"):
        make_feed(towns, data=data)


def test_a_band_that_one_domain_lacks_is_named(towns):
    train = train_section()
    source = open_data(towns / "source", train.data, train.table)
    target = open_target(
        towns / "target", train, train.data.model_copy(update={"bands": ["highres:red", "a:b"]})
    )
    parts = split_blocks(source.images, train.split)
    with pytest.raises(DataError, match=r"target .* lacks highres:green, highres:blue"):
        DomainFeed(train, train, (source, target), parts, Adapt())
