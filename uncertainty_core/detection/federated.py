"""Federated annotations, as LVIS has them: in each image only some of the categories were looked for.

An image lists the categories that are certainly absent ("neg_category_ids") and those of which not every object is
annotated ("not_exhaustive_category_ids"). A detection of a category that is neither annotated nor certainly absent in
its image may be right or wrong, so that it does not take part. One that finds no box is ignored where the category is
not exhaustive. 300 detections of an image take part, over all categories, and APr, APc and APf are the means over the
rare, common and frequent categories.

Shapes: C categories, D detections.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .coco_format import Detections, GroundTruth

MAX_DETECTIONS = 300  # the best of each image
FREQUENCIES = ("r", "c", "f")


@dataclass(frozen=True, eq=False)
class FederatedLabels:
    """What is known of the categories without boxes, as numbers image · C + category, ascending.

    negative: pairs of an image and a category that is certainly absent.
    not_exhaustive: pairs of an image and a category with objects that are not annotated.
    frequency: "r", "c" or "f" of each category (C,), "" where none is given.
    """

    negative: np.ndarray
    not_exhaustive: np.ndarray
    frequency: list[str]

    def categories_of(self, frequency: str) -> np.ndarray:
        """Indices of the categories of that frequency."""
        return np.flatnonzero(np.array(self.frequency) == frequency)


def takes_part(ground_truth: "GroundTruth", detections: "Detections") -> np.ndarray:
    """Whether each detection is among the best of its image, and of a category that was looked for there (D,)."""
    best_first = np.lexsort((-detections.score_before, -detections.score, detections.image))
    rank = np.empty(len(detections), dtype=np.int64)
    image = detections.image[best_first]
    rank[best_first] = np.arange(len(detections)) - np.searchsorted(image, image, side="left")
    group = detections.group(ground_truth.num_categories)
    known = np.isin(group, ground_truth.group) | np.isin(group, ground_truth.federated.negative)
    return known & (rank < MAX_DETECTIONS)


def may_be_unlabelled(ground_truth: "GroundTruth", detections: "Detections") -> np.ndarray:
    """Whether what each detection shows may be an object that is not annotated (D,)."""
    return np.isin(detections.group(ground_truth.num_categories), ground_truth.federated.not_exhaustive)
