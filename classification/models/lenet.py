"""LeNet for MNIST, with little and with much dropout: two networks of dropout distillation (Rota Bulò 2016).

The paper names LeNet-5 and gives neither sizes nor rates. The sizes are Caffe's, 20-50-500-10, with a rectifier after
every hidden layer (Caffe's convolutions have none). The dropout of a convolution comes before its pooling: literally
"after every convolutional layer", and where Gal & Ghahramani have it in their LeNet of this kind.
"""

from torch import nn

from .staged import InputCheck, Staged, conv_relu, fully_connected, scaled


def _lenet(num_classes: int, in_channels: int, width: float, dropout: float, in_convolutions: bool) -> Staged:
    """The layers of both, with dropout before each pooling or without it."""
    first, second, units = scaled(20, width), scaled(50, width), scaled(500, width)

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        noise = [nn.Dropout(dropout)] if in_convolutions else []
        return [*conv_relu(inputs, outputs, 5), *noise, nn.MaxPool2d(2)]

    return Staged(
        InputCheck(in_channels, 28),
        *block(in_channels, first),
        *block(first, second),
        *fully_connected(second * 4 * 4, [units], num_classes, dropout),
    )


def lenet(num_classes: int = 10, in_channels: int = 1, width: float = 1.0, dropout: float = 0.5) -> Staged:
    """LeNet: 431,080 parameters.

    Rota Bulò 2016, section 5.1. 28x28 images. Dropout after the penultimate layer alone.

    Args:
        num_classes: C.
        in_channels: of the images.
        width: factor on the channels and units of all hidden layers.
        dropout: rate.
    """
    return _lenet(num_classes, in_channels, width, dropout, in_convolutions=False)


def lenet_all(num_classes: int = 10, in_channels: int = 1, width: float = 1.0, dropout: float = 0.5) -> Staged:
    """LeNetAll: 431,080 parameters, those of LeNet.

    Rota Bulò 2016, section 5.1. 28x28 images. Dropout after every convolutional or fully connected layer but the last.

    Args:
        num_classes: C.
        in_channels: of the images.
        width: factor on the channels and units of all hidden layers.
        dropout: rate.
    """
    return _lenet(num_classes, in_channels, width, dropout, in_convolutions=True)
