"""Evaluation of detections against pycocotools: time, and growth of the peak memory, as ratios measured in one run.

What is here: reading, AP, AR and every calibration metric at three IoU thresholds, overall and per class. What is
there: evaluate() and accumulate() alone. Contenders take turns within one process; each also runs in a fresh one, whose
peak memory is compared with what it was when the data were loaded.

With the 5000 images of the default pycocotools takes one to two minutes a run, and it runs twice.
"""

import argparse
import contextlib
import io
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from timing import in_fresh_process, peak_growth

from uncertainty_core.detection import Settings, evaluate, match_images, read_detections, read_ground_truth

WIDTH, HEIGHT = 640, 480
BOXES_PER_IMAGE, CLASSES_PER_IMAGE = 7, 3  # about those of COCO


class Outcome(NamedTuple):
    """Of one evaluation; the average precision is in percent."""

    seconds: float
    average_precision: float


Entries = list[dict[str, Any]]
Contender = Callable[[dict[str, Any], Entries], Outcome]


def data(num_images: int, num_detections: int, num_classes: int) -> tuple[dict[str, Any], Entries]:
    """Ground truth, and for each image detections of which every other is near a true box."""
    generator = np.random.default_rng(0)
    ground_truth = {
        "images": [{"id": k + 1, "width": WIDTH, "height": HEIGHT} for k in range(num_images)],
        "categories": [{"id": k + 1, "name": f"class {k}"} for k in range(num_classes)],
        "annotations": [],
    }
    detections: Entries = []
    for image in range(1, num_images + 1):
        boxes = _boxes(generator, generator.poisson(BOXES_PER_IMAGE))
        classes = generator.choice(generator.integers(1, num_classes + 1, CLASSES_PER_IMAGE), len(boxes))
        for box, category in zip(boxes.tolist(), classes.tolist(), strict=True):
            ground_truth["annotations"].append(
                {
                    "id": len(ground_truth["annotations"]) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": box,
                    "area": 0.7 * box[2] * box[3],
                    "iscrowd": int(generator.random() < 0.02),
                }
            )
        found, guess = _boxes(generator, num_detections), generator.integers(1, num_classes + 1, num_detections)
        if len(boxes):
            near = np.arange(0, num_detections, 2)
            source = generator.integers(0, len(boxes), len(near))
            found[near] = boxes[source]
            found[near, :2] += generator.normal(0, 0.1, (len(near), 2)) * boxes[source, 2:]
            found[near, 2:] *= np.exp(generator.normal(0, 0.1, (len(near), 2)))
            guess[near] = classes[source]
        scores = generator.beta(1, 3, num_detections)
        detections += [
            {"image_id": image, "category_id": category, "bbox": box, "score": score}
            for category, box, score in zip(guess.tolist(), found.tolist(), scores.tolist(), strict=True)
        ]
    return ground_truth, detections


def _boxes(generator: np.random.Generator, number: int) -> np.ndarray:
    size = np.exp(generator.uniform(np.log(8), np.log(240), (number, 2)))
    return np.concatenate((generator.uniform(0, (400, 300), (number, 2)), size), 1)


def ours(ground_truth: dict[str, Any], detections: Entries) -> Outcome:
    """Average precision and calibration, timed from the entries of the files on."""
    start = time.perf_counter()
    truth = read_ground_truth(ground_truth)
    matched = match_images(truth, read_detections(detections, truth), Settings())
    evaluation = evaluate(truth, matched, Settings())
    return Outcome(time.perf_counter() - start, evaluation.precision["AP"])


def pycocotools(ground_truth: dict[str, Any], detections: Entries) -> Outcome:
    """Average precision alone, timed from its own index of the entries on."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = ground_truth
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes([dict(detection) for detection in detections]), "bbox")
        start = time.perf_counter()
        evaluation.evaluate()
        evaluation.accumulate()
        seconds = time.perf_counter() - start
        evaluation.summarize()
    return Outcome(seconds, 100 * evaluation.stats[0])


CONTENDERS: dict[str, Contender] = {"ours": ours, "pycocotools": pycocotools}


def growth(name: str, size: tuple[int, int, int]) -> float:
    """MiB by which the peak of this process grows while it evaluates."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # classes without detections, in the small data of the next line
    CONTENDERS[name](*data(2, *size[1:]))  # imports and first-call costs
    loaded = data(*size)
    return peak_growth(lambda: CONTENDERS[name](*loaded))


def bench(images: int = 5000, detections: int = 100, classes: int = 80, rounds: int = 1) -> None:
    """Print time, ratio, AP and memory of each."""
    # first of all, because a process starts with the peak of the one that starts it
    memory = {name: in_fresh_process(growth, name, (images, detections, classes)) for name in CONTENDERS}
    loaded = data(images, detections, classes)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        for name, contender in CONTENDERS.items():
            outcomes[name].append(contender(*loaded))

    title = f"AP, AR and all calibration of {images} images x {detections} detections x {classes} classes"
    print(f"\n{title}, {rounds} alternating rounds")
    for name, runs in outcomes.items():
        seconds = statistics.median(run.seconds for run in runs)
        ratio = statistics.median(
            run.seconds / theirs.seconds for run, theirs in zip(runs, outcomes["pycocotools"], strict=True)
        )
        print(
            f"  {name:<34} {seconds:9.2f} s    {ratio:6.3f}x   peak + {memory[name]:6.0f} MiB   "
            f"AP {runs[0].average_precision:.9f}"
        )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000, help="number of images")
    parser.add_argument("--detections", type=int, default=100, help="number of detections in each")
    parser.add_argument("--classes", type=int, default=80, help="number of classes")
    parser.add_argument("--rounds", type=int, default=1, help="how often each contender runs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    bench(args.images, args.detections, args.classes, args.rounds)


if __name__ == "__main__":
    main()
