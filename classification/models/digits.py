"""A small network for scikit-learn's digits, which need no download."""

from torch import nn

from .staged import InputCheck, Staged, conv_relu, fully_connected, scaled


def digits(num_classes: int = 10, in_channels: int = 1, width: float = 1.0, dropout: float = 0.25) -> Staged:
    """Two convolutions and two fully connected layers: 151,306 parameters.

    From no paper; small enough to train in seconds on a CPU. 8x8 images. Dropout after every layer but the last: most
    of it has a rectifier after it, without which the mean of the sampled logits would be the logits of one plain pass.

    Args:
        num_classes: C.
        in_channels: of the images.
        width: factor on the channels and units of all hidden layers.
        dropout: rate.
    """
    first, second, units = scaled(32, width), scaled(64, width), scaled(128, width)
    return Staged(
        InputCheck(in_channels, 8),
        *conv_relu(in_channels, first, 3, padding=1),
        nn.MaxPool2d(2),
        nn.Dropout(dropout),
        *conv_relu(first, second, 3, padding=1),
        nn.Dropout(dropout),
        *fully_connected(second * 4 * 4, [units], num_classes, dropout),
    )
