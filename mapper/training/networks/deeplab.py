"""DeepLabV3 and DeepLabV3+ over ResNet."""

import torch
from torch import Tensor, nn

from mapper.training.networks.backbone import ResNet, ResNetName
from mapper.training.networks.layers import AtrousPyramid, ConvNormAct, resized
from mapper.training.networks.network import Segmenter


class DeepLabV3(Segmenter):
    """DeepLabV3 (Chen et al. 2017, arXiv 1706.05587) as torchvision has it, without its aux head.

    Output stride 8, rates 12, 24, 36 and image pooling, 256 channels: 39.6 million parameters
    with ResNet-50 and 21 classes.
    """

    global_context = True
    least_batch = 2
    multiple = 8
    head_names = ("pyramid", "refine", "classify")

    def __init__(
        self,
        channels: int = 3,
        classes: int = 9,
        backbone: ResNetName = "resnet50",
        width: float = 1.0,
        pretrained: str | None = None,
    ) -> None:
        """`width` scales the backbone's channels; 1 is the published form."""
        super().__init__()
        self.backbone = ResNet(channels, backbone, 8, width, pretrained)
        self.pyramid = AtrousPyramid(self.backbone.widths[3], (12, 24, 36))
        self.refine = ConvNormAct(256, 256, 3)
        self.classify = nn.Conv2d(256, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """See `Segmenter`."""
        features = self.backbone(image)[3]
        return resized(self.classify(self.refine(self.pyramid(features))), image)


class DeepLabV3Plus(Segmenter):
    """DeepLabV3+ (Chen et al. 2018, arXiv 1802.02611).

    Output stride 16 with rates 6, 12, 18, or 8 with 12, 24, 36; the decoder adds 48 channels of
    the features at 1/4 and two 3x3 convolutions of 256. 40.4 million parameters with ResNet-50
    and 21 classes.
    """

    global_context = True
    least_batch = 2
    head_names = ("pyramid", "skip", "decode", "classify")

    def __init__(
        self,
        channels: int = 3,
        classes: int = 9,
        backbone: ResNetName = "resnet50",
        output_stride: int = 16,
        width: float = 1.0,
        pretrained: str | None = None,
    ) -> None:
        """`width` scales the backbone's channels; 1 is the published form."""
        super().__init__()
        self.multiple = output_stride
        self.backbone = ResNet(channels, backbone, output_stride, width, pretrained)
        rates = (6, 12, 18) if output_stride == 16 else (12, 24, 36)
        self.pyramid = AtrousPyramid(self.backbone.widths[3], rates)
        self.skip = ConvNormAct(self.backbone.widths[0], 48, 1)
        self.decode = nn.Sequential(ConvNormAct(256 + 48, 256), ConvNormAct(256, 256))
        self.classify = nn.Conv2d(256, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """See `Segmenter`."""
        features = self.backbone(image)
        fine = self.skip(features[0])
        coarse = resized(self.pyramid(features[3]), fine)
        decoded = self.decode(torch.cat([coarse, fine], dim=1))
        return resized(self.classify(decoded), image)
