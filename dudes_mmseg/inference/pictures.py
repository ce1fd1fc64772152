"""A prediction as people look at it: figure 3 of DUDES.

Shapes: H rows, W columns, C classes.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import matplotlib
import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

GAP = 4
SMALLEST_SIDE = 160  # of a panel; below that its title is wider than itself
LARGEST_SIDE = 1024  # of a panel: nobody looks at larger ones side by side
COLOUR_LIMIT = 0.3  # where the colours of a deviation end: a mean over images is about 0.1, and few pixels reach 0.3
COLOUR_LIMITS = {"entropy": 1, "mutual_information": 0.3, "error": 1, "own_error": 1}  # of a head's other outputs
_COLOURS = np.rint(255 * matplotlib.colormaps["cividis"](np.linspace(0, 1, 256))[:, :3]).astype(np.uint8)
VOID_COLOUR = (0, 0, 0)


def colour_classes(classes: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """Colours (H, W, 3) of a class map (H, W); what is none of the C classes of the `palette` is black."""
    table = np.array([*palette, VOID_COLOUR], dtype=np.uint8)
    known = (classes >= 0) & (classes < len(palette))
    return table[np.where(known, classes, len(palette))]


def colour_uncertainty(uncertainty: np.ndarray, limit: float = COLOUR_LIMIT) -> np.ndarray:
    """Colours (H, W, 3) of an uncertainty map (H, W): dark blue for 0, yellow from `limit` on."""
    return _COLOURS[np.rint(255 * np.clip(uncertainty / limit, 0, 1)).astype(int)]


def wrong_pixels(prediction: np.ndarray, label: np.ndarray) -> np.ndarray:
    """White (H, W, 3) where the prediction (H, W) is wrong or the label void, black elsewhere."""
    return np.repeat(np.where(prediction == label, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def strip(
    image: np.ndarray,
    prediction: np.ndarray,
    uncertainty: np.ndarray,
    palette: Sequence[Sequence[int]],
    label: np.ndarray | None = None,
    others: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> np.ndarray:
    """Image, ground truth, prediction, errors and uncertainties side by side, each with its title.

    Args:
        image: RGB (H, W, 3), bytes.
        prediction: classes (H, W).
        uncertainty: (H, W) in [0, 1].
        palette: C colours.
        label: true classes (H, W), 255 for void; None where they are not known: two panels less.
        others: uncertainties (H, W) by the names of `COLOUR_LIMITS`.

    Returns:
        RGB picture of bytes.
    """
    panels = {"image": image}
    if label is not None:
        panels["ground truth"] = colour_classes(label, palette)
    panels["prediction"] = colour_classes(prediction, palette)
    if label is not None:
        panels["wrong or void"] = wrong_pixels(prediction, label)
    panels[f"uncertainty, 0 to {COLOUR_LIMIT}"] = colour_uncertainty(uncertainty)
    for name, values in others.items():
        limit = COLOUR_LIMITS[name]
        panels[f"{name.replace('_', ' ')}, 0 to {limit}"] = colour_uncertainty(values, limit)
    return _side_by_side(panels)


def _side_by_side(panels: dict[str, np.ndarray]) -> np.ndarray:
    height, width = next(iter(panels.values())).shape[:2]
    scale = max(1, min(-(-SMALLEST_SIDE // width), LARGEST_SIDE // height))
    height, width = height * scale, width * scale
    size = int(np.clip(width / 14, 10, 28))
    font = ImageFont.truetype(findfont("DejaVu Sans"), size)
    title, scale_bar = size + 2 * GAP, size
    picture = Image.new("RGB", (len(panels) * (width + GAP) + scale_bar, title + height), (255, 255, 255))
    draw = ImageDraw.Draw(picture)
    for number, (name, panel) in enumerate(panels.items()):
        left = number * (width + GAP)
        draw.text((left + GAP, GAP // 2), name, fill=(0, 0, 0), font=font)
        picture.paste(Image.fromarray(panel).resize((width, height), Image.Resampling.NEAREST), (left, title))
    bar = _COLOURS[np.linspace(255, 0, height).astype(int)][:, None].repeat(scale_bar, axis=1)
    picture.paste(Image.fromarray(bar), (len(panels) * (width + GAP), title))
    return np.asarray(picture)
