"""DenseNet (Huang et al. 2017), the network of the Distilled Dropout Network's classification part (Gurau 2018)."""

import torch
from torch import Tensor, nn

from .staged import InputCheck, Staged, scaled

LAYERS_PER_BLOCK = 12  # three blocks of it, the first convolution, two transitions, the last layer: 40
GROWTH = 12  # the papers' k
STEM = 16  # channels before the first block


class DenseLayer(nn.Sequential):
    """Adds to its input what it computes from it: (N, channels, H, W) to (N, channels + growth, H, W)."""

    def __init__(self, channels: int, growth: int, dropout: float) -> None:
        super().__init__(
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),  # on the batch norm's output, which nobody else sees
            nn.Conv2d(channels, growth, 3, padding=1, bias=False),
            nn.Dropout(dropout),
        )

    def forward(self, features: Tensor) -> Tensor:
        """The features, then the new ones."""
        return torch.cat([features, super().forward(features)], 1)


def _transition(channels: int, dropout: float) -> list[nn.Module]:
    return [
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.Dropout(dropout),
        nn.AvgPool2d(2),
    ]


def densenet40(num_classes: int = 10, in_channels: int = 3, width: float = 1.0, dropout: float = 0.2) -> Staged:
    """DenseNet-40 with growth rate 12, neither bottleneck nor compression: 1,019,722 parameters.

    Gurau 2018, section IV.A, after Huang et al. 2017. Made for 32x32 images, takes any size from 4x4 on. Dropout (the
    papers' retaining probability of 0.8) follows every convolution but the first: 36 in the blocks, one in each
    transition. Convolutions start as in the authors' code, He et al.'s with fan out.

    Args:
        num_classes: C.
        in_channels: of the images.
        width: factor on the growth rate and on the channels before the first block.
        dropout: rate.
    """
    channels, growth = scaled(STEM, width), scaled(GROWTH, width)
    stages: list[nn.Module] = [
        InputCheck(in_channels, 4, or_larger=True),
        nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
    ]
    for block in range(3):
        if block > 0:
            stages += _transition(channels, dropout)
        for _ in range(LAYERS_PER_BLOCK):
            stages.append(DenseLayer(channels, growth, dropout))
            channels += growth
    stages += [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = Staged(*stages, nn.Linear(channels, num_classes))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return network
