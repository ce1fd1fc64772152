"""What all networks here are made of: a chain of stages.

Shapes: N images, C classes.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from uncertainty_core.checks import check_positive_int


class Staged(nn.Module):
    """A network that runs its stages one after the other and does nothing else: images (N, channels, H, W) to (N, C).

    Monte-Carlo dropout needs many passes, and the stages before the first one that holds a dropout give the same in
    each: in a plain chain anyone can split them off and run them once. For the same reason no stage works in place on
    what it is given.

    Weights start as He et al. 2015 have it for rectifiers (normal, fan in), biases at zero: the deep networks here that
    have no batch norm do not train from torch's own, smaller weights.
    """

    def __init__(self, *stages: nn.Module) -> None:
        super().__init__()
        self.stages = nn.Sequential(*stages)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C)."""
        return self.stages(images)


class InputCheck(nn.Module):
    """The first stage: passes on images (N, channels, size, size); others are a ValueError that names their shape.

    Args:
        channels: of an image.
        size: height and width in pixels.
        or_larger: whether each of the two may be larger.
    """

    def __init__(self, channels: int, size: int, or_larger: bool = False) -> None:
        super().__init__()
        check_positive_int("in_channels", channels)
        self.channels = channels
        self.size = size
        self.or_larger = or_larger

    def forward(self, images: Tensor) -> Tensor:
        """The same images."""
        if images.dim() != 4 or images.shape[1] != self.channels or not self.takes(*images.shape[2:]):
            raise ValueError(f"images must have shape (N, {self.extra_repr()}), got {tuple(images.shape)}")
        return images

    def takes(self, height: int, width: int) -> bool:
        """Whether images of so many pixels fit."""
        return all(pixels == self.size or (self.or_larger and pixels > self.size) for pixels in (height, width))

    @property
    def pixels(self) -> str:
        """Height and width in words."""
        return f"{self.size}x{self.size}" + " or more" * self.or_larger

    def extra_repr(self) -> str:
        """Channels, height and width."""
        pixels = f">= {self.size}" if self.or_larger else self.size
        return f"{self.channels}, {pixels}, {pixels}"


def scaled(units: int, width: float) -> int:
    """`units` times `width`, rounded, but at least one is left."""
    if not 0 < width < float("inf"):
        raise ValueError(f"width must be positive, got {width}")
    return max(1, round(units * width))


def fully_connected(inputs: int, hidden: Sequence[int], num_classes: int, dropout: float) -> list[nn.Module]:
    """From feature maps of `inputs` numbers to logits: rectified layers, with dropout after each, and a linear one."""
    layers: list[nn.Module] = [nn.Flatten()]
    for units in hidden:
        layers += [nn.Linear(inputs, units), nn.ReLU(), nn.Dropout(dropout)]
        inputs = units
    return [*layers, nn.Linear(inputs, num_classes)]


def conv_relu(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> tuple[nn.Module, nn.Module]:
    """A convolution and its rectifier."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.ReLU()
