"""COCOCalibrationEvaluator in the real Detectron2: its own evaluator's numbers, its loops, its processes."""

import json
import logging
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import COCOEvaluator, DatasetEvaluators, print_csv_format, verify_results
from detectron2.structures import Boxes, BoxMode, Instances

from ddn_detectron2.evaluation.calibration_evaluator import COCOCalibrationEvaluator
from ddn_detectron2.modeling.roi_heads import calibrated
from uncertainty_core.detection import (
    CocoFormatError,
    Settings,
    evaluate,
    match_images,
    read_detections,
    read_ground_truth,
)
from uncertainty_core.recalibration import Temperature

CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}, {"id": 90, "name": "zebra"}]
SIZE = (120, 160)  # height, width


def scenes(num_images=6, seed=0):
    """COCO ground truth of random boxes, a tenth of them crowds; one image is empty."""
    generator = np.random.default_rng(seed)
    images = [
        {"id": 10 * k + 3, "height": SIZE[0], "width": SIZE[1], "file_name": f"{k}.png"} for k in range(num_images)
    ]
    annotations = []
    for image in images[1:]:
        for _ in range(6):
            box = [*generator.uniform(0, 60, 2).tolist(), *generator.uniform(15, 60, 2).tolist()]
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image["id"],
                "category_id": int(generator.choice([7, 3, 90], p=[0.5, 0.4, 0.1])),
                "bbox": [round(value, 1) for value in box],
                "area": round(box[2] * box[3] * 0.8, 1),
                "iscrowd": int(generator.random() < 0.1),
            }
            annotations.append(annotation)
    return {"images": images, "categories": CATEGORIES, "annotations": annotations}


def predictions(truth, classes=(3, 7, 90), seed=0):
    """A model's inputs and outputs, one image a batch: shifted true boxes, and false ones. `classes` are their ids."""
    generator = np.random.default_rng(seed)
    batches = []
    for image in truth["images"]:
        own = [annotation for annotation in truth["annotations"] if annotation["image_id"] == image["id"]]
        boxes = torch.tensor([a["bbox"] for a in own] + [[5.0, 5, 20, 20]] * 3)
        boxes[:, 2:] += boxes[:, :2]
        instances = Instances(SIZE)
        instances.pred_boxes = Boxes(boxes + torch.from_numpy(generator.normal(0, 3, boxes.shape)).float())
        instances.pred_boxes.clip(SIZE)
        instances.pred_classes = torch.tensor([classes.index(a["category_id"]) for a in own] + [0, 1, 1])
        instances.scores = torch.from_numpy(generator.random(len(boxes))).float()
        batches.append(([{"image_id": image["id"]}], [{"instances": instances}]))
    return batches


def feed(evaluator, batches):
    evaluator.reset()
    for batch in batches:
        evaluator.process(*batch)
    return evaluator.evaluate()


@pytest.fixture
def truth():
    return scenes()


@pytest.fixture
def dataset(tmp_path, truth):
    """Name of a registered data set."""
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(truth))
    name = f"scenes_of_{tmp_path.name}"
    register_coco_instances(name, {}, str(path), str(tmp_path))
    DatasetCatalog.get(name)  # fills in the categories, as building a loader does
    yield name
    forget(name)


def forget(name):
    DatasetCatalog.remove(name)
    MetadataCatalog.pop(name)


@pytest.fixture(autouse=True)
def no_handlers():
    """Detectron2's loggers as pytest wants them."""
    logging.getLogger("detectron2").propagate = True


def same(results, others):
    """Whether nested dicts of floats are equal to the last bit."""
    return results.keys() == others.keys() and all(
        results[task].keys() == others[task].keys()
        and np.array_equal(list(results[task].values()), list(others[task].values()), equal_nan=True)
        for task in results
    )


def test_precision_is_that_of_coco_evaluator(dataset, truth, tmp_path):
    batches = predictions(truth)
    theirs = feed(COCOEvaluator(dataset, ("bbox",), False, str(tmp_path / "theirs"), use_fast_impl=False), batches)
    ours = feed(COCOCalibrationEvaluator(dataset), batches)
    assert list(ours) == ["bbox", "calibration"]
    for name, value in theirs["bbox"].items():
        assert ours["bbox"][name] == pytest.approx(value, abs=1e-9, nan_ok=True), name
    assert 5 < ours["bbox"]["AP50"] < 100


def test_results_file_gives_the_same_numbers(dataset, truth, tmp_path):
    evaluator = COCOCalibrationEvaluator(dataset, tmp_path / "out", per_category=True)
    results = feed(evaluator, predictions(truth))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "calibration.json",
        "coco_instances_results.json",
        *(f"reliability_iou{t}.{kind}" for t in (30, 50, 70) for kind in ("json", "png")),
    }
    ground_truth = read_ground_truth(truth)
    found = read_detections(tmp_path / "out" / "coco_instances_results.json", ground_truth)
    again = evaluate(ground_truth, match_images(ground_truth, found, Settings()), Settings())
    for task, expected in {"bbox": again.precision, "calibration": again.calibration_metrics}.items():
        assert {name: results[task][name] for name in expected} == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    # per category beside them, under names that Detectron2 does not print in its summary
    assert results["calibration"]["ece@50-dog"] == again.calibration_per_category["ece@50"][0]
    assert results["bbox"]["AR100-cat"] == again.precision_per_category["AR100"][1]


def test_composes_and_is_printed_and_verified(dataset, truth, tmp_path, caplog):
    coco = COCOEvaluator(dataset, ("bbox",), False, str(tmp_path), use_fast_impl=False)
    both = DatasetEvaluators([coco, COCOCalibrationEvaluator(dataset, tasks=("calibration",))])
    results = feed(both, predictions(truth))
    assert list(results) == ["bbox", "calibration"]
    with caplog.at_level(logging.INFO, "detectron2.evaluation.testing"):
        print_csv_format(results)
    assert "copypaste: ece@30,msce@30," in caplog.text
    cfg = get_cfg()
    cfg.TEST.EXPECTED_RESULTS = [["calibration", "msce@50", results["calibration"]["msce@50"], 1e-6]]
    assert verify_results(cfg, results)
    cfg.TEST.EXPECTED_RESULTS = [["calibration", "msce@50", results["calibration"]["msce@50"] + 1, 1e-6]]
    with pytest.raises(SystemExit):
        verify_results(cfg, results)


def test_order_of_images_does_not_matter_and_reset_forgets(dataset, truth):
    evaluator = COCOCalibrationEvaluator(dataset)
    batches = predictions(truth)
    assert same(feed(evaluator, batches), feed(evaluator, batches[::-1]))


def test_settings_reach_the_metrics(dataset, truth):
    evaluator = COCOCalibrationEvaluator(dataset, iou_thresholds=[0.25], num_bins=3, score_threshold=0.5)
    results = feed(evaluator, predictions(truth))
    assert "ece@25" in results["calibration"] and "ece@50" not in results["calibration"]
    (at,) = evaluator.evaluation.calibration
    assert len(at.result.bins.count) == 3 and at.result.bins.count[0] == 0


def test_federated_annotations_are_evaluated_as_lvis(dataset, truth, tmp_path):
    for image in truth["images"]:
        image |= {"neg_category_ids": [3], "not_exhaustive_category_ids": [7]}
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    evaluator = COCOCalibrationEvaluator(dataset, tmp_path / "out", per_category=True)
    results = feed(evaluator, predictions(truth))
    expected = read_detections(tmp_path / "out" / "coco_instances_results.json", read_ground_truth(truth))
    again = evaluate(read_ground_truth(truth), match_images(read_ground_truth(truth), expected, Settings()), Settings())
    assert {name: results["bbox"][name] for name in again.precision} == pytest.approx(again.precision, nan_ok=True)
    assert "AR300" in again.precision and "AR300-cat" in results["bbox"]
    with pytest.raises(CocoFormatError, match="the annotations are federated"):
        COCOCalibrationEvaluator(dataset, federated=False)


@pytest.mark.parametrize("temperature", [0.3, 3.0])
def test_detections_count_by_their_scores_before_calibration(dataset, truth, temperature, tmp_path):
    plain, scaled = (COCOCalibrationEvaluator(dataset, tmp_path / name, score_threshold=0.3) for name in ("a", "b"))
    before = feed(plain, predictions(truth))
    batches = predictions(truth)
    for _, (output,) in batches:
        calibrated(output["instances"], Temperature(temperature))
    after = feed(scaled, batches)
    assert after["bbox"] == pytest.approx(before["bbox"], nan_ok=True)
    for ours, theirs in zip(scaled.evaluation.calibration, plain.evaluation.calibration, strict=True):
        assert ours.result.num_samples == theirs.result.num_samples > 20
        assert ours.metrics["lrp"] == theirs.metrics["lrp"] and ours.metrics["brier"] != theirs.metrics["brier"]
    # the files say the same
    ground_truth = read_ground_truth(truth)
    found = read_detections(tmp_path / "b" / "coco_instances_results.json", ground_truth)
    settings = Settings(score_threshold=0.3)
    again = evaluate(ground_truth, match_images(ground_truth, found, settings), settings)
    assert again.calibration_metrics == pytest.approx(scaled.evaluation.calibration_metrics, rel=0, abs=0)
    assert "score_before" not in (tmp_path / "a" / "coco_instances_results.json").read_text()


@pytest.mark.filterwarnings("ignore:.* is NaN")
def test_no_detections_and_images_left_out(dataset, truth, tmp_path, caplog):
    empty = Instances(SIZE)
    empty.pred_boxes, empty.scores = Boxes(torch.zeros(0, 4)), torch.zeros(0)
    empty.pred_classes = torch.zeros(0, dtype=torch.int64)
    evaluator = COCOCalibrationEvaluator(dataset)
    batches = [([{"image_id": image["id"]}], [{"instances": empty}]) for image in truth["images"]]
    for part in (batches, batches[:2], []):
        results = feed(evaluator, part)
        assert results["bbox"]["AP"] == results["bbox"]["AR100"] == 0
        assert np.isnan(results["calibration"]["ece@50"]) and results["calibration"]["lrp@50"] == 1
    assert "6 images of the data set were not predicted" in caplog.text
    feed(COCOCalibrationEvaluator(dataset, tmp_path / "out", iou_thresholds=(0.5,)), [])
    assert json.loads((tmp_path / "out" / "coco_instances_results.json").read_text()) == []


def test_other_data_sets_are_converted(truth, tmp_path):
    """In Detectron2's own format, with classes numbered 0, 1, 2."""
    name = f"own_format_of_{tmp_path.name}"
    ids = sorted(category["id"] for category in CATEGORIES)

    def records():
        return [
            {
                **{key: image[key] for key in ("height", "width", "file_name")},
                "image_id": image["id"],
                "annotations": [
                    {
                        "bbox": a["bbox"],
                        "bbox_mode": BoxMode.XYWH_ABS,
                        "category_id": ids.index(a["category_id"]),
                        "iscrowd": a["iscrowd"],
                    }
                    for a in truth["annotations"]
                    if a["image_id"] == image["id"]
                ],
            }
            for image in truth["images"]
        ]

    DatasetCatalog.register(name, records)
    MetadataCatalog.get(name).thing_classes = ["dog", "cat", "zebra"]
    try:
        with pytest.raises(ValueError, match="has no COCO json file; give an output_dir"):
            COCOCalibrationEvaluator(name)
        results = feed(COCOCalibrationEvaluator(name, tmp_path / "out"), predictions(truth))
    finally:
        forget(name)
    # the areas are those of the boxes now; otherwise all is as with the COCO file
    for annotation in truth["annotations"]:
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    register_coco_instances(name, {}, str(tmp_path / "areas.json"), str(tmp_path))
    (tmp_path / "areas.json").write_text(json.dumps(truth))
    try:
        DatasetCatalog.get(name)
        assert same(results, feed(COCOCalibrationEvaluator(name), predictions(truth)))
    finally:
        forget(name)


def test_bad_input_is_named(dataset, truth, tmp_path):
    evaluator = COCOCalibrationEvaluator(dataset)
    inputs, outputs = predictions(truth)[1]
    with pytest.raises(ValueError, match="tasks must be some of bbox, calibration"):
        COCOCalibrationEvaluator(dataset, tasks=("segm",))
    with pytest.raises(ValueError, match="the model's output has no 'instances', but proposals"):
        evaluator.process(inputs, [{"proposals": None}])
    with pytest.raises(ValueError, match="image 5 is not in the ground truth"):
        feed(evaluator, [([{"image_id": 5}], outputs)])
    with pytest.raises(ValueError, match="some images were predicted more than once"):
        feed(evaluator, [(inputs, outputs)] * 2)
    outputs[0]["instances"].pred_classes[0] = 3
    with pytest.raises(ValueError, match="a prediction is of class 3, but the data set has 3 classes"):
        feed(evaluator, [(inputs, outputs)])
    outputs[0]["instances"].pred_classes[0] = 0
    outputs[0]["instances"].scores[0] = torch.nan
    with pytest.raises(CocoFormatError, match=r"detections\[0\] has the score nan"):
        feed(evaluator, [(inputs, outputs)])
    (tmp_path / "gt.json").unlink()
    with pytest.raises(CocoFormatError, match=r"gt.json cannot be read"):
        COCOCalibrationEvaluator(dataset)


def test_a_json_file_of_other_categories_is_refused(dataset, truth, tmp_path):
    (tmp_path / "gt.json").write_text(json.dumps(truth | {"annotations": [], "categories": CATEGORIES[1:]}))
    with pytest.raises(ValueError, match=r"category 7 of data set .* is not in its COCO json file; register it again"):
        COCOCalibrationEvaluator(dataset)


def _process_of_two(rank: int, port: int, folder: Path) -> None:
    """Sees the images of one parity, then, on its own, all; writes what both give."""
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    truth = json.loads((folder / "gt.json").read_text())
    register_coco_instances("scenes_of_two", {}, str(folder / "gt.json"), str(folder))
    DatasetCatalog.get("scenes_of_two")
    evaluator = COCOCalibrationEvaluator("scenes_of_two", folder / "out", per_category=True)
    results = feed(evaluator, predictions(truth)[rank::2])
    alone = COCOCalibrationEvaluator("scenes_of_two", per_category=True, distributed=False)
    (folder / f"results{rank}.json").write_text(json.dumps([results, feed(alone, predictions(truth))]))
    torch.distributed.destroy_process_group()


def test_two_processes_are_as_one(dataset, truth, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(_process_of_two, (port, tmp_path), nprocs=2, start_method="fork")
    (two, alone), (other, other_alone) = (
        json.loads((tmp_path / f"results{rank}.json").read_text()) for rank in range(2)
    )
    assert other == {}  # the main process alone returns what both found
    one = feed(COCOCalibrationEvaluator(dataset, tmp_path / "one", per_category=True), predictions(truth))
    assert same(two, one) and same(alone, one) and same(other_alone, one)
    for path in (tmp_path / "one").glob("*.json"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes(), path.name
