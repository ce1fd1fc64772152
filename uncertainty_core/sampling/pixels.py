"""A sample of the pixels of many images.

Shapes: C classes, H x W pixels, n pixels of the sample.
"""

import torch
from torch import Tensor

from ..checks import check_labels, check_positive_int
from .mc_dropout import derive_seed

SIZE = 1_000_000


class PixelSample:
    """Pixels drawn at random, each as likely as any other, the same in any order and division of the images.

    Each pixel draws a number from a generator that is keyed by its image; those with the lowest numbers are kept. Void
    pixels take no part, and an image that is added twice counts once.

    Args:
        size: of the sample, at the most.
        seed: of the draw.
        ignore_index: label of void.
    """

    def __init__(self, size: int = SIZE, seed: int = 0, ignore_index: int = 255) -> None:
        check_positive_int("size", size)
        self.size, self.seed, self.ignore_index = size, seed, ignore_index
        self.number: Tensor | None = None  # (n,), ascending
        self._probabilities = self._labels = None

    def add(self, image: int | str, probabilities: Tensor, labels: Tensor) -> None:
        """Let the pixels of one image take part.

        Args:
            image: its key, unlike that of every other image.
            probabilities: (C, H, W).
            labels: true classes (H, W).
        """
        if labels.shape != probabilities.shape[1:]:
            raise ValueError(f"labels must have shape {tuple(probabilities.shape[1:])}, got {tuple(labels.shape)}")
        check_labels("labels", labels, len(probabilities), self.ignore_index)
        generator = torch.Generator().manual_seed(derive_seed("pixels", self.seed, image))
        number = torch.randint(2**62, labels.shape, generator=generator).flatten()
        labels = labels.flatten().cpu()
        place = (labels != self.ignore_index).nonzero().squeeze(1)
        limit = self.number[-1] if len(self) == self.size else 2**62
        place = place[number[place] < limit]
        columns = probabilities.flatten(1).detach()[:, place.to(probabilities.device)].T.float().cpu()
        self._merge(number[place], columns, labels[place].long())

    def merge(self, other: "PixelSample") -> None:
        """Join the sample of other images."""
        if other.number is not None:
            self._merge(other.number, other._probabilities, other._labels)

    def _merge(self, number: Tensor, probabilities: Tensor, labels: Tensor) -> None:
        if self.number is not None:
            number = torch.cat((self.number, number))
            probabilities = torch.cat((self._probabilities, probabilities))
            labels = torch.cat((self._labels, labels))
        in_order = number.argsort(stable=True)
        is_new = number[in_order].diff(prepend=number.new_tensor([-1])) > 0
        lowest = in_order[is_new][: self.size]
        self.number, self._probabilities, self._labels = number[lowest], probabilities[lowest], labels[lowest]

    def __len__(self) -> int:
        return 0 if self.number is None else len(self.number)

    @property
    def probabilities(self) -> Tensor:
        """(n, C), float32."""
        return self._filled(self._probabilities)

    @property
    def labels(self) -> Tensor:
        """(n,), int64."""
        return self._filled(self._labels)

    def _filled(self, values: Tensor | None) -> Tensor:
        if not len(self):
            raise ValueError("the sample is empty: no image has a pixel that is not void")
        return values
