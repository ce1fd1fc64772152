"""Networks of dropout distillation (Rota Bulò 2016) for CIFAR-10 and CIFAR-100, each as its own authors have it."""

from torch import nn

from uncertainty_core.checks import check_positive_int

from .staged import InputCheck, Staged, conv_relu, fully_connected, scaled


def quick(
    num_classes: int = 10,
    in_channels: int = 3,
    width: float = 1.0,
    dropout: float = 0.5,
    penultimate: int = 64,
) -> Staged:
    """The Quick network of cuda-convnet with more dropout: 145,578 parameters.

    Rota Bulò 2016, section 5.1. 32x32 images. Dropout after every convolutional or fully connected layer but the last,
    before the pooling; the paper gives no rate. With `penultimate=8`, the smallest of the paper's figure 3 left, 60 %
    of the parameters remain (87,618): the "≈ 40 %" that it drops.

    Args:
        num_classes: C.
        in_channels: of the images.
        width: factor on the channels and units of all hidden layers.
        dropout: rate.
        penultimate: units of the last hidden layer, before `width`.
    """
    check_positive_int("penultimate", penultimate)
    first, second, third, units = (scaled(n, width) for n in (32, 32, 64, penultimate))
    return Staged(
        InputCheck(in_channels, 32),
        *conv_relu(in_channels, first, 5, padding=2),
        nn.Dropout(dropout),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        *conv_relu(first, second, 5, padding=2),
        nn.Dropout(dropout),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        *conv_relu(second, third, 5, padding=2),
        nn.Dropout(dropout),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        *fully_connected(third * 4 * 4, [units], num_classes, dropout),
    )


def nin(num_classes: int = 10, in_channels: int = 3, width: float = 1.0, dropout: float = 0.5) -> Staged:
    """Network in Network: 966,986 parameters.

    Lin et al. 2014, with the sizes of the authors' own definition. Made for 32x32 images, takes any size from 4x4
    on. Dropout after the pooling that follows each of the first two of three blocks. The last convolution is rectified,
    too: logits are never negative.

    Args:
        num_classes: C.
        in_channels: of the images.
        width: factor on the channels of all hidden layers.
        dropout: rate.
    """
    full, middle, narrow = scaled(192, width), scaled(160, width), scaled(96, width)
    return Staged(
        InputCheck(in_channels, 4, or_larger=True),
        *conv_relu(in_channels, full, 5, padding=2),
        *conv_relu(full, middle, 1),
        *conv_relu(middle, narrow, 1),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Dropout(dropout),
        *conv_relu(narrow, full, 5, padding=2),
        *conv_relu(full, full, 1),
        *conv_relu(full, full, 1),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Dropout(dropout),
        *conv_relu(full, full, 3, padding=1),
        *conv_relu(full, full, 1),
        *conv_relu(full, num_classes, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def allconv(num_classes: int = 10, in_channels: int = 3, width: float = 1.0, dropout: float | None = None) -> Staged:
    """All Convolutional Network, the paper's All-CNN-C: 1,369,738 parameters.

    Springenberg et al. 2014. Made for 32x32 images, takes any size from 9x9 on. Dropout on the input (0.2) and after
    each of the two convolutions with stride that stand for a pooling (0.5). The last convolution is rectified, too:
    logits are never negative.

    Args:
        num_classes: C.
        in_channels: of the images.
        width: factor on the channels of all hidden layers.
        dropout: one rate for all three places, None for the paper's two.
    """
    on_input, after_stride = (0.2, 0.5) if dropout is None else (dropout, dropout)
    narrow, full = scaled(96, width), scaled(192, width)
    return Staged(
        InputCheck(in_channels, 9, or_larger=True),
        nn.Dropout(on_input),
        *conv_relu(in_channels, narrow, 3, padding=1),
        *conv_relu(narrow, narrow, 3, padding=1),
        *conv_relu(narrow, narrow, 3, stride=2, padding=1),
        nn.Dropout(after_stride),
        *conv_relu(narrow, full, 3, padding=1),
        *conv_relu(full, full, 3, padding=1),
        *conv_relu(full, full, 3, stride=2, padding=1),
        nn.Dropout(after_stride),
        *conv_relu(full, full, 3),
        *conv_relu(full, full, 1),
        *conv_relu(full, num_classes, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
