"""A picture, its labels and its instances, painted polygon by polygon and the same to the last bit on every machine.

Everything is integers, or sums, products and quotients of single float64 numbers, which every machine rounds alike: no
sines, powers or reductions, and no drawing library, whose edges change between versions.

Shapes: H rows, W columns, P corners of a polygon.
"""

from collections.abc import Callable, Sequence

import numpy as np

from uncertainty_core.textures import Random, clouds

Colour = Sequence[float] | np.ndarray
Surface = Callable[[np.ndarray, np.ndarray], np.ndarray]  # brightness to add at rows (h, 1) and columns (1, w)

_SUBPIXELS = 16


def inside(polygon: np.ndarray, height: int, width: int) -> tuple[slice, slice, np.ndarray]:
    """Which pixels have their centre inside a polygon (P, 2) of (x, y): rows, columns and a mask of these alone."""
    corners = np.rint(np.asarray(polygon, dtype=np.float64) * _SUBPIXELS).astype(np.int64)
    (x_min, y_min), (x_max, y_max) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    top, bottom = max(y_min // _SUBPIXELS, 0), min(y_max // _SUBPIXELS + 1, height)
    left, right = max(x_min // _SUBPIXELS, 0), min(x_max // _SUBPIXELS + 1, width)
    rows, columns = slice(top, max(bottom, top)), slice(left, max(right, left))
    if top >= bottom or left >= right:
        return rows, columns, np.zeros((rows.stop - top, columns.stop - left), dtype=bool)
    following = np.concatenate([corners[1:], corners[:1]])
    down = corners[:, 1:] <= following[:, 1:]
    (x1, y1), (x2, y2) = np.where(down, corners, following).T, np.where(down, following, corners).T
    centre = np.arange(top, bottom)[:, None] * _SUBPIXELS + _SUBPIXELS // 2
    row, edge = np.nonzero((y1 <= centre) & (centre < y2))
    # the first column whose centre is not left of the edge: x1 + (centre - y1) (x2 - x1) / (y2 - y1), rounded up
    rise = y2[edge] - y1[edge]
    run = x1[edge] * rise + (centre[row, 0] - y1[edge]) * (x2[edge] - x1[edge]) - _SUBPIXELS // 2 * rise
    first = np.minimum(np.maximum(-(-run // (_SUBPIXELS * rise)) - left, 0), right - left)
    stride = right - left + 1
    crossings = np.bincount(row * stride + first, minlength=(bottom - top) * stride).reshape(-1, stride)
    return rows, columns, (np.cumsum(crossings, axis=1)[:, :-1] & 1).astype(bool)


class Canvas:
    """What is painted so far.

    Attributes:
        image: (H, W, 3) RGB, of bytes in the end but real until then.
        labels: (H, W) Cityscapes label ids.
        instances: (H, W) number of the object from 1 on, 0 for what is not counted.
    """

    def __init__(self, random: Random, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.image = np.zeros((height, width, 3))
        self.labels = np.zeros((height, width), dtype=np.uint8)
        self.instances = np.zeros((height, width), dtype=np.uint16)
        self.haze_colour, self.haze = np.full(3, 200.0), 0.0
        self._grain = random.uniform(-1, 1, (height, width))
        self._clouds = clouds(random, height, width, max(height // 20, 2)) + 0.5 * self._grain

    def fill(
        self,
        polygon: np.ndarray,
        colour: Colour,
        label: int | None = None,
        instance: int = 0,
        nearness: float = 1.0,
        grain: float = 4.0,
        clouds: float = 0.0,
        surface: Surface | None = None,
    ) -> None:
        """Paint a polygon (P, 2) of pixel coordinates (x, y).

        Args:
            polygon: may leave the picture.
            colour: RGB; moved towards the haze by the distance.
            label: Cityscapes label id; None leaves label and instance as they are.
            instance: number of the object.
            nearness: 1 at the bottom of the picture, 0 at the horizon.
            grain, clouds: brightness of the roughness from pixel to pixel, and over patches.
            surface: a pattern.
        """
        rows, columns, mask = inside(polygon, self.height, self.width)
        if not mask.any():
            return
        texture = grain * self._grain[rows, columns][mask] + clouds * self._clouds[rows, columns][mask]
        if surface is not None:
            y, x = np.arange(rows.start, rows.stop)[:, None] + 0.5, np.arange(columns.start, columns.stop)[None] + 0.5
            texture += np.broadcast_to(surface(y, x), mask.shape)[mask]
        haze = self.haze * max(1 - nearness, 0.0)
        seen = np.asarray(colour) * (1 - haze) + self.haze_colour * haze
        self.image[rows, columns][mask] = seen + (texture * (1 - haze))[:, None]
        if label is not None:
            self.labels[rows, columns][mask] = label
            self.instances[rows, columns][mask] = instance

    def shade(self, polygon: np.ndarray, light: float) -> None:
        """Multiply the brightness inside a polygon (P, 2) with `light`."""
        rows, columns, mask = inside(polygon, self.height, self.width)
        self.image[rows, columns][mask] *= light

    def blur(self) -> None:
        """Mix every pixel with its neighbours, 1 : 2 : 1 along each axis."""
        for axis in (0, 1):
            margins = [(1, 1) if at == axis else (0, 0) for at in range(3)]
            wide = np.pad(self.image, margins, mode="edge")
            before, after = (np.take(wide, np.arange(self.image.shape[axis]) + shift, axis) for shift in (0, 2))
            self.image = (before + 2 * self.image + after) / 4

    def displace_labels(self, random: Random, pixels: float) -> None:
        """Move the labels against the picture, by up to `pixels` and elsewhere otherwise, as hasty annotators do."""
        period = max(self.height // 10, 2)
        down, right = (clouds(random, self.height, self.width, period) * pixels for _ in range(2))
        y = np.clip(np.arange(self.height)[:, None] + np.rint(down).astype(np.int64), 0, self.height - 1)
        x = np.clip(np.arange(self.width) + np.rint(right).astype(np.int64), 0, self.width - 1)
        self.labels, self.instances = self.labels[y, x], self.instances[y, x]
