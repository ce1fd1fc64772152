"""Intervals: processor time, memory, and how often they contain the truth.

The default numbers are those of the validation sets of COCO and Cityscapes. `--coverage` prints the table of
docs/metrics.md alone.
"""

import argparse
import tempfile
import time

import numpy as np
import torch
from detection import data
from timing import in_fresh_process, peak_growth

from uncertainty_core import BinStatistics, ece, msce
from uncertainty_core.detection import Settings, evaluate, match_images, read_detections, read_ground_truth
from uncertainty_core.functional.calibration import bin_index, fine_bins
from uncertainty_core.functional.selective import Ranking, auroc
from uncertainty_core.functional.sparsification import NUM_LEVELS, PixelLevels
from uncertainty_core.intervals.bins import drawn_bin_metrics
from uncertainty_core.intervals.cells import CellSums, drawn_sum
from uncertainty_core.intervals.comparing import Resampled, resample
from uncertainty_core.intervals.detected import DetectedImages
from uncertainty_core.intervals.resampling import Measure, image_weights
from uncertainty_core.intervals.segmented import SegmentedImages, calibration_row, ranking_row
from uncertainty_core.intervals.storage import read_images, write_images

CLASSES = 19
BLOCK = 50


def write_detected(folder: str, images: int, detections: int, classes: int) -> None:
    """Drawn detections, matched, in a file."""
    truth, found = data(images, detections, classes)
    truth = read_ground_truth(truth)
    settings = Settings((0.5,))
    matched = match_images(truth, read_detections(found, truth), settings)
    write_images(folder, DetectedImages.of(evaluate(truth, matched, settings), 0.5))


def cost_of_detections(folder: str) -> dict[str, tuple[int, float, float]]:
    """Resamples, processor seconds and MiB by which the peak memory grows, of calibration and of precision."""
    torch.set_num_threads(1)
    kept = read_images(folder)
    costs = {}
    for measure, resamples in kept.measures.items():
        start = time.process_time()

        def run(measure=measure, resamples=resamples) -> None:
            for weights in image_weights(kept.ids, resamples).split(BLOCK, dim=1):
                measure(weights.float())

        grown = peak_growth(run)
        costs[measure.__name__] = resamples, time.process_time() - start, grown
    return costs


def segmented(images: int) -> SegmentedImages:
    """As much as can be occupied by images of 2 million pixels and 19 classes."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(images):
        bins = torch.randint(2000, (5, fine_bins(15)), generator=generator)
        levels = (torch.randint(40, (NUM_LEVELS, CLASSES), generator=generator) for _ in range(2))
        rows.append(
            calibration_row(bins, torch.zeros(3, 2, dtype=torch.int64), ("nll_true", "brier"))
            | ranking_row(PixelLevels(*levels, torch.randint(40, (NUM_LEVELS,), generator=generator)))
        )
    return SegmentedImages.of_rows([str(k) for k in range(images)], rows, removed=tuple(k / 20 for k in range(20)))


def cost_of_pixels(images: int) -> tuple[float, float]:
    """MiB of what is kept of the images, and processor seconds of a thousand resamples."""
    torch.set_num_threads(1)
    kept = segmented(images)
    size = sum(value.nbytes for value in vars(kept).values() if isinstance(value, np.ndarray))
    start = time.process_time()
    resample(kept)
    return size / 2**20, time.process_time() - start


LINKS = {
    "calibrated": lambda c: c,
    "overconfident by 0.02": lambda c: (c - 0.02).clip(0, 1),
    "overconfident by 0.05": lambda c: (c - 0.05).clip(0, 1),
    "overconfident by 0.10": lambda c: (c - 0.10).clip(0, 1),
    "wrong to both sides": lambda c: (c + 0.08 * np.sin(9 * c)).clip(0, 1),
}


def truths(link, num_bins: int = 15) -> dict[str, float]:
    """Accuracy, Brier score, NLL, ECE, MSCE and error AUROC of infinitely many samples."""
    confidence = np.sqrt((np.arange(2_000_000) + 0.5) / 2_000_000)
    right = link(confidence)
    cell = np.minimum(np.ceil(confidence * num_bins).astype(int) - 1, num_bins - 1)
    count, sums = np.bincount(cell), [np.bincount(cell, values) for values in (confidence, right)]
    bins = BinStatistics(*(torch.from_numpy(values) for values in (count, *sums)))
    wrong = 1 - right
    # chance that an error is less certain than a right answer: both ascend in confidence
    above = right.sum() - right.cumsum() + right / 2
    nll = -(right * np.log(confidence) + wrong * np.log(1 - confidence))
    return {
        "accuracy": right.mean(),
        "brier": (right * (1 - confidence) ** 2 + wrong * confidence**2).mean(),
        "nll": nll.mean(),
        "error_auroc": (wrong * above).sum() / (wrong.sum() * right.sum()),
        "ece": ece(bins).item(),
        "msce": msce(bins).item(),
    }


def measure_of(link, size: int, generator: np.random.Generator) -> Measure:
    """Metrics of samples whose predictions are right as often as the link of their confidence says."""
    confidence = torch.from_numpy(np.sqrt(generator.uniform(size=size)))
    success = torch.from_numpy(generator.uniform(size=size)) < torch.from_numpy(link(confidence.numpy()))
    sample, cells = torch.arange(size), fine_bins(15)
    bins = CellSums(sample, bin_index(confidence, cells), cells, excess=success.double() - confidence)
    order = CellSums(sample, (-confidence).argsort().argsort(), size, wrong=~success)
    scores = {
        "accuracy": success,
        "brier": (success.double() - confidence).square(),
        "nll": -torch.where(success, confidence, 1 - confidence).log(),
    }

    def measure(weights: torch.Tensor) -> dict[str, torch.Tensor]:
        total = weights.sum(0)
        values = {name: drawn_sum(score, weights) / total for name, score in scores.items()}
        values["error_auroc"] = auroc(Ranking(order.drawn(weights), order.drawn(weights, "wrong")))
        return values | drawn_bin_metrics(bins, weights, 15)

    return measure


def coverage(link, size: int, repetitions: int, resamples: int = 500) -> dict[str, float]:
    """How often the interval of each metric contains its truth."""
    generator, expected = np.random.default_rng(0), truths(link)
    hits = dict.fromkeys(expected, 0)
    blocks = image_weights(range(size), resamples).float().split(BLOCK, dim=1)
    for _ in range(repetitions):
        measure = measure_of(link, size, generator)
        once, drawn = measure(torch.ones(size, 1, dtype=torch.float64)), [measure(weights) for weights in blocks]
        found = Resampled(
            {name: once[name].item() for name in hits}, {k: torch.cat([d[k] for d in drawn]) for k in hits}
        )
        for name, value in expected.items():
            low, high = found.interval(name)
            hits[name] += low <= value <= high
    return {name: float(count) / repetitions for name, count in hits.items()}


def print_costs(images: int, detections: int, classes: int, pixel_images: int) -> None:
    """What intervals take."""
    print(f"Intervals of {images} images x {detections} detections x {classes} classes")
    with tempfile.TemporaryDirectory() as folder:
        in_fresh_process(write_detected, folder, images, detections, classes)
        for name, (resamples, seconds, grown) in in_fresh_process(cost_of_detections, folder).items():
            print(f"  {f'{resamples} resamples of {name}':<34} {seconds:9.2f} s   peak + {grown:6.0f} MiB")
    size, seconds = in_fresh_process(cost_of_pixels, pixel_images)
    print(f"Intervals of {pixel_images} images of 1024 x 2048 pixels, {CLASSES} classes")
    print(f"  {'1000 resamples of all':<34} {seconds:9.2f} s   {size:6.0f} MiB kept of the images\n")


def print_coverage(repetitions: int) -> None:
    """How often the 95 % intervals contain the truth."""
    print(f"Share of {repetitions} intervals of 95 % that contain the truth")
    for size in (200, 1000, 5000):
        for name, link in LINKS.items():
            shares = coverage(link, size, repetitions)
            print(f"  {size:5} samples, {name:<22}", *(f"  {key} {share:.3f}" for key, share in shares.items()))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000, help="number of images with detections")
    parser.add_argument("--detections", type=int, default=100, help="number of detections in each")
    parser.add_argument("--classes", type=int, default=80, help="number of classes")
    parser.add_argument("--pixel-images", type=int, default=500, help="number of segmented images")
    parser.add_argument("--repetitions", type=int, default=500, help="of each simulation of the coverage")
    parser.add_argument("--coverage", action="store_true", help="measure the coverage alone")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.coverage:
        print_costs(args.images, args.detections, args.classes, args.pixel_images)
    print_coverage(args.repetitions)


if __name__ == "__main__":
    main()
