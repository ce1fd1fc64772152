"""What decides the calibration metrics of detections; needs no torch."""

from dataclasses import dataclass
from typing import Literal, get_args

from ..checks import Edges, check_edges, check_positive_int

Protocol = Literal["coco", "fiveai"]
PROTOCOLS = get_args(Protocol)

IOU_THRESHOLD = 0.5  # from which on a detection is a true positive, in all that compares detectors


@dataclass(frozen=True)
class Settings:
    """All that decides what the calibration metrics mean.

    iou_thresholds: from which on a detection is a true positive, each in (0, 1).
    num_bins: K, of the score.
    edges: which edge belongs to a bin.
    score_threshold: detections whose scores before recalibration are below it do not count; the DDN paper's 0.05.
    protocol: "coco", or "fiveai" for laece and laace, and the matching at threshold 0, as in fiveai.
    federated: whether categories were looked for in some images alone, as in LVIS. None takes the annotations as they
        are; True or False refuses those that are otherwise.
    """

    iou_thresholds: tuple[float, ...] = (0.3, 0.5, 0.7)
    num_bins: int = 15
    edges: Edges = "right"
    score_threshold: float = 0.05
    protocol: Protocol = "coco"
    federated: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "iou_thresholds", tuple(float(t) for t in self.iou_thresholds))
        if not self.iou_thresholds:
            raise ValueError("iou_thresholds must hold at least one")
        for t in self.iou_thresholds:
            if not 0 < t < 1:
                raise ValueError(f"iou_thresholds must lie in (0, 1), got {t}")
        if len(set(self.iou_thresholds)) != len(self.iou_thresholds):
            raise ValueError(f"iou_thresholds must differ, got {self.iou_thresholds}")
        check_positive_int("num_bins", self.num_bins)
        check_edges(self.edges)
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {self.protocol!r}")
        if not 0 <= self.score_threshold <= 1:
            raise ValueError(f"score_threshold must lie in [0, 1], got {self.score_threshold}")

    @property
    def all_iou_thresholds(self) -> tuple[float, ...]:
        """S: 0 for any overlap, then those asked for."""
        return (0.0, *self.iou_thresholds)

    @property
    def compared_at(self) -> float:
        """The threshold of comparisons; the first one if that is not measured."""
        return IOU_THRESHOLD if IOU_THRESHOLD in self.iou_thresholds else self.iou_thresholds[0]
