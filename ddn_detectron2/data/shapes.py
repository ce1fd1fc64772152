"""Outlines of the drawn classes, shapes between two classes, and polygons turned into pixels.

Everything downstream of an outline is integer arithmetic on quarters of a pixel, so that a last-bit difference of a
machine's sine cannot become another picture.

Shapes: P corners of a polygon, H rows, W columns.
"""

import numpy as np

# Neighbours, and the last and the first, are the classes that scenes morph into each other.
CLASSES = ("circle", "hexagon", "square", "cross", "star", "triangle")
SUBPIXELS = 4  # per pixel and axis


def _regular(corners: int, radius: float, start: float = 0.0) -> list[tuple[float, float]]:
    return [(start + k * 360 / corners, radius) for k in range(corners)]


# Corners as (angle in degrees, distance from the centre), the angles ascending within one turn; the radii make the
# areas alike, so that size is no hint at the class.
_CORNERS = {
    "circle": _regular(24, 1.0),
    "hexagon": _regular(6, 1.1),
    "square": _regular(4, 1.25, 45.0),
    "cross": [
        (turn + angle, radius) for turn in range(0, 360, 90) for angle, radius in ((18, 1.27), (45, 0.555), (72, 1.27))
    ],
    "star": [corner for k in range(5) for corner in ((18.0 + 72 * k, 1.55), (54.0 + 72 * k, 0.68))],
    "triangle": _regular(3, 1.55, 30.0),
}


def _radius_at(name: str, degrees: np.ndarray) -> np.ndarray:
    """Distance from the centre of a class to its outline, in each of several directions."""
    angle, radius = (np.array(column) for column in zip(*_CORNERS[name], strict=True))
    right = np.searchsorted(angle, degrees, side="right")
    left, right = right - 1, right % len(angle)
    # the sine rule on the triangle of the centre and the two corners around each direction
    before, after = np.radians(degrees - angle[left]), np.radians(angle[right] - degrees)
    between = np.radians(angle[right] - angle[left])
    return (
        radius[left] * radius[right] * np.sin(between) / (radius[right] * np.sin(after) + radius[left] * np.sin(before))
    )


def outline(first: str, second: str, mix: float) -> np.ndarray:
    """Corners (P, 2) around the origin of the shape that is `first` at mix 0, `second` at 1, and between them between.

    A shape of one class is outline(name, name, 0).
    """
    degrees = np.array(sorted({angle for name in (first, second) for angle, _ in _CORNERS[name]}))
    radius = (1 - mix) * _radius_at(first, degrees) + mix * _radius_at(second, degrees)
    return radius[:, None] * np.stack([np.cos(np.radians(degrees)), -np.sin(np.radians(degrees))], axis=1)


def place(corners: np.ndarray, x: float, y: float, size: float, degrees: float, stretch: float = 1.0) -> np.ndarray:
    """Corners (P, 2) scaled, turned and moved to (x, y) in pixels; the result is in whole quarters of a pixel.

    Args:
        corners: around the origin.
        size: pixels of a distance of 1.
        stretch: width over height before the turn, at the same area.
    """
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    scaled = corners * size * np.sqrt([stretch, 1 / stretch])
    moved = scaled @ np.array([[cos, sin], [-sin, cos]]) + np.array([x, y])
    return np.rint(moved * SUBPIXELS).astype(np.int64)


def _clip_below(polygon: np.ndarray, axis: int, limit: int) -> np.ndarray:
    """The part whose coordinate on `axis` is at most `limit`; corners on the limit itself stay."""
    kept = []
    for start, end in zip(np.roll(polygon, 1, axis=0), polygon, strict=True):
        if (start[axis] <= limit) != (end[axis] <= limit):
            share = (limit - start[axis]) / (end[axis] - start[axis])
            crossing = np.rint(start + share * (end - start)).astype(np.int64)
            crossing[axis] = limit
            kept.append(crossing)
        if end[axis] <= limit:
            kept.append(end)
    return np.array(kept, dtype=np.int64).reshape(-1, 2)


def clip(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """The part (P', 2) of a polygon (P, 2) that lies in the image, both in quarters of a pixel; P' is 0 for none."""
    for axis, limit in ((0, width), (1, height)):
        polygon = _clip_below(polygon, axis, limit * SUBPIXELS)
        polygon = -_clip_below(-polygon, axis, 0)
    return polygon


def area(polygon: np.ndarray) -> float:
    """Square pixels inside a polygon (P, 2) in quarters of a pixel."""
    x, y = polygon.T
    twice = np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))
    return abs(int(twice)) / 2 / SUBPIXELS**2


def coverage(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """How much of every pixel (H, W) a polygon (P, 2) in quarters of a pixel covers: 0 to 16 sixteenths."""
    covered = np.zeros((height, width), dtype=np.int64)
    polygon = clip(polygon, height, width)
    if len(polygon) == 0:
        return covered
    left, top = polygon.min(axis=0) // SUBPIXELS
    right, bottom = -(-polygon.max(axis=0) // SUBPIXELS)
    # Doubled coordinates: corners are even, centres of subpixels odd, so no centre is level with a corner.
    x = np.arange(left * SUBPIXELS, right * SUBPIXELS) * 2 + 1
    y = (np.arange(top * SUBPIXELS, bottom * SUBPIXELS) * 2 + 1)[:, None]
    inside = np.zeros((len(y), len(x)), dtype=bool)
    for (x1, y1), (x2, y2) in zip(np.roll(polygon, 1, axis=0) * 2, polygon * 2, strict=True):
        level = (y1 < y) != (y2 < y)
        # x < x1 + (y - y1) (x2 - x1) / (y2 - y1), without dividing
        left_of_edge = ((x - x1) * (y2 - y1) < (y - y1) * (x2 - x1)) == (y1 < y2)
        inside ^= level & left_of_edge
    blocks = inside.reshape(bottom - top, SUBPIXELS, right - left, SUBPIXELS)
    covered[top:bottom, left:right] = blocks.sum(axis=(1, 3))
    return covered
