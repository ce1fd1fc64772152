"""Networks in the manner of VGG for MNIST: the teacher and the students of Amara 2020.

The paper gives numbers of layers and of parameters, and dropout "with a fixed probability of p = 0.5". The networks
below follow from the counts. Each ends in three fully connected layers, with dropout where VGG itself has it: after
the two hidden ones. All convolutions thus run once for any number of Monte-Carlo passes.
"""

from collections.abc import Sequence

from torch import nn

from .staged import InputCheck, Staged, conv_relu, fully_connected, scaled

SIZE = 32  # MNIST padded by two pixels a side: five poolings leave 1x1


def _vgg(
    blocks: Sequence[Sequence[int]],
    hidden: Sequence[int],
    num_classes: int,
    in_channels: int,
    width: float,
    dropout: float,
) -> Staged:
    """Blocks of 3x3 convolutions (outputs of each), pooling after each block, then fully connected layers."""
    stages: list[nn.Module] = [InputCheck(in_channels, SIZE)]
    channels = in_channels
    for block in blocks:
        for outputs in block:
            stages += conv_relu(channels, scaled(outputs, width), 3, padding=1)
            channels = scaled(outputs, width)
        stages.append(nn.MaxPool2d(2))
    features = channels * (SIZE // 2 ** len(blocks)) ** 2
    units = [scaled(outputs, width) for outputs in hidden]
    return Staged(*stages, *fully_connected(features, units, num_classes, dropout))


def vgg16_mnist(num_classes: int = 10, in_channels: int = 1, width: float = 1.0, dropout: float = 0.5) -> Staged:
    """The teacher TN and its twin SN3: 16 layers, 14,913,226 parameters, as in the paper.

    Amara 2020, section 4.1. 32x32 images. The 13 convolutions of VGG16 with biases and without batch norm, then
    512-256-256-10; dropout after each of the two hidden fully connected layers.

    Args:
        num_classes: C.
        in_channels: of the images.
        width: factor on the channels and units of all hidden layers.
        dropout: rate.
    """
    blocks = (64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)
    return _vgg(blocks, (256, 256), num_classes, in_channels, width, dropout)


def sn2(num_classes: int = 10, in_channels: int = 1, width: float = 1.0, dropout: float = 0.5) -> Staged:
    """The student SN2: seven layers, 4,721,610 parameters, as in the paper.

    Amara 2020, section 4.1. 32x32 images. The teacher's first four convolutions, then 8192-512-512-10; dropout after
    each of the two hidden fully connected layers.

    Args:
        num_classes: C.
        in_channels: of the images.
        width: factor on the channels and units of all hidden layers.
        dropout: rate.
    """
    return _vgg(((64, 64), (128, 128)), (512, 512), num_classes, in_channels, width, dropout)


def sn1(num_classes: int = 10, in_channels: int = 1, width: float = 1.0, dropout: float = 0.5) -> Staged:
    """The student SN1: four layers, 4,263,562 parameters, which is 1,504 (0.04 %) fewer than the paper's 4,265,066.

    Amara 2020, section 4.1. 32x32 images. The teacher's first convolution, then its head, 16384-256-256-10; dropout
    after each of the two hidden fully connected layers. Like its siblings it has three fully connected layers, which
    leaves one convolution; no such network with usual sizes has the paper's count.

    Args:
        num_classes: C.
        in_channels: of the images.
        width: factor on the channels and units of all hidden layers.
        dropout: rate.
    """
    return _vgg(((64,),), (256, 256), num_classes, in_channels, width, dropout)
