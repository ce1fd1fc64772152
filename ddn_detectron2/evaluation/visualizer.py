"""Ground truth, baseline and student side by side, the images whose scores changed most first.

Detections here are those of one image; categories are numbered as in uncertainty_core.detection.

Shapes: N boxes of one image, A and B of two sets, P pairs, H rows, W columns.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from uncertainty_core.cli import track
from uncertainty_core.colours import HIT, INK, MISS, PAPER, TRUTH
from uncertainty_core.detection.box_std import width
from uncertainty_core.detection.coco_format import Detections, GroundTruth, read_detections, read_ground_truth
from uncertainty_core.detection.matching import box_iou
from uncertainty_core.io.files import write_png
from uncertainty_core.recalibration import ConformalBoxes, scale_boxes

from ..data.coco_check import check_images, opened

PANEL = 420  # pixels of the longer side of an image as it is drawn beside others
LARGEST_SIDE = 1024  # of one by itself
LINE = 20  # pixels from one line of text to the next
GAP = 8
LEVEL = 0.9  # of the intervals that are drawn


@dataclass(frozen=True, eq=False)
class Truth:
    """The objects of one image: box (N, 4), category (N,), and whether each is a crowd (N,)."""

    box: np.ndarray
    category: np.ndarray
    crowd: np.ndarray


@dataclass(frozen=True, eq=False)
class Comparison:
    """One image to draw. `change` (N,) of the student's scores is NaN where the baseline has no such box."""

    truth: Truth
    baseline: Detections
    student: Detections
    change: np.ndarray

    @property
    def largest_change(self) -> float:
        """The change that is furthest from 0; 0 if no detection has a counterpart."""
        known = self.change[~np.isnan(self.change)]
        return float(known[np.abs(known).argmax()]) if len(known) else 0.0


def truth_of_image(ground_truth: GroundTruth, image: int) -> Truth:
    """The objects of the image of that index."""
    rows = _rows(ground_truth.image, image)
    return Truth(ground_truth.box[rows], ground_truth.category[rows], ground_truth.crowd[rows])


def detections_of_image(detections: Detections, image: int) -> Detections:
    """The detections in the image of that index."""
    return detections.take(_rows(detections.image, image))


def _rows(images: np.ndarray, image: int) -> slice:
    return slice(*np.searchsorted(images, (image, image + 1)))


def pair_detections(first: Detections, second: Detections, iou_threshold: float = 0.5) -> np.ndarray:
    """Index pairs (P, 2) of boxes of one category in two sets, one to one, those of the highest IoU first.

    Pairs of equal IoU are formed in the order of the boxes.
    """
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold must lie in (0, 1], got {iou_threshold}")
    candidates = np.argwhere(first.category[:, None] == second.category)
    iou = box_iou(first.box[candidates[:, 0]], second.box[candidates[:, 1]], np.zeros(len(candidates), dtype=bool))
    pairs: list[tuple[int, int]] = []
    taken: tuple[set[int], set[int]] = set(), set()
    for k in np.argsort(-iou, kind="stable"):
        i, j = candidates[k].tolist()
        if iou[k] >= iou_threshold and i not in taken[0] and j not in taken[1]:
            pairs.append((i, j))
            taken[0].add(i)
            taken[1].add(j)
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def score_changes(baseline: Detections, student: Detections, pairs: np.ndarray) -> np.ndarray:
    """By how much the student's scores (N,) exceed those of their counterparts; NaN for those without one."""
    change = np.full(len(student), np.nan)
    change[pairs[:, 1]] = student.score[pairs[:, 1]] - baseline.score[pairs[:, 0]]
    return change


def compare_image(
    truth: Truth, baseline: Detections, student: Detections, score_threshold: float = 0.5, iou_threshold: float = 0.5
) -> Comparison:
    """Match all detections of one image, and keep those to be drawn.

    Those are the detections that reach `score_threshold`, and their counterparts whatever their score: a box whose
    score fell from 0.9 to 0.2 is what one wants to see.
    """
    pairs = pair_detections(baseline, student, iou_threshold)
    old, new = pairs.T
    old_shown, new_shown = baseline.score >= score_threshold, student.score >= score_threshold
    old_shown[old] = new_shown[new] = old_shown[old] | new_shown[new]
    change = score_changes(baseline, student, pairs)
    return Comparison(truth, baseline.take(old_shown), student.take(new_shown), change[new_shown])


def rank_images(comparisons: Mapping[int | str, Comparison]) -> list[int | str]:
    """Image ids, those whose scores changed most first; equal ones stay in their order."""
    return sorted(comparisons, key=lambda image_id: -abs(comparisons[image_id].largest_change))


def _font(size: int) -> ImageFont.FreeTypeFont:
    # the one that comes with matplotlib: older Pillows' own cannot be scaled
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)


def _hits(detections: Detections, truth: Truth, iou_threshold: float) -> np.ndarray:
    """Whether each detection overlaps an object of its category (N,)."""
    i, j = np.nonzero(detections.category[:, None] == truth.category)
    hit = np.zeros(len(detections), dtype=bool)
    hit[i[box_iou(detections.box[i], truth.box[j], truth.crowd[j]) >= iou_threshold]] = True
    return hit


def _panel(
    image: Image.Image,
    boxes: np.ndarray,
    labels: Sequence[str],
    colours: Sequence[str],
    side: int = PANEL,
    box_std: np.ndarray | None = None,
) -> Image.Image:
    """The image at `side` pixels with its boxes (N, 4), the first on top; thin `_limits` of `box_std` (N, 4) below."""
    scale = side / max(image.size)
    panel = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(panel)
    font = _font(13)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1) * scale
    for limit in () if box_std is None else _limits(corners, box_std * scale):
        for sides, colour in zip(limit.tolist(), colours, strict=True):
            draw.rectangle(sides, outline=colour, width=1)
    for (left, top, right, bottom), colour in reversed(list(zip(corners.tolist(), colours, strict=True))):
        draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=2)
    occupied: list[tuple[float, float, float, float]] = []
    for (left, top, _, _), label, colour in zip(corners.tolist(), labels, colours, strict=True):
        width, height = draw.textlength(label, font=font) + 6, 17
        left = min(max(0, left), max(0, panel.width - width))
        free = _free_place(top - height, left, width, height, panel.height, occupied)
        occupied.append((left, free, left + width, free + height))
        draw.rectangle(occupied[-1], fill=colour)
        draw.text((left + 3, free + 1), label, fill=PAPER, font=font)
    return panel


def _limits(corners: np.ndarray, box_std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The outer and the inner box, (N, 4) corners each, between which each side lies with a probability of LEVEL.

    Where the intervals of two sides overlap, the inner box ends in the middle of the box.
    """
    outwards = np.array([-1, -1, 1, 1]) * width(LEVEL) * box_std
    middle, inner = (corners[:, :2] + corners[:, 2:]) / 2, corners - outwards
    inner = np.concatenate((np.minimum(inner[:, :2], middle), np.maximum(inner[:, 2:], middle)), 1)
    return corners + outwards, inner


def _free_place(
    wanted: float, left: float, width: float, height: float, limit: int, occupied: Sequence[tuple[float, ...]]
) -> float:
    """The top of a label: where it is wanted, or below what lies there already unless that leaves the panel."""
    wanted = min(max(0.0, wanted), max(0.0, limit - height))
    top = wanted
    for x1, y1, x2, y2 in sorted(occupied, key=lambda box: box[1]):
        if x1 < left + width and left < x2 and y1 < top + height and top < y2:
            top = y2
    return top if top + height <= limit else wanted


def draw_strip(
    image: Image.Image,
    comparison: Comparison,
    category_names: Sequence[str],
    title: str = "",
    iou_threshold: float = 0.5,
) -> Image.Image:
    """Three panels: the objects (magenta), and what baseline and student find, each detection with its score.

    A detection is blue if it overlaps an object of its category, else orange. Behind the student's score stands by how
    much it differs from the baseline's. Thin lines are the outer and the inner box of its deviations, if it has any.
    """
    truth, baseline, student = comparison.truth, comparison.baseline, comparison.student
    labels = [
        category_names[category] + (" (crowd)" if crowd else "")
        for category, crowd in zip(truth.category, truth.crowd, strict=True)
    ]
    panels = {"ground truth": _panel(image, truth.box, labels, [TRUTH] * len(labels))}
    no_change = np.full(len(baseline), np.nan)
    for name, found, change in (("baseline", baseline, no_change), ("student", student, comparison.change)):
        highest_first = np.argsort(-found.score, kind="stable")
        found, change = found.take(highest_first), change[highest_first]
        labels = [
            f"{category_names[category]} {score:.2f}" + ("" if np.isnan(delta) else f" ({delta:+.2f})")
            for category, score, delta in zip(found.category, found.score, change, strict=True)
        ]
        colours = [HIT if hit else MISS for hit in _hits(found, truth, iou_threshold)]
        panels[name] = _panel(image, found.box, labels, colours, box_std=found.box_std)
    return _arrange(panels, title)


def draw_detections(image: Image.Image, detections: Detections, category_names: Sequence[str]) -> Image.Image:
    """The image, at most LARGEST_SIDE pixels wide and high, with its detections: blue if rather right, else orange.

    Thin lines are the outer and the inner box of their deviations, if they have any.
    """
    found = detections.take(np.argsort(-detections.score, kind="stable"))
    labels = [f"{category_names[k]} {score:.2f}" for k, score in zip(found.category, found.score, strict=True)]
    colours = [HIT if score >= 0.5 else MISS for score in found.score]
    return _panel(image, found.box, labels, colours, min(max(image.size), LARGEST_SIDE), found.box_std)


def _arrange(panels: Mapping[str, Image.Image], title: str) -> Image.Image:
    width, height = next(iter(panels.values())).size
    strip = Image.new("RGB", (len(panels) * (width + GAP) + GAP, 2 * LINE + height + 2 * GAP), PAPER)
    draw = ImageDraw.Draw(strip)
    draw.text((GAP, GAP), title, fill=INK, font=_font(14))
    for number, (name, panel) in enumerate(panels.items()):
        left = GAP + number * (width + GAP)
        draw.text((left, GAP + LINE), name, fill=INK, font=_font(14))
        strip.paste(panel, (left, GAP + 2 * LINE))
    return strip


def titled(image: Image.Image, title: str) -> Image.Image:
    """The image below a line of text."""
    sheet = Image.new("RGB", (image.width, image.height + 2 * LINE), PAPER)
    ImageDraw.Draw(sheet).text((GAP, GAP), title, fill=INK, font=_font(18))
    sheet.paste(image, (0, 2 * LINE))
    return sheet


def contact_sheet(strips: Sequence[Image.Image], columns: int = 2) -> Image.Image:
    """All strips on one page at half their size, row by row."""
    if not strips:
        raise ValueError("strips must hold at least one strip")
    halves = [strip.resize((strip.width // 2, strip.height // 2), Image.Resampling.LANCZOS) for strip in strips]
    columns = min(columns, len(halves))
    width, height = max(half.width for half in halves), max(half.height for half in halves)
    sheet = Image.new("RGB", (columns * width, -(-len(halves) // columns) * height), PAPER)
    for number, half in enumerate(halves):
        row, column = divmod(number, columns)
        sheet.paste(half, (column * width, row * height))
    return sheet


def _read_image(path: Path) -> Image.Image:
    with opened(path) as picture:
        return picture.convert("RGB")


def draw_changes(
    gt_file: Path,
    image_root: Path,
    baseline_file: Path,
    student_file: Path,
    output: Path,
    top: int = 20,
    score_threshold: float = 0.5,
    iou_threshold: float = 0.5,
    box_calibrator: ConformalBoxes | None = None,
) -> dict[Path, str]:
    """Compare all images of a data set and draw the first ones; returns their titles by the path of each picture.

    Args:
        gt_file: COCO instances.
        image_root: what its file names start from.
        baseline_file, student_file: COCO results.
        output: gets a picture for each, and index.png with all of them.
        top: how many images to draw.
        score_threshold, iou_threshold: see `compare_image`.
        box_calibrator: scales the deviations of the student's boxes.
    """
    ground_truth = read_ground_truth(gt_file)
    images = json.loads(gt_file.read_bytes())["images"]
    check_images(gt_file, images, image_root)
    file_names = {image["id"]: image["file_name"] for image in images}
    baseline, student = (read_detections(path, ground_truth) for path in (baseline_file, student_file))
    if box_calibrator is not None:
        student = scale_boxes(student, box_calibrator)
    output.mkdir(parents=True, exist_ok=True)

    comparisons = {
        image: compare_image(
            truth_of_image(ground_truth, image),
            detections_of_image(baseline, image),
            detections_of_image(student, image),
            score_threshold,
            iou_threshold,
        )
        for image in track(range(len(file_names)), "compare", "image")
    }
    strips, drawn = [], {}
    for rank, image in enumerate(track(rank_images(comparisons)[:top], "draw", "image"), start=1):
        comparison, image_id = comparisons[image], ground_truth.image_ids[image]
        title = f"{rank}. {file_names[image_id]} (image {image_id}): largest change {comparison.largest_change:+.2f}"
        picture = _read_image(image_root / file_names[image_id])
        strip = draw_strip(picture, comparison, ground_truth.category_names, title, iou_threshold)
        path = output / f"{rank:03d}_{Path(file_names[image_id]).stem}.png"
        write_png(path, strip)
        strips.append(strip)
        drawn[path] = title
    write_png(output / "index.png", contact_sheet(strips))
    return drawn
