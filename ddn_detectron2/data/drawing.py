"""One drawn scene: small, and hard enough for real mistakes.

A scene is a function of (seed, split, index) alone, the same on every machine. It holds bright shapes of several
classes on darker ground that overlap, leave the image, hide in texture, noise or low contrast, or are too small; shapes
between two classes, labelled by a draw with the probability of their mix; wrong labels; blots of no class; heaps that
count as a crowd. Colours hint at classes, but those of neighbouring classes overlap.

Boxes and polygons are those of the whole shape inside the image, with the part that others hide.

Shapes: H rows, W columns.
"""

from typing import Any, NamedTuple

import numpy as np

from uncertainty_core.textures import Random, clouds, keyed_random

from .shapes import CLASSES, SUBPIXELS, area, clip, coverage, outline, place

VERSION = 2  # raise it when a scene changes
CATEGORY_IDS = (1, 2, 4, 5, 7, 11)  # with gaps, as COCO's own
LONG_SIDE, SHORT_SIDE = 128, 96
MAX_OBJECTS = 7
MIN_VISIBLE = 0.35  # share of a shape that the border and other shapes must leave in sight, else it is not drawn

SHARE_EMPTY = 0.05  # of images
SHARE_CROWD = 0.06
SHARE_MORPHED = 0.3  # of shapes
SHARE_MISLABELLED = 0.04
SHARE_FAINT = 0.2


class Scene(NamedTuple):
    """A picture (H, W, 3) of bytes, and what is in it: COCO annotations but for their ids."""

    image: np.ndarray
    annotations: list[dict[str, Any]]


def _chance(random: Random, probability: float) -> bool:
    return random.uniform() < probability


def _below(random: Random, limit: int) -> int:
    return int(random.uniform() * limit)


def _bright(random: Random, hue: float) -> np.ndarray:
    """A colour of that hue, in sixths of a turn, pale or strong."""
    pure = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    strength = random.uniform(0.3, 1)
    return random.uniform(180, 240) * (1 - strength + strength * pure)


def _background(random: Random, height: int, width: int) -> np.ndarray:
    """A gradient between two tones, under stripes, checks, clouds or nothing (H, W, 3)."""
    y, x = np.mgrid[:height, :width]
    tone = random.uniform(20, 110, 3)
    slope = random.uniform(-30, 30, 3)
    image = tone + slope * (x / width + y / height - 1)[..., None]
    strength = random.uniform(-25, 25, 3)
    texture = _below(random, 4)
    period = 3 + _below(random, 12)
    along = (_below(random, 5) - 2, _below(random, 5) - 2)
    if texture == 0:
        image += strength * ((x * along[0] + y * along[1]) // period % 2)[..., None]
    elif texture == 1:
        image += strength * ((x // period + y // period) % 2)[..., None]
    elif texture == 2:
        image += strength * clouds(random, height, width, 2 * period)[..., None]
    return image


def _paint(image: np.ndarray, covered: np.ndarray, colour: np.ndarray) -> None:
    share = covered[..., None] / SUBPIXELS**2
    image += share * (colour - image)


def _fill(random: Random, image: np.ndarray, covered: np.ndarray, hue: float) -> None:
    """Paint `covered` (H, W) in that hue, sometimes hardly another colour than what is there."""
    under = image[np.unravel_index(covered.argmax(), covered.shape)]
    contrast = random.uniform(0.2, 0.4) if _chance(random, SHARE_FAINT) else random.uniform(0.7, 1)
    _paint(image, covered, under + contrast * (_bright(random, hue) - under))


def _blot(random: Random, height: int, width: int) -> np.ndarray:
    """A polygon of no class: a shapeless blot or a bar."""
    x, y = random.uniform(0, width), random.uniform(0, height)
    if _chance(random, 0.5):
        bar = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
        return place(bar, x, y, random.uniform(4, 10), random.uniform(0, 180), random.uniform(6, 20))
    radius = random.uniform(0.5, 1.5, 9)
    angle = np.arange(9) * (2 * np.pi / 9)
    blot = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return place(blot, x, y, random.uniform(4, 16), 0)


def _draw_class(random: Random) -> tuple[str, str, float]:
    """Two classes and the mix of the second: mostly a shape of the first alone."""
    first = _below(random, len(CLASSES))
    if not _chance(random, SHARE_MORPHED):
        return CLASSES[first], CLASSES[first], 0.0
    return CLASSES[first], CLASSES[(first + 1) % len(CLASSES)], random.uniform(0.15, 0.85)


def label_probabilities(first: str, second: str, mix: float) -> np.ndarray:
    """Probability of each label for a shape between two classes, mislabelling included (len(CLASSES),)."""
    clean = np.zeros(len(CLASSES))
    clean[CLASSES.index(first)] += 1 - mix
    clean[CLASSES.index(second)] += mix
    return (1 - SHARE_MISLABELLED) * clean + SHARE_MISLABELLED * (1 - clean) / (len(CLASSES) - 1)


def _annotation(polygon: np.ndarray, category: int) -> dict[str, Any]:
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    return {
        "category_id": CATEGORY_IDS[category],
        "bbox": (np.concatenate([low, high - low]) / SUBPIXELS).tolist(),
        "area": area(polygon),
        "segmentation": [(polygon / SUBPIXELS).flatten().tolist()],
        "iscrowd": 0,
    }


def _run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed RLE of a mask (H, W): lengths of runs down the columns, starting with zeros."""
    flat = np.concatenate([[False], mask.flatten(order="F")])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()


def _draw_crowd(random: Random, image: np.ndarray) -> dict[str, Any]:
    """A heap of little shapes of one class, which are one annotation."""
    height, width, _ = image.shape
    category = _below(random, len(CLASSES))
    corners = outline(CLASSES[category], CLASSES[category], 0)
    x, y = random.uniform(24, width - 24), random.uniform(24, height - 24)
    mask = np.zeros((height, width), dtype=bool)
    for _ in range(8 + _below(random, 7)):
        at = x + random.uniform(-20, 20), y + random.uniform(-20, 20)
        covered = coverage(place(corners, *at, random.uniform(3, 6), random.uniform(0, 360)), height, width)
        _paint(image, covered, _bright(random, random.uniform(0, 6)))
        mask |= covered >= SUBPIXELS**2 // 2
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return {
        "category_id": CATEGORY_IDS[category],
        "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
        "area": int(mask.sum()),
        "segmentation": {"counts": _run_lengths(mask), "size": [height, width]},
        "iscrowd": 1,
    }


def _draw_objects(random: Random, image: np.ndarray, wanted: int) -> list[dict[str, Any]]:
    """Paint up to `wanted` shapes, each over those before it, and return their annotations."""
    height, width, _ = image.shape
    annotations: list[dict[str, Any]] = []
    drawn: list[tuple[np.ndarray, float]] = []  # pixels in sight (H, W) in sixteenths, and pixels of the whole shape
    for _ in range(wanted):
        first, second, mix = _draw_class(random)
        at = random.uniform(0, width), random.uniform(0, height)
        size = 5.5 * 4 ** random.uniform()  # up to 22 pixels, each doubling as likely as the next
        turn, stretch = random.uniform(-30, 30), random.uniform(0.75, 1.33)
        polygon = place(outline(first, second, mix), *at, size, turn, stretch)
        covered = coverage(polygon, height, width)
        after = [(np.minimum(seen, SUBPIXELS**2 - covered), whole) for seen, whole in drawn]
        after.append((covered, area(polygon)))
        if any(seen.sum() < MIN_VISIBLE * SUBPIXELS**2 * whole for seen, whole in after):
            continue
        drawn = after
        # classes have hues round the circle in their order, which spread as far as the next but one
        hue = CLASSES.index(first) + mix + random.uniform(-1, 1) + random.uniform(-1, 1)
        _fill(random, image, covered, hue)
        probabilities = label_probabilities(first, second, mix)
        category = int(np.searchsorted(np.cumsum(probabilities)[:-1], random.uniform(), side="right"))
        annotation = _annotation(clip(polygon, height, width), category)
        annotations.append(annotation | {"label_probabilities": np.round(probabilities, 4).tolist()})
    return annotations


def draw_scene(seed: int, split: str, index: int) -> Scene:
    """The scene of that number, always the same."""
    random = keyed_random("scene", seed, split, index)
    height, width = (SHORT_SIDE, LONG_SIDE) if _chance(random, 0.6) else (LONG_SIDE, SHORT_SIDE)
    image = _background(random, height, width)
    annotations = [_draw_crowd(random, image)] if _chance(random, SHARE_CROWD) else []
    for _ in range(_below(random, 3)):
        covered = coverage(_blot(random, height, width), height, width)
        _fill(random, image, covered, random.uniform(0, 6))
    if not _chance(random, SHARE_EMPTY):
        annotations += _draw_objects(random, image, 1 + _below(random, MAX_OBJECTS))
    noise = random.uniform(2, 20) * random.uniform(-1, 1, image.shape)
    return Scene(np.clip(np.rint(image + noise), 0, 255).astype(np.uint8), annotations)
