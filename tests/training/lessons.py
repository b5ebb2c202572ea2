"""Small recipes, folders of labelled images and trained networks, made on the spot.

```python
recipe = make_recipe(network="unet", options={"width": 4, "depth": 2})
root = write_images(tmp_path / "set")
```
"""

import numpy as np
import rasterio
import torch
from affine import Affine

from mapper.recipe import Recipe
from mapper.recipe.training import Train
from mapper.training.networks import build_network
from mapper.training.weights import Trained

BANDS = ("highres:red", "highres:green", "highres:blue")
CLASSES = (("land", "8429F6"), ("road", "6EC1E4"), ("water", "E2A929"))

TINY = {
    "unet": {"width": 4, "depth": 2},
    "fbp-unet": {"width": 2},
    "gum": {"width": 4, "stages": 3, "head": 4},
    "ugsnet": {"backbone": "resnet18", "width": 0.125},
    "deeplabv3": {"backbone": "resnet18", "width": 0.125},
    "deeplabv3plus": {"backbone": "resnet18", "width": 0.125},
    "segformer": {"backbone": "mit-b0", "width": 16},
    "daformer": {"backbone": "mit-b0", "width": 8},
    "subpixel": {"of": "unet", "width": 4, "depth": 2, "ratio": 5, "hidden": 4},
}
"""Options by which each network is small."""


def listed(classes=CLASSES):
    """Classes as a recipe lists them."""
    return [{"value": v, "name": n, "color": c} for v, (n, c) in enumerate(classes)]


def train_section(*, network="unet", options=None, presence=False, pretrained=None, **changed):
    """A train section of a tiny network; anything in it may be changed."""
    content = {
        "network": {
            "name": network,
            "options": TINY[network] if options is None else options,
            "presence": presence,
            "pretrained": pretrained,
        },
        "bands": list(BANDS),
        "scaling": [{"type": "min-max", "minimum": 0, "maximum": 255}],
        "classes": listed(),
        "data": {"layout": "images", "bands": list(BANDS)},
        "split": {"validation": 0.25},
        "patch": 32,
        "batch": 4,
        "epochs": 3,
        "patches": 8,
        "optimizer": {"kind": "adamw", "rate": 0.02, "decay": 0.0},
        "window": {"size": 64, "mode": "core"},
    }
    return Train.model_validate(content | changed)


def make_recipe(**changed):
    """A recipe that is there for its train section."""
    return Recipe.model_validate(
        {
            "name": "tiny",
            "title": "Tiny",
            "resolution": 1,
            "sources": {"highres": {"kind": "imagery", "catalog": "folder"}},
            "model": "tiny",
            "train": train_section(**changed).model_dump(mode="json"),
        }
    )


def make_trained(*, seed=3, **changed):
    """A network with random weights, its statistics moved off their start, ready to export."""
    train = train_section(**changed)
    torch.manual_seed(seed)
    network = build_network(train, pretrained=False)
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.uniform_(-0.1, 0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.8, 1.2)
    about = {
        "recipe": "tiny",
        "resolution": 1,
        "pretrained": "none: it started at random",
        "lineage": None,
        "scores": {"miou": 0.8125, "accuracy": 0.9375, "validation_loss": 0.25},
        "data": {
            "set": "towns",
            "train": {"images": 6, "pixels": {"land": 1000, "road": 234}},
            "validation": {"images": 2, "groups": ["chico"]},
        },
    }
    return Trained(network=network.eval(), train=train, about=about)


def town(number, side=64, colours=((200, 40, 40), (40, 200, 40), (40, 40, 200))):
    """An image whose colours say its classes, with noise: `(3, y, x)` uint8 and labels."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, len(colours), (side // 8, side // 8))
    label = np.kron(coarse, np.ones((8, 8), int)).astype(np.uint8)
    image = np.array(colours)[label].transpose(2, 0, 1) + rng.normal(0, 12, (3, side, side))
    return np.clip(image, 1, 254).astype(np.uint8), label


def write_tiff(path, values, **profile):
    """A GeoTIFF of `(band, y, x)` in UTM; files of one folder lie side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = 500_000 + 10_000 * sum(map(ord, path.stem))
    count, height, width = values.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=count,
        dtype=values.dtype,
        crs="EPSG:32632",
        transform=Affine(1, 0, place, 0, -1, 5_000_000),
        **profile,
    ) as raster:
        raster.write(values)
    return path


def write_images(root, count=8, side=64):
    """Images beside labels, as the layout `images` has them."""
    for number in range(count):
        image, label = town(number, side)
        write_tiff(root / "images" / f"town{number}.tif", image)
        write_tiff(root / "labels" / f"town{number}.tif", label[None])
    return root
