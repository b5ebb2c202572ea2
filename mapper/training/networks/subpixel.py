"""Labels finer than the sensor: a network over the sensor's cells, and a head that divides them."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mapper.errors import RecipeError
from mapper.training.networks.layers import resized
from mapper.training.networks.network import Segmenter

_WHISPER = 0.1
"""Strength of what is finer than the cells at the start, beside their own logits."""


class SubPixel(Segmenter):
    """Classes at `ratio` times the resolution of the sensor.

    Input and output lie on the fine lattice, as in every network: bands of a coarse sensor come
    brought to it by interpolation. The means over squares of `ratio` x `ratio` pixels, counted
    from the first pixel of the image, are what the sensor saw. A network works on them, and a
    sub-pixel convolution (Shi et al. 2016) spreads its features over the pixels of each cell.

    At the start the output is nearly the bilinear interpolation of the logits of the cells.
    Sides that are no multiples have their last rows and columns repeated.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        of: str = "unet",
        ratio: int = 5,
        hidden: int = 32,
        coarse: bool = True,
        **options: object,
    ) -> None:
        """A network for `ratio` pixels a cell.

        Args:
            channels: of the image.
            classes: of the output.
            of: name of the network that works on the cells.
            ratio: pixels along a cell, 2 or more.
            hidden: channels that the network on the cells yields, instead of classes.
            coarse: whether cells are given logits, which the pixels then start from.
            options: of the network on the cells.

        Raises: RecipeError.
        """
        super().__init__()
        _check(ratio, hidden)
        self.ratio, self.cell = ratio, ratio
        self.cells = _inner(of)(channels, hidden, **options)  # type: ignore[arg-type]
        self.multiple = ratio * self.cells.multiple
        self.least_batch = self.cells.least_batch
        self.global_context = self.cells.global_context
        fine = max(4, hidden // 2)
        self.norm = nn.BatchNorm2d(hidden)
        self.divide = nn.Conv2d(hidden, fine * ratio**2, 3, padding=1)
        self.coarse = nn.Conv2d(hidden, classes, 1) if coarse else None
        self.classify = nn.Conv2d(fine + (classes if coarse else 0), classes, 3, padding=1)
        mine = ("coarse",) if coarse else ()
        heads = (*self.cells.head_names, "norm", "divide", *mine, "classify")
        self.head_names = tuple(dict.fromkeys(heads))
        self.class_layers = (*mine, "classify")
        self.class_inputs = ("classify",) if coarse else ()
        self._begin(classes)

    def forward(self, image: Tensor) -> Tensor:
        """See `Segmenter`."""
        whole = self._fits(image)
        filled = image if whole else repeated(image, self.multiple)
        features = self.features(filled)
        found = functional.relu(functional.pixel_shuffle(self.divide(features), self.ratio))
        if self.coarse is not None:
            found = torch.cat([resized(self.coarse(features), found), found], dim=1)
        logits: Tensor = self.classify(found)
        return logits if whole else cut(logits, image)

    def features(self, image: Tensor) -> Tensor:
        """What is found of each cell, `(batch, hidden, y / ratio, x / ratio)`."""
        seen = functional.avg_pool2d(image, self.ratio)
        return functional.relu(self.norm(self.cells(seen)))

    def _fits(self, image: Tensor) -> bool:
        """True where no side has to be filled up; an exporter must not take that for given."""
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            return False
        return not (image.shape[2] % self.multiple or image.shape[3] % self.multiple)

    def _begin(self, classes: int) -> None:
        """Kernels of the start: alike for all pixels of a cell, and the cells' logits passed on."""
        pixels = self.ratio**2
        with torch.no_grad():
            # one kernel for each output channel: else the places in a cell would show as a pattern
            for part in self.divide.parameters():
                part.copy_(part[::pixels].repeat_interleave(pixels, dim=0))
            if self.coarse is None:
                return
            for part in self.classify.parameters():
                part.mul_(_WHISPER)
            one = torch.arange(classes)
            self.classify.weight[:, :classes] = 0
            self.classify.weight[one, one, 1, 1] = 1


def repeated(image: Tensor, multiple: int) -> Tensor:
    """An image whose last row and column are repeated until its sides are multiples."""
    # by index, as in `cut`: exporters take the width of a padding or a slice for constant
    for axis in (2, 3):
        size = image.shape[axis]
        place = torch.arange(size + (-size) % multiple, device=image.device)
        image = image.index_select(axis, place.clamp(max=size - 1))
    return image


def cut(image: Tensor, like: Tensor) -> Tensor:
    """The first rows and columns, as many as another image has."""
    for axis in (2, 3):
        place = torch.arange(like.shape[axis], device=image.device)
        image = image.index_select(axis, place)
    return image


def _check(ratio: int, hidden: int) -> None:
    if ratio < 2:
        raise RecipeError(
            f"train.network.options: ratio is {ratio}; give pixels along a cell, 2 or more"
        )
    if hidden < 1:
        raise RecipeError(f"train.network.options: hidden is {hidden}; give 1 channel or more")


def _inner(name: str) -> type[Segmenter]:
    """The network on the cells. Raises: RecipeError."""
    # networks are listed where this one is, too
    from mapper.training.networks.build import NETWORKS

    known = [n for n, kind in NETWORKS.items() if not (kind.stepwise or kind is SubPixel)]
    if name not in known:
        raise RecipeError(f"train.network.options: of is {name!r}; use one of {', '.join(known)}")
    return NETWORKS[name]
