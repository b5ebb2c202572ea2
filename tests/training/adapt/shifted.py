"""A source and a target whose colours differ, small enough to learn in a second or two."""

import numpy as np

from mapper.recipe.settings import changed
from mapper.training.data.layouts import open_data
from tests.training.lessons import make_recipe, town, write_tiff

NEAR = ((190, 90, 80), (70, 140, 70), (70, 80, 150))
"""Colours of the three classes in the source; a network learns to tell them apart at once."""
METHODS = ("source", "adabn", "dpa", "daspm", "adversarial", "consistent")


def write_target(root, count=6, gain=0.45, haze=95, first=100):
    """The same classes through another sensor: flatter and hazier. Labels are beside them."""
    for number in range(first, first + count):
        image, label = town(number, colours=NEAR)
        seen = np.clip(image * gain + haze, 1, 254).astype(np.uint8)
        write_tiff(root / "images" / f"far{number}.tif", seen)
        write_tiff(root / "labels" / f"far{number}.tif", label[None])
    return root


def write_source(root, count=8):
    """Labelled images as the source's sensor sees them."""
    for number in range(count):
        image, label = town(number, colours=NEAR)
        write_tiff(root / "images" / f"near{number}.tif", image)
        write_tiff(root / "labels" / f"near{number}.tif", label[None])
    return root


def adapting(method, *settings, network="unet", **changes):
    """A tiny recipe that adapts by a method in two short epochs."""
    plain = (
        f"adapt.method={method}",
        "adapt.epochs=2",
        "adapt.patches=8",
        "adapt.daspm.schedule.warmup=0",
        "adapt.daspm.optimizer.rate=0.003",
        "adapt.consistent.optimizer.rate=0.003",
    )
    return changed(make_recipe(network=network, **changes), [*plain, *settings])


def labelled(recipe, root):
    """A set with its labels."""
    return open_data(root, recipe.train.data, recipe.train.table)
