"""GlobalUrbanMapper: U-Net with a pyramid-pooling head."""

from collections.abc import Sequence

from torch import Tensor, nn

from mapper.training.networks.layers import PyramidPooling
from mapper.training.networks.network import Segmenter
from mapper.training.networks.unet import Ladder


class GlobalUrbanMapper(Segmenter):
    """U-Net of five stages and PSP head (Zhou & Weng 2024, doi 10.1016/j.rse.2024.114242).

    Published: 10 channels (Sentinel-2 B4 B3 B2 B8, VV and VH ascending and descending, slope,
    aspect), 13 with product layers; base 64, stages 64 to 1024, bilinear upsampling and 1x1
    convolution; head of 16 channels over grids of 1, 2, 3, 6; two classes. 29.0 million
    parameters.
    """

    global_context = True
    least_batch = 2
    head_names = ("pyramid", "classify")

    def __init__(
        self,
        channels: int = 10,
        classes: int = 2,
        width: int = 64,
        stages: int = 5,
        head: int = 16,
        grids: Sequence[int] = (1, 2, 3, 6),
    ) -> None:
        """`width` is 64 and `stages` 5 in the published form."""
        super().__init__()
        self.multiple = 2 ** (stages - 1)
        self.ladder = Ladder(channels, [width * 2**stage for stage in range(stages)])
        self.pyramid = PyramidPooling(width, head, grids)
        self.dropout = nn.Dropout2d(0.1)
        self.classify = nn.Conv2d(head, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """See `Segmenter`."""
        logits: Tensor = self.classify(self.dropout(self.pyramid(self.ladder(image))))
        return logits
