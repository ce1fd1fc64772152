"""Line charts as inline SVG, with a legend whose boxes show and hide the lines.

Shapes: K bins of confidence, Q points of a curve.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from ..catalog import CurveKind
from ..roles import Look
from .run_record import Curve, Reliability

WIDTH, LEFT, RIGHT, TOP = 440, 58, 12, 10
SPARSE = 0.01  # share of the samples below which the mark of a bin is hollow

# told apart in any colour: round, square, triangle, diamond, triangle downwards, cross; each about the origin
MARKS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "M-3.6 -3.6h7.2v7.2h-7.2z",
    "M0 -4.6L4.4 3.4H-4.4z",
    "M0 -5L5 0L0 5L-5 0z",
    "M0 4.6L4.4 -3.4H-4.4z",
    "M-1.5 -4.4h3v2.9h2.9v3h-2.9v2.9h-3v-2.9h-2.9v-3h2.9z",
)
DASHES = ("", "7 3", "2 3", "7 3 2 3")  # of a predictor's lines: its own, and those of its calibrators


@dataclass(frozen=True)
class Style:
    """How a run is drawn, in every chart alike.

    key: joins the lines of a run with its boxes.
    look: its colour, mark and dashes.
    drawn: whether its box is ticked when the page opens.
    """

    key: str
    look: Look
    drawn: bool

    @property
    def stroke(self) -> str:
        """Attributes of a line."""
        dashes = DASHES[self.look.dashes % len(DASHES)]
        return f'stroke="{self.look.colour}"' + (f' stroke-dasharray="{dashes}"' if dashes else "")

    def mark(self, x: float, y: float, hollow: bool = False) -> str:
        """Its mark at a place, in pixels."""
        fill = f'class="hollow" stroke="{self.look.colour}"' if hollow else f'fill="{self.look.colour}"'
        return f'<path d="{MARKS[self.look.mark % len(MARKS)]}" transform="translate({x:.1f} {y:.1f})" {fill}/>'


@dataclass(frozen=True)
class Frame:
    """A plot's place, in pixels from `top` downwards, and what its axes span."""

    top: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]

    def across(self, value: float) -> float:
        """Pixels from the left."""
        low, high = self.x
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)

    def down(self, value: float) -> float:
        """Pixels from the top."""
        low, high = self.y
        return self.top + self.height * (high - value) / (high - low)

    def points(self, x: Sequence[float], y: Sequence[float]) -> str:
        """As a polyline has them; a value that is not finite is left out."""
        return " ".join(
            f"{self.across(a):.1f},{self.down(b):.1f}"
            for a, b in zip(x, y, strict=True)
            if math.isfinite(a) and math.isfinite(b)
        )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values within [low, high], about so many: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def reliability_chart(
    runs: Mapping[str, Reliability], styles: Mapping[str, Style], notes: Mapping[str, str], caption: str
) -> str:
    """Success frequency against confidence, above the share of the samples in each bin.

    Args:
        runs: the bins of each run.
        styles: of each run.
        notes: what the legend says beside a name.
        caption: below the chart.
    """
    upper = Frame(TOP, 340, (0, 1), (0, 1))
    shares = {name: [n / max(1, sum(bins.count)) for n in bins.count] for name, bins in runs.items()}
    lower = Frame(380, 80, (0, 1), (0, max((share for found in shares.values() for share in found), default=0) or 1))
    content = _axes(upper, "", "success frequency") + _axes(lower, "confidence", "share", 2)
    content += _line(upper, (0, 1), (0, 1), 'class="ideal"')
    for name, bins in runs.items():
        style = styles[name]
        lines = _line(upper, bins.mean_confidence, bins.success_frequency, style.stroke)
        lines += "".join(_bin_marks(upper, bins, shares[name], style, name))
        lines += _line(lower, *_steps(bins.edges, shares[name]), style.stroke)
        content += _series(style, lines)
    said = "; ".join(f"{name} {note}" for name, note in notes.items() if note)
    return _figure(content, 505, f"Reliability diagram. {said}", list(runs), styles, notes, caption)


def _bin_marks(frame: Frame, bins: Reliability, shares: list[float], style: Style, name: str) -> Iterator[str]:
    columns = zip(pairwise(bins.edges), bins.count, bins.mean_confidence, bins.success_frequency, shares, strict=True)
    for (low, high), count, confidence, success, share in columns:
        if count:
            said = f"{name}: {count:,} with confidence {low:.2f} to {high:.2f}, on average {confidence:.3f}"
            mark = style.mark(frame.across(confidence), frame.down(success), share < SPARSE)
            yield f"<g><title>{escape(said)}; right {success:.3f}</title>{mark}</g>"


def _steps(edges: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """The outline of a histogram."""
    x = [edge for pair in pairwise(edges) for edge in pair]
    return [edges[0], *x, edges[-1]], [0, *(value for value in values for _ in range(2)), 0]


def curve_chart(kind: CurveKind, runs: Mapping[str, Curve], styles: Mapping[str, Style]) -> str:
    """A line for each run, and a thin dotted one for its oracle."""
    runs = {name: _drawn(kind, curve) for name, curve in runs.items()}
    x = [value for curve in runs.values() for value in curve.x if math.isfinite(value)]
    y = [value for curve in runs.values() for value in (*curve.y, *(curve.oracle or ())) if math.isfinite(value)]
    frame = Frame(TOP, 340, _span(x), _span(y, 0.03))
    content = _axes(frame, kind.x, kind.y)
    for name, curve in runs.items():
        style = styles[name]
        lines = f"<title>{escape(name)}</title>" + _line(frame, curve.x, curve.y, style.stroke)
        if curve.oracle is not None:
            lines += _line(frame, curve.x, curve.oracle, f'class="oracle" stroke="{style.look.colour}"')
        content += _series(style, lines)
    oracle = " Dotted: the best possible order of the same predictions." if any(c.oracle for c in runs.values()) else ""
    ends = "; ".join(f"{name} from {curve.y[0]:.3g} to {curve.y[-1]:.3g}" for name, curve in runs.items() if curve.y)
    return _figure(content, 395, f"{kind.title}: {ends}", list(runs), styles, {}, kind.caption + oracle)


def _drawn(kind: CurveKind, curve: Curve) -> Curve:
    """The curve in the unit of its axis."""
    oracle = None if curve.oracle is None else [kind.factor * value for value in curve.oracle]
    return Curve(curve.x, [kind.factor * value for value in curve.y], oracle)


def _span(values: Sequence[float], margin: float = 0.0) -> tuple[float, float]:
    """From the smallest to the largest with a margin, but never below zero for what is not negative."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high == low:
        low, high = low - 0.5, high + 0.5
    room = margin * (high - low)
    return (low - room if low - room >= 0 or low < 0 else 0.0), high + room


def _series(style: Style, content: str) -> str:
    return f'<g class="series" data-run="{style.key}">{content}</g>\n'


def _line(frame: Frame, x: Sequence[float], y: Sequence[float], attributes: str) -> str:
    return f'<polyline points="{frame.points(x, y)}" {attributes}/>'


def _axes(frame: Frame, x_label: str, y_label: str, y_ticks: int = 5) -> str:
    """Grid, numbers and names; without `x_label` the numbers below are those of another frame."""
    left, right, bottom = LEFT, WIDTH - RIGHT, frame.top + frame.height
    parts = []
    for value, text in _with_text(ticks(*frame.y, y_ticks)):
        y = frame.down(value)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 7}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for value, text in _with_text(ticks(*frame.x)):
        x = frame.across(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{frame.top}" y2="{bottom}"/>')
        if x_label:
            parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{text}</text>')
    middle = frame.top + frame.height / 2
    parts.append(f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>')
    if x_label:
        parts.append(f'<text x="{(left + right) / 2}" y="{bottom + 38}" text-anchor="middle">{escape(x_label)}</text>')
    return f'<g class="axes">{"".join(parts)}</g>\n'


def _with_text(values: Sequence[float]) -> Iterator[tuple[float, str]]:
    step = values[1] - values[0] if len(values) > 1 else 1.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return ((value, f"{value:.{digits}f}") for value in values)


def _figure(
    content: str,
    height: int,
    said: str,
    names: Sequence[str],
    styles: Mapping[str, Style],
    notes: Mapping[str, str],
    caption: str,
) -> str:
    boxes = "".join(_box(name, styles[name], notes.get(name, "")) for name in names)
    return (
        f'<figure class="chart">\n<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(said)}">\n'
        f"{content}</svg>\n"
        f'<fieldset>\n<legend class="hidden">Lines that are drawn</legend>\n{boxes}</fieldset>\n'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


def _box(name: str, style: Style, note: str) -> str:
    """A box that shows and hides a run."""
    swatch = f'<line x1="0" x2="26" y1="7" y2="7" {style.stroke}/>{style.mark(13, 7)}'
    said = f' <span class="value">{escape(note)}</span>' if note else ""
    return (
        f'<label><input type="checkbox" data-run="{style.key}"{" checked" if style.drawn else ""}>'
        f'<svg class="swatch" viewBox="0 0 26 14" aria-hidden="true">{swatch}</svg><span>{escape(name)}{said}</span>'
        "</label>\n"
    )
