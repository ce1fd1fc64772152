"""Average precision and calibration on COCO-format data, as a Detectron2 evaluator.

Shapes: N detections of one image, D of all.
"""

import contextlib
import json
import logging
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_json
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import BoxMode
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from uncertainty_core.detection import (
    DetectionEvaluation,
    Detections,
    GroundTruth,
    Protocol,
    Settings,
    check_detections,
    check_federated,
    evaluate,
    match_images,
    merge,
    read_ground_truth,
    tables,
    write_report,
)
from uncertainty_core.io.files import write_text

TASKS = ("bbox", "calibration")
RESULTS = "coco_instances_results.json"  # Detectron2's own name for it


class _Prediction(NamedTuple):
    """Detections of one image: boxes (N, 4) left, top, width, height; contiguous classes and scores (N,).

    score_before: the scores before recalibration (N,).
    score_std, box_std: where the model gives them (N,), (N, 4).
    """

    image_id: Hashable
    box: np.ndarray
    category: np.ndarray
    score: np.ndarray
    score_before: np.ndarray
    score_std: np.ndarray | None
    box_std: np.ndarray | None


class COCOCalibrationEvaluator(DatasetEvaluator):
    """AP, AR and calibration of boxes: what `COCOEvaluator` gives for boxes, and whether the scores mean what they say.

    `evaluate()` gives a dict of two tasks of floats. "bbox": AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm,
    ARl, and AP-<category>; in percent. "calibration": each metric of `DetectionCalibration` at each IoU threshold, as
    in "ece@50" for 0.5, and laece0, laace0; plain values. All of it, also per category and with its settings, is in
    the attribute `evaluation` afterwards.

    Into `output_dir` go calibration.json, coco_instances_results.json, and for each IoU threshold the bins as JSON and
    the reliability diagram as PNG.

    Each process matches the images that it sees; the main process alone returns numbers.

    Args:
        dataset_name: a registered data set, whose "json_file" is read; one without is converted into `output_dir`.
        output_dir: where to write, if anywhere.
        iou_thresholds: from which on a detection is a true positive.
        num_bins: of the score.
        score_threshold: detections below it do not enter calibration; where instances have `score_before`, this counts.
        distributed: gather from all processes; False evaluates those images alone that this process saw.
        tasks: what to return; ("calibration",) beside a `COCOEvaluator`, which returns "bbox" itself.
        per_category: also return every metric of each category, as in "ece@50-person".
        protocol, federated: see `Settings`; by default LVIS is evaluated as LVIS, with APr, APc, APf and AR300 in the
            place of AR1, AR10 and AR100.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | Path | None = None,
        iou_thresholds: Sequence[float] = Settings.iou_thresholds,
        num_bins: int = Settings.num_bins,
        score_threshold: float = Settings.score_threshold,
        distributed: bool = True,
        tasks: Sequence[str] = TASKS,
        per_category: bool = False,
        protocol: Protocol = "coco",
        federated: bool | None = None,
    ) -> None:
        if not tasks or not set(tasks) <= set(TASKS):
            raise ValueError(f"tasks must be some of {', '.join(TASKS)}, got {tasks!r}")
        self._logger = logging.getLogger(__name__)
        self._settings = Settings(
            tuple(iou_thresholds), num_bins, score_threshold=score_threshold, protocol=protocol, federated=federated
        )
        self._output_dir = None if output_dir is None else Path(output_dir)
        self._distributed, self._tasks, self._per_category = distributed, tuple(tasks), per_category
        self._ground_truth = read_ground_truth(json_file(dataset_name, self._output_dir))
        check_federated(self._ground_truth, federated)
        self._image_index = {image_id: k for k, image_id in enumerate(self._ground_truth.image_ids)}
        self._category_index = _category_index(dataset_name, self._ground_truth)
        self.evaluation: DetectionEvaluation | None = None
        self.reset()

    def reset(self) -> None:
        """Forget all predictions."""
        self._predictions: list[_Prediction] = []

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Take the "instances" of a batch of a model's outputs, and the "image_id" of its inputs."""
        for image, output in zip(inputs, outputs, strict=True):
            if "instances" not in output:
                raise ValueError(f"the model's output has no 'instances', but {', '.join(output)}; test a detector")
            instances = output["instances"]
            box = BoxMode.convert(instances.pred_boxes.tensor, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
            before = instances.score_before if instances.has("score_before") else instances.scores
            std = (instances.get(name).double() if instances.has(name) else None for name in ("score_std", "box_std"))
            prediction = (box.double(), instances.pred_classes, instances.scores.double(), before.double(), *std)
            arrays = (None if tensor is None else tensor.cpu().numpy() for tensor in prediction)
            self._predictions.append(_Prediction(image["image_id"], *arrays))

    def evaluate(self) -> OrderedDict[str, dict[str, float]]:
        """All scores by task and name; empty in all processes but the main one."""
        image_ids = [prediction.image_id for prediction in self._predictions]
        part = image_ids, match_images(self._ground_truth, self._detections(), self._settings)
        parts = comm.gather(part) if self._distributed else [part]
        if not parts:  # not the main process
            return OrderedDict()
        self._check_images([image_id for image_ids, _ in parts for image_id in image_ids])
        matched = merge([matched for _, matched in parts])
        self.evaluation = evaluate(self._ground_truth, matched, self._settings)
        if self._output_dir is not None:
            write_report(self.evaluation, self._output_dir)
            self._write_results(matched.detections)
        self._logger.info("Evaluation of boxes:\n%s", tables(self.evaluation))
        return self._results(self.evaluation)

    def _detections(self) -> Detections:
        """The predictions of this process."""
        unknown = [p.image_id for p in self._predictions if p.image_id not in self._image_index]
        if unknown:
            raise ValueError(
                f"image {unknown[0]!r} is not in the ground truth; evaluate on the data set that the evaluator is for"
            )
        none = _Prediction(None, np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0), np.zeros(0), None, None)

        def column(name: str) -> np.ndarray | None:
            values = [getattr(prediction, name) for prediction in self._predictions or [none]]
            return None if values[0] is None else np.concatenate(values)

        category = column("category")
        image = np.array([self._image_index[p.image_id] for p in self._predictions], dtype=np.int64)
        if category.max(initial=-1) >= len(self._category_index):
            raise ValueError(
                f"a prediction is of class {category.max()}, but the data set has {len(self._category_index)} classes; "
                "set the model's NUM_CLASSES to that number"
            )
        return check_detections(
            image.repeat([len(p.score) for p in self._predictions]),
            self._category_index[category],
            *map(column, ("box", "score", "score_before", "score_std", "box_std")),
        )

    def _check_images(self, image_ids: list[Hashable]) -> None:
        if len(set(image_ids)) < len(image_ids):
            raise ValueError(
                "some images were predicted more than once; test with Detectron2's InferenceSampler, "
                "and reset the evaluator between runs"
            )
        missing = len(self._image_index) - len(image_ids)
        if missing:
            self._logger.warning("%d images of the data set were not predicted; their objects count as missed", missing)

    def _write_results(self, detections: Detections) -> None:
        """COCO's results format, which tools/evaluate_detections.py reads."""
        truth = self._ground_truth
        columns = {name: values.tolist() for name, values in vars(detections).items() if values is not None}
        results = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        results = [
            {"image_id": truth.image_ids[of["image"]], "category_id": truth.category_ids[of["category"]]}
            | {"bbox": of["box"], "score": of["score"]}
            | {name: of[name] for name in ("score_std", "box_std") if name in of}
            | ({} if of["score_before"] == of["score"] else {"score_before": of["score_before"]})
            for of in results
        ]
        text = json.dumps(results)
        write_text(self._output_dir / RESULTS, text)

    def _results(self, evaluation: DetectionEvaluation) -> OrderedDict[str, dict[str, float]]:
        names = self._ground_truth.category_names
        bbox = evaluation.precision | _by_category({"AP": evaluation.precision_per_category["AP"]}, names)
        calibration = evaluation.calibration_metrics
        if self._per_category:
            bbox |= _by_category(evaluation.precision_per_category, names)
            calibration |= _by_category(evaluation.calibration_per_category, names)
        by_task = {"bbox": bbox, "calibration": calibration}
        return OrderedDict((task, by_task[task]) for task in self._tasks)


def _by_category(values: dict[str, list[float]], names: list[str]) -> dict[str, float]:
    """Detectron2 does not print names with a hyphen in its summaries."""
    return {f"{metric}-{name}": value for metric, of in values.items() for name, value in zip(names, of, strict=True)}


def json_file(dataset_name: str, output_dir: Path | None = None) -> str:
    """Path of the COCO ground truth of a registered data set, which is made if there is none."""
    metadata = MetadataCatalog.get(dataset_name)
    if hasattr(metadata, "json_file"):
        if not PathManager.exists(metadata.json_file):
            with contextlib.suppress(OSError):  # the reader says more clearly what is missing
                DatasetCatalog.get(dataset_name)  # the drawn scenes are made when they are first loaded
        return PathManager.get_local_path(metadata.json_file)
    if output_dir is None:
        raise ValueError(f"data set {dataset_name!r} has no COCO json file; give an output_dir, where one can be made")
    path = output_dir / f"{dataset_name}_coco_format.json"
    convert_to_coco_json(dataset_name, str(path), allow_cached=False)
    return str(path)


def _category_index(dataset_name: str, ground_truth: GroundTruth) -> np.ndarray:
    """Index into the categories of the ground truth of each of the model's classes."""
    to_contiguous = MetadataCatalog.get(dataset_name).get("thing_dataset_id_to_contiguous_id")
    if to_contiguous is None:
        return np.arange(ground_truth.num_categories)
    position = {category_id: k for k, category_id in enumerate(ground_truth.category_ids)}
    unknown = to_contiguous.keys() - position.keys()
    if unknown:
        raise ValueError(
            f"category {min(unknown)} of data set {dataset_name!r} is not in its COCO json file; register it again"
        )
    by_class = sorted(to_contiguous, key=to_contiguous.get)
    return np.array([position[category_id] for category_id in by_class], dtype=np.int64)
