"""COCO ground truth and COCO results: read, checked, and laid out as flat arrays.

Shapes: I images, C categories, G ground-truth boxes, D detections. A box is (left, top, width, height) in pixels.

Images and categories are numbered by their sorted ids, so ids may have gaps. Both structures are sorted by image, then
category; within these, ground truth keeps the order of the file and detections come with the highest score first.
"""

import warnings
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ..errors import UserError
from ..io.strict_json import read_json
from .federated import FREQUENCIES, FederatedLabels

TOLERANCE = 1  # pixels by which a box may leave its image, of rounding
_FEW = 10  # boxes, of which all may be odd by chance
_LARGEST = 1e9  # pixels; areas and sums of such boxes are computed without overflow


class CocoFormatError(UserError):
    """Not what the COCO format asks for; the message names the place and what to do."""


class DataWarning(UserWarning):
    """Files that are of the right form, and likely not what was meant; the message counts what is odd."""


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Images, categories and annotated boxes.

    image_ids, category_ids: as in the file, sorted (I,), (C,); category_names: (C,).
    image_size: width and height of each image (I, 2).
    image, category: indices (G,) into the ids; box (G, 4), area (G,), float64; crowd (G,), bool.
    federated: where not every category was looked for in every image, what is known beside the boxes.
    """

    image_ids: list[Hashable]
    category_ids: list[Hashable]
    category_names: list[str]
    image_size: np.ndarray
    image: np.ndarray
    category: np.ndarray
    box: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    federated: FederatedLabels | None = None

    @property
    def num_categories(self) -> int:
        """C."""
        return len(self.category_ids)

    @property
    def group(self) -> np.ndarray:
        """Number (G,) of the (image, category) pair of each box, ascending."""
        return self.image * self.num_categories + self.category


@dataclass(frozen=True, eq=False)
class Detections:
    """Scored boxes: image and category indices (D,), box (D, 4) and score (D,), float64.

    score_before: the scores (D,) before they were recalibrated, which decide what counts; by default the scores.
    score_std: standard deviations of the scores (D,), if they are known.
    box_std: of left, top, right and bottom in pixels (D, 4), if they are known.
    """

    image: np.ndarray
    category: np.ndarray
    box: np.ndarray
    score: np.ndarray
    score_before: np.ndarray | None = None
    score_std: np.ndarray | None = None
    box_std: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.score_before is None:
            object.__setattr__(self, "score_before", self.score)

    def __len__(self) -> int:
        return len(self.score)

    def group(self, num_categories: int) -> np.ndarray:
        """Number (D,) of the (image, category) pair of each, as `GroundTruth.group`."""
        return self.image * num_categories + self.category

    def take(self, index: np.ndarray) -> "Detections":
        """Those at `index`, in its order."""
        return Detections(*(None if values is None else values[index] for values in vars(self).values()))


def joined(parts: Sequence[Detections]) -> Detections:
    """All of `parts`, one after the other. A deviation is known if all parts that are not empty know it."""
    filled = [part for part in parts if len(part)] or parts[:1]
    columns = zip(*(vars(part).values() for part in filled), strict=True)
    return Detections(*(None if any(v is None for v in column) else np.concatenate(column) for column in columns))


def read_ground_truth(source: dict[str, Any] | str | Path) -> GroundTruth:
    """Check the COCO ground truth in a file, or already read from one."""
    content, name = _load(source, "ground truth")
    if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= content.keys():
        raise CocoFormatError(
            f"{name} must hold an object with 'images', 'annotations' and 'categories'; "
            "is it a results file, or a test set without annotations?"
        )
    images, categories, annotations = (
        _Entries(content[key], f"{name}: {key}") for key in ("images", "categories", "annotations")
    )
    for entries in (images, categories, annotations):
        entries.unique("id")
    if not categories.entries:
        raise CocoFormatError(f"{name} has no categories; list those that the annotations refer to")
    image_ids, category_ids = images.sorted_ids(), categories.sorted_ids()
    image = annotations.lookup("image_id", image_ids, "image", "remove the annotation or add the image")
    category = annotations.lookup("category_id", category_ids, "category", "remove the annotation or add the category")
    box = annotations.boxes()
    area = annotations.numbers("area", default=lambda entry: entry["bbox"][2] * entry["bbox"][3])
    annotations.refuse_where(area < 0, lambda k: f"has 'area' {area[k]}", "it must not be negative")
    crowd = annotations.numbers("iscrowd", default=lambda entry: 0)
    annotations.refuse_where((crowd != 0) & (crowd != 1), lambda k: f"has 'iscrowd' {crowd[k]:g}", "it must be 0 or 1")

    size = np.stack((images.numbers("width"), images.numbers("height")), 1)
    images.refuse_where(
        ((size <= 0) | (size > _LARGEST)).any(1), "has no extent", "give its width and height in pixels"
    )
    in_order = np.lexsort((category, image))
    position = {image_id: k for k, image_id in enumerate(images.column("id"))}
    image_size = size[[position[image_id] for image_id in image_ids]].reshape(-1, 2)
    annotations.check_places(box, image_size[image])
    return GroundTruth(
        image_ids=image_ids,
        category_ids=category_ids,
        category_names=_names(categories, category_ids),
        image_size=image_size,
        image=image[in_order],
        category=category[in_order],
        box=box[in_order],
        area=area[in_order],
        crowd=crowd[in_order] != 0,
        federated=_read_federated(images, categories, image_ids, category_ids),
    )


def _names(categories: "_Entries", category_ids: list[Hashable]) -> list[str]:
    """Of each category (C,), no two alike: tables and records of classes go by them."""
    for k, name in enumerate(categories.column("name")):
        if not isinstance(name, str | int) or isinstance(name, bool):
            categories.refuse(k, f"has 'name' {name!r}", "it must be a string")
    names = {category_id: str(name) for category_id, name in zip(*map(categories.column, ("id", "name")), strict=True)}
    count = Counter(names.values())
    return [names[i] if count[names[i]] == 1 else f"{names[i]} ({i})" for i in category_ids]


def _read_federated(
    images: "_Entries", categories: "_Entries", image_ids: list[Hashable], category_ids: list[Hashable]
) -> FederatedLabels | None:
    """None where no image lists a category."""
    image = images.lookup("id", image_ids, "image", "")
    negative, not_exhaustive = (
        np.unique(images.references(key, category_ids, image))
        for key in ("neg_category_ids", "not_exhaustive_category_ids")
    )
    if not len(negative) and not len(not_exhaustive):
        return None
    frequency = dict(zip(categories.column("id"), categories.column("frequency", lambda _: ""), strict=True))
    for k, value in enumerate(frequency.values()):
        if value not in ("", *FREQUENCIES):
            categories.refuse(k, f"has 'frequency' {value!r}", f"it must be one of {', '.join(FREQUENCIES)}")
    return FederatedLabels(negative, not_exhaustive, [frequency[category_id] for category_id in category_ids])


def check_federated(ground_truth: GroundTruth, expected: bool | None) -> None:
    """Raise CocoFormatError where the annotations are federated against what is `expected`, or are not."""
    if expected is False and ground_truth.federated is not None:
        raise CocoFormatError(
            "the annotations are federated, since images list neg_category_ids or not_exhaustive_category_ids, and a "
            "find without a box need not be wrong; leave federated out, and they are evaluated as LVIS is"
        )
    if expected and ground_truth.federated is None:
        raise CocoFormatError(
            "the annotations are not federated, since no image lists neg_category_ids or not_exhaustive_category_ids; "
            "leave federated out, and they are evaluated as COCO is"
        )


def read_detections(source: Sequence[dict[str, Any]] | str | Path, ground_truth: GroundTruth) -> Detections:
    """Check COCO results, in a file or already read from one, against the ground truth they are for.

    A result may hold "score_before", its score before recalibration; all of them may hold "score_std" and "box_std",
    see `Detections`. Those of images that the ground truth lacks are left out with a warning.
    """
    entries = _results(source).of_images(ground_truth.image_ids)
    detections = check_detections(
        entries.lookup("image_id", ground_truth.image_ids, "image", ""),
        entries.lookup(
            "category_id",
            ground_truth.category_ids,
            "category",
            "map the detector's class numbers back to the category ids of the ground truth",
        ),
        entries.boxes(),
        entries.numbers("score"),
        entries.scores_before(),
        entries.deviations("score_std"),
        entries.deviations("box_std", (4,)),
        entries,
    )
    entries.check_places(detections.box, ground_truth.image_size[detections.image])
    return detections


def of_images(ground_truth: GroundTruth, detections: Detections, chosen: np.ndarray) -> tuple[GroundTruth, Detections]:
    """The part of both that is of the `chosen` images (I,), bool."""
    number = np.cumsum(chosen) - 1
    truth, found = chosen[ground_truth.image], chosen[detections.image]
    federated = ground_truth.federated
    if federated is not None:
        classes = ground_truth.num_categories
        pairs = (federated.negative, federated.not_exhaustive)
        kept = (numbers[chosen[numbers // classes]] for numbers in pairs)
        federated = FederatedLabels(*(number[k // classes] * classes + k % classes for k in kept), federated.frequency)
    part = replace(
        ground_truth,
        image_ids=[image_id for image_id, is_chosen in zip(ground_truth.image_ids, chosen, strict=True) if is_chosen],
        image_size=ground_truth.image_size[chosen],
        image=number[ground_truth.image[truth]],
        federated=federated,
        **{name: getattr(ground_truth, name)[truth] for name in ("category", "box", "area", "crowd")},
    )
    found = detections.take(np.flatnonzero(found))
    return part, replace(found, image=number[found.image])


def read_scores(source: Sequence[dict[str, Any]] | str | Path) -> tuple[Sequence[dict[str, Any]], np.ndarray]:
    """COCO results as they are, and the score (D,) of each; only these are checked."""
    entries = _results(source)
    score = entries.numbers("score")
    entries.refuse_scores(score)
    return entries.entries, score


def check_detections(
    image: np.ndarray,
    category: np.ndarray,
    box: np.ndarray,
    score: np.ndarray,
    score_before: np.ndarray | None = None,
    score_std: np.ndarray | None = None,
    box_std: np.ndarray | None = None,
    entries: "_Entries | None" = None,
) -> Detections:
    """Detections from indices (D,), (D,), boxes (D, 4) and scores (D,) in any order.

    Args:
        image, category, box, score, score_std, box_std: see `Detections`.
        score_before: where the scores were recalibrated; of equal scores the one that was higher before comes first.
        entries: name them in errors.
    """
    entries = entries or _Entries([], "detections")
    entries.refuse_boxes(box)
    entries.refuse_scores(score)
    if score_before is None:
        score_before = score
    entries.refuse_scores(score_before, "score_before")
    in_order = np.lexsort((-score_before, -score, category, image))
    columns = (box, score, score_before, score_std, box_std)
    numbers = (None if values is None else values.astype(np.float64) for values in columns)
    return Detections(image, category, *numbers).take(in_order)


def _load(source: Any, what: str) -> tuple[Any, str]:
    """Content, and a name for it."""
    if not isinstance(source, str | Path):
        return source, what
    try:
        return read_json(Path(source).read_bytes()), str(source)
    except OSError as error:
        raise CocoFormatError(f"{source} cannot be read ({error.strerror}); give the path of a JSON file") from None
    except ValueError as error:  # malformed JSON, or not even text
        raise CocoFormatError(f"{source} is not valid JSON ({error}); write it again, it may be cut short") from None


def _results(source: Sequence[dict[str, Any]] | str | Path) -> "_Entries":
    content, name = _load(source, "detections")
    if not isinstance(content, list):
        raise CocoFormatError(f"{name} must hold a list of detections; are ground truth and detections swapped?")
    return _Entries(content, f"{name}: detections")


class _Entries:
    """The dicts of one list of a COCO file, asked for column by column; the first bad one is named."""

    def __init__(self, entries: Any, name: str) -> None:
        if not isinstance(entries, list):
            raise CocoFormatError(f"{name} must be a list, got {type(entries).__name__}; see the COCO data format")
        self.entries, self.name = entries, name

    def refuse(self, k: int, what: str, remedy: str) -> NoReturn:
        raise CocoFormatError(f"{self.name}[{k}] {what}; {remedy}")

    def refuse_where(self, bad: np.ndarray, what: Any, remedy: str) -> None:
        if bad.any():
            k = int(bad.argmax())
            self.refuse(k, what(k) if callable(what) else what, remedy)

    def column(self, key: str, default: Any = None) -> list[Any]:
        """The values of `key`; where there is none, `default(entry)`."""
        try:
            return [entry[key] for entry in self.entries]
        except (KeyError, TypeError, IndexError):
            return [self._value(k, key, default) for k in range(len(self.entries))]

    def _value(self, k: int, key: str, default: Any) -> Any:
        entry = self.entries[k]
        if not isinstance(entry, dict):
            self.refuse(k, f"is {entry!r}", "it must be an object")
        if key not in entry and default is None:
            self.refuse(k, f"has no {key!r}", "the COCO format asks for it")
        return entry[key] if key in entry else default(entry)

    def references(self, key: str, ids: list[Hashable], owner: np.ndarray) -> np.ndarray:
        """The numbers owner · len(ids) + position in `ids` of all that the lists of `key` name, none where none is.

        Args:
            key: of the lists.
            ids: what they may name.
            owner: number of each entry (n,).
        """
        index = {value: k for k, value in enumerate(ids)}
        numbers = []
        for k, named in enumerate(self.column(key, lambda _: [])):
            try:
                if not isinstance(named, list) or bool in set(map(type, named)):
                    raise TypeError
                numbers += [owner[k] * len(ids) + index[value] for value in named]
            except (KeyError, TypeError):
                self.refuse(k, f"has {key!r} {named!r}", "it must be a list of ids of categories")
        return np.array(numbers, dtype=np.int64)

    def numbers(self, key: str, shape: tuple[int, ...] = (), default: Any = None) -> np.ndarray:
        """The finite values of `key`, float64 (n, *shape)."""
        values = self.column(key, default)
        if not values:
            return np.zeros((0, *shape))
        array = _as_numbers(values, shape)
        if array is None:
            k = next(k for k, value in enumerate(values) if _as_numbers([value], shape) is None)
            expected = f"{shape[0]} numbers" if shape else "a number"
            self.refuse(k, f"has {key!r} {values[k]!r}", f"it must be {expected}")
        bad = ~np.isfinite(array).reshape(len(array), -1).all(1)
        self.refuse_where(bad, lambda k: f"has {key!r} {values[k]}", "it must be finite; find out what made it diverge")
        return array

    def boxes(self) -> np.ndarray:
        """Boxes (n, 4), none of negative size."""
        boxes = self.numbers("bbox", (4,))
        self.refuse_boxes(boxes)
        return boxes

    def refuse_boxes(self, boxes: np.ndarray) -> None:
        self.refuse_where(
            ~((np.abs(boxes) <= _LARGEST).all(1) & (boxes[:, 2:] >= 0).all(1)),
            lambda k: f"has the box {boxes[k].tolist()}",
            "a box must be finite [left, top, width, height] in pixels with no negative size, not corners",
        )

    def check_places(self, boxes: np.ndarray, sizes: np.ndarray) -> None:
        """Warn of `boxes` (n, 4) that leave their images of `sizes` (n, 2); refuse them where none can be right."""
        near, far = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
        beyond = ((near < -TOLERANCE) | (far > sizes + TOLERANCE)).any(1)
        if not beyond.any():
            return
        outside = ((near >= sizes) | (far <= 0)).any(1)
        as_corners = ((boxes[:, 2:] >= near) & (boxes[:, 2:] <= sizes + TOLERANCE)).all(1)
        found = f"{int(beyond.sum()):,} of {len(boxes):,} boxes leave their images"
        if len(boxes) >= _FEW and as_corners.all():
            raise CocoFormatError(
                f"{self.name}: {found}, and none does if they are corners; write them as [left, top, width, height]"
            )
        if len(boxes) >= _FEW and outside.all():
            raise CocoFormatError(
                f"{self.name}: all {len(boxes):,} boxes lie outside their images; write them in pixels of these images"
            )
        corners = "write corners as [left, top, width, height], and " if as_corners.mean() > 0.5 else ""
        _warn(f"{self.name}: {found}; {corners}scale boxes to the images of the ground truth if these were resized")

    def of_images(self, image_ids: list[Hashable]) -> "_Entries":
        """Those of the images `image_ids`, with a warning of how many others there are; refused if all are."""
        known = set(image_ids)
        values = self.column("image_id")
        for k, value in enumerate(values):
            if not isinstance(value, int | str) or isinstance(value, bool):
                self.refuse(k, f"has 'image_id' {value!r}", "it must be an integer or a string")
        left = [entry for entry, value in zip(self.entries, values, strict=True) if value in known]
        others = len(values) - len(left)
        if not others:
            return self
        missing = next(value for value in values if value not in known)
        found = (
            f"{self.name}: {others:,} of {len(values):,} are of images that the ground truth lacks, such as {missing!r}"
        )
        if not left:
            raise CocoFormatError(f"{found}; evaluate against the ground truth the detections are for")
        _warn(f"{found}; they are left out, but check that both files are of one split")
        return _Entries(left, self.name)

    def scores_before(self) -> np.ndarray | None:
        """The scores (n,) before recalibration; None if no entry has one."""
        if not any("score_before" in entry for entry in self.entries):
            return None
        return self.numbers("score_before", default=lambda entry: entry["score"])

    def deviations(self, key: str, shape: tuple[int, ...] = ()) -> np.ndarray | None:
        """Standard deviations (n, *shape) that every entry has; None if no entry has one."""
        if not any(key in entry for entry in self.entries):
            return None
        values = self.numbers(key, shape)
        negative = (values < 0).reshape(len(values), -1).any(1)
        self.refuse_where(negative, f"has a negative {key!r}", "it must be a standard deviation")
        return values

    def refuse_scores(self, scores: np.ndarray, name: str = "score") -> None:
        self.refuse_where(
            ~((scores >= 0) & (scores <= 1)),
            lambda k: f"has the {name} {scores[k]}",
            "scores must be probabilities in [0, 1]; apply softmax or sigmoid to logits",
        )

    def unique(self, key: str) -> None:
        seen = set()
        for k, value in enumerate(self.column(key)):
            if not isinstance(value, int | str) or isinstance(value, bool):
                self.refuse(k, f"has {key!r} {value!r}", "it must be an integer or a string")
            if value in seen:
                self.refuse(k, f"has {key!r} {value!r}, as one before it has", "number them anew")
            seen.add(value)

    def sorted_ids(self) -> list[Hashable]:
        try:
            return sorted(self.column("id"))
        except TypeError:
            raise CocoFormatError(f"{self.name} have both numbers and strings as 'id'; use one of them") from None

    def lookup(self, key: str, ids: list[Hashable], what: str, remedy: str) -> np.ndarray:
        """The position (n,) in `ids` of each value of `key`."""
        index = {value: k for k, value in enumerate(ids)}
        values = self.column(key)
        try:
            if bool in set(map(type, values)):  # which equal 0 and 1
                raise TypeError
            return np.array([index[value] for value in values], dtype=np.int64)
        except (KeyError, TypeError):  # unknown, or a list
            k = next(
                k
                for k, value in enumerate(values)
                if not isinstance(value, Hashable) or isinstance(value, bool) or value not in index
            )
            self.refuse(k, f"has {key!r} {values[k]!r}, which is no {what} of the ground truth", remedy)


def _as_numbers(values: list[Any], shape: tuple[int, ...]) -> np.ndarray | None:
    """float64 (n, *shape) of numbers or nested lists of them, None of anything else."""
    try:
        array = np.array(values)
    except ValueError:  # lists of several lengths
        return None
    if array.dtype.kind not in "iuf" or array.shape[1:] != shape:
        return None
    if bool in set(map(type, chain.from_iterable(values) if shape else values)):  # among numbers it would be one
        return None
    return array.astype(np.float64)


def _warn(sentence: str) -> None:
    warnings.warn(sentence, DataWarning, stacklevel=4)
