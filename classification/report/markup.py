"""Drawings and test images as parts of the page, and the style of what this report alone has."""

from collections.abc import Iterable
from html import escape

from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from uncertainty_core.colours import CARD, DARK_CARD, legible
from uncertainty_core.io.files import png
from uncertainty_core.report.markup import data_uri, picture, side_by_side

FIGURE_WIDTH = 4.4  # inches: all drawings are as wide, so that their letters are as large
FIGURE_DPI = 200  # sharp on a fine screen and in print
LARGEST_IMAGE = 192  # pixels: examples are shown smaller than that
PIXEL_ART = 96  # images below so many pixels are enlarged without smoothing


def figures(pictures: Iterable[tuple[Figure, str, str]]) -> str:
    """Drawings side by side where there is room; each with what it shows to those who cannot see it, and a caption."""
    return side_by_side(_figure(*found) for found in pictures)


def _figure(figure: Figure, alternative: str, caption: str) -> str:
    figure.set_size_inches(figure.get_size_inches() * FIGURE_WIDTH / figure.get_figwidth())
    content = png(figure, dpi=FIGURE_DPI, facecolor="white", metadata={"Software": None})
    return picture(content, "image/png", alternative, caption)


def image(pixels: Tensor, alternative: str) -> str:
    """A test image: uint8 (channels, H, W) of one or three channels."""
    array = pixels.cpu().permute(1, 2, 0).numpy()
    shown = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    shown.thumbnail((LARGEST_IMAGE, LARGEST_IMAGE))  # shrinks only
    kind = ' class="pixels"' if max(shown.size) < PIXEL_ART else ""
    return f'<img{kind} src="{data_uri(png(shown, optimize=True))}" alt="{escape(alternative)}">'


def style(baseline: str, student: str) -> str:
    """What this report alone has; letters and bars of cards have the colours that the two predictors' lines have."""

    def colours(ground: str) -> str:
        return f":root {{ --student: {legible(student, ground)}; --baseline: {legible(baseline, ground)}; }}"

    return f"\n{colours(CARD)}\n@media (prefers-color-scheme: dark) {{ {colours(DARK_CARD)} }}\n{_STYLE}"


_STYLE = """\
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: 1rem; margin: .75rem 0 0; }
.card { display: flex; flex-direction: column; padding: .6rem; background: var(--panel); border-radius: 6px; }
.card img { display: block; width: 100%; max-width: 8rem; margin: .25rem auto .5rem; border-radius: 3px; }
.card img.pixels { image-rendering: pixelated; }
.card svg { display: block; width: 100%; height: 5rem; }
.card figcaption { overflow-wrap: anywhere; line-height: 1.35; }
.card strong { color: var(--text); }
.scores { display: flex; justify-content: space-between; font-size: .9rem; font-variant-numeric: tabular-nums; }
.student { color: var(--student); fill: var(--student); font-weight: 600; }
.baseline { color: var(--baseline); fill: var(--baseline); font-weight: 600; }
.truth { fill: var(--muted); opacity: .22; }
.axis { stroke: var(--muted); stroke-width: .6; }
@media print {
  .cards { grid-template-columns: repeat(8, 1fr); gap: .4rem; }
  .card { padding: .3rem; }
  .scores, .card figcaption { font-size: 7pt; }
}
"""
