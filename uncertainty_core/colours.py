"""The colours of lines, cards and pictures, in one place: of PNG, page and strips alike.

Colours are "#rrggbb".
"""

# Okabe and Ito's, told apart by colour-blind readers too; `roles` gives them to predictors
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# In pictures of detections: objects, detections that overlap one of their class, and the others.
TRUTH, HIT, MISS = "#E6007E", COLOURS[0], COLOURS[1]
INK, PAPER = "#222222", "#FFFFFF"
CARD, DARK_CARD = "#F4F6F8", "#1F2429"  # grounds in a page, of which some prefer a dark one
REFERENCE, EMPTY, GRID = "#444444", "#999999", "#E6E9EC"  # of a diagram


def contrast(one: str, other: str) -> float:
    """Ratio of their luminances as WCAG 2 has it: 1 for equal ones, 21 for black on white; letters want 4.5."""
    darker, lighter = sorted(_luminance(_channels(colour)) for colour in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


def legible(colour: str, ground: str, ratio: float = 4.5) -> str:
    """`colour`, as far towards black, or on a dark ground towards white, as letters need for this `contrast`."""
    end = 0 if contrast(ground, "#000000") > contrast(ground, "#FFFFFF") else 255
    shades = (
        "#" + "".join(f"{round(c + (end - c) * step / 100):02X}" for c in _channels(colour)) for step in range(101)
    )
    return next(shade for shade in shades if contrast(shade, ground) >= ratio)


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:], 16)


def _luminance(channels: tuple[int, int, int]) -> float:
    red, green, blue = ((c / 255 / 12.92) if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
