"""Cost of uncertainty for segmentors as ratios: inference, training steps, memory, metrics.

Random weights. The metrics are timed on a prediction of the size of Cityscapes, whose logits are as smooth and as sure
as those of a trained network.
"""

import argparse
import copy
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from timing import Contender, argument_parser, in_fresh_process, peak_growth, race, take_step
from torch import Tensor, nn

import dudes_mmseg  # noqa: F401  (registers)
from dudes_mmseg.cli import read_config
from dudes_mmseg.metrics import SegCalibrationMetric, SparsificationMetric, UncertaintyMetric
from uncertainty_core import pixel_levels, sparsification
from uncertainty_core.metrics.selective import REMOVED

CONFIG = "deeplabv3plus_r18_cityscapes-768x768_member.py"
NUM_CLASSES = 19
Sample = dict[str, Any]


def set_up(threads: int) -> None:
    """What a process needs before it builds segmentors."""
    torch.set_num_threads(threads)
    init_default_scope("mmseg")
    MMLogger.get_current_instance().setLevel("ERROR")


def student_config(cfg: Config) -> dict:
    """The same with an uncertainty head."""
    return {**copy.deepcopy(cfg.model), "type": "DUDESEncoderDecoder"}


def build(model: dict) -> nn.Module:
    """The same random weights each time."""
    torch.manual_seed(0)
    return MODELS.build(copy.deepcopy(model)).eval()


def write_members(cfg: Config, folder: Path, count: int) -> list[str]:
    """Checkpoints of networks with different weights."""
    paths = []
    for seed in range(count):
        torch.manual_seed(seed)
        paths.append(str(folder / f"member_{seed}.pth"))
        torch.save({"state_dict": MODELS.build(copy.deepcopy(cfg.model)).state_dict()}, paths[-1])
    return paths


def teacher_config(cfg: Config, checkpoints: list[str], **options: Any) -> dict:
    """The ensemble of these checkpoints."""
    return {"type": "DeepEnsembleSegmentor", "segmentor": cfg.model, "checkpoints": checkpoints, **options}


def forward(model: nn.Module) -> Contender:
    """From the normalised image (1, 3, H, W) to the maps."""

    def run(inputs: Tensor) -> float:
        size = tuple(inputs.shape[2:])
        metainfo = {"ori_shape": size, "img_shape": size, "pad_shape": size}
        with torch.no_grad():
            (sample,) = model.predict(inputs, [SegDataSample(metainfo=metainfo)])
        return sample.pred_sem_seg.data.double().mean().item()

    return run


def steps(cfg: Config) -> dict[str, Contender]:
    """A training step of the baseline, and of a student whose targets come with the images."""
    contenders = {}
    for name, config in {"baseline": cfg.model, "student, stored targets": student_config(cfg)}.items():
        model = build(config).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

        def step(inputs: Tensor, samples: list[SegDataSample], model=model, optimizer=optimizer) -> float:
            losses = model.loss(inputs, samples)
            return take_step(optimizer, sum(value for key, value in losses.items() if "loss" in key))

        contenders[name] = step
    return contenders


def training_batch(size: int) -> tuple[Tensor, list[SegDataSample]]:
    """Two crops of size x size with labels and targets."""
    samples = []
    for _ in range(2):
        sample = SegDataSample(metainfo={"img_shape": (size, size), "ori_shape": (size, size)})
        sample.gt_sem_seg = PixelData(data=torch.randint(NUM_CLASSES, (1, size, size)))
        sample.gt_uncertainty = PixelData(data=torch.rand(1, size, size) / 2)
        samples.append(sample)
    return torch.randn(2, 3, size, size), samples


def growth(config: dict, size: tuple[int, int]) -> float:
    """MiB by which the peak of this process grows when the segmentor of a config is built and predicts twice."""
    set_up(threads=1)

    def predict_twice() -> None:
        run, inputs = forward(build(config)), torch.zeros(1, 3, *size)
        run(inputs)
        run(inputs)

    return peak_growth(predict_twice)


def prediction(height: int = 1024, width: int = 2048) -> Sample:
    """What a segmentor says about an image, and its labels: objects with blurred borders, a tenth of it void."""
    generator = torch.Generator().manual_seed(0)
    coarse = 25 * torch.randn(1, NUM_CLASSES, height // 32, width // 32, generator=generator)
    logits = nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    logits += 0.3 * torch.randn(logits.shape, generator=generator)
    confidence, predicted = logits.softmax(0).max(0, keepdim=True)
    wrong = torch.rand(confidence.shape, generator=generator) > confidence
    label = torch.where(wrong, torch.randint(NUM_CLASSES, confidence.shape, generator=generator), predicted)
    label[:, : height // 20] = label[:, :, : width // 20] = 255
    uncertainty = (1 - confidence) / 2 + 1e-3 * torch.rand(confidence.shape, generator=generator)
    fields = {"seg_logits": logits, "pred_sem_seg": predicted, "gt_sem_seg": label, "pred_uncertainty": uncertainty}
    return {name: {"data": values} for name, values in fields.items()}


def metrics() -> dict[str, Contender]:
    """`process` of one image: mmseg's own metric, ours together, and each of ours."""
    ours = {
        "UncertaintyMetric": [UncertaintyMetric()],
        "SegCalibrationMetric": [SegCalibrationMetric()],
        "SparsificationMetric": [SparsificationMetric()],
        "SparsificationMetric, entropy": [SparsificationMetric("entropy")],
    }
    together = [metric for name in list(ours)[:3] for metric in ours[name]]
    groups = {"IoUMetric": [IoUMetric(prefix="mmseg")], "ours, all of an uncertainty map": together, **ours}
    contenders = {}
    for name, evaluators in groups.items():
        for metric in evaluators:
            metric.dataset_meta = {"classes": tuple(map(str, range(NUM_CLASSES)))}

        def process(sample: Sample, evaluators=evaluators) -> float:
            for metric in evaluators:
                metric.process(None, [sample])
                metric.results.clear()
            return float(len(evaluators))

        contenders[name] = process
    return contenders


def state_megabytes(sample: Sample) -> float:
    """What ours hold after an image, the last one's row included."""
    total = 0
    for metric in (UncertaintyMetric(), SegCalibrationMetric(), SparsificationMetric()):
        metric.dataset_meta = {"classes": tuple(map(str, range(NUM_CLASSES)))}
        metric.process(None, [sample])
        for states in (metric._total, metric._last):
            total += sum(t.numel() * t.element_size() for s in states.values() for t in s.metric_state.values())
    return total / 1e6


def histogram_curve(predicted: Tensor, label: Tensor, uncertainty: Tensor) -> Tensor:
    """mIoU (Q,) of the rest, from levels of uncertainty."""
    return sparsification(pixel_levels(predicted, label, uncertainty, NUM_CLASSES), REMOVED)[0]


def sorted_curve(predicted: Tensor, label: Tensor, uncertainty: Tensor) -> Tensor:
    """The same from a full sort of all pixels."""
    cell = (label * NUM_CLASSES + predicted)[uncertainty.argsort(stable=True)]
    ious = []
    for share in REMOVED:
        kept = cell[: round(len(cell) * (1 - share))]
        confusion = torch.bincount(kept, minlength=NUM_CLASSES**2).view(NUM_CLASSES, NUM_CLASSES).double()
        union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
        ious.append((confusion.diagonal() / union).nanmean())
    return torch.stack(ious)


def compare_models(args: argparse.Namespace, folder: Path) -> None:
    """Inference, memory, and a training step."""
    cfg = read_config(CONFIG)  # the paper's baseline
    paths = write_members(cfg, folder, 6)
    height, width = args.shape
    # before this process needs much memory itself: a new one inherits its peak
    teachers = {n: teacher_config(cfg, paths[:n]) for n in (2, 3, 6)}
    grown = [f"   {n} members {in_fresh_process(growth, each, (height, width)):5.0f}" for n, each in teachers.items()]
    print(f"\nPeak memory (MiB) of a teacher that keeps one member at a time{''.join(grown)}")
    contenders = {
        "baseline": forward(build(cfg.model)),
        "student": forward(build(student_config(cfg))),
        "teacher of 3, resident": forward(build(teacher_config(cfg, paths[:3], resident=True))),
        "teacher of 3, one at a time": forward(build(teacher_config(cfg, paths[:3]))),
    }
    image = torch.randn(1, 3, height, width)
    race(f"DeepLabV3+ R18, {height} x {width}: inference", contenders, (image,), args.rounds)
    torch.manual_seed(0)
    batch = training_batch(args.crop)
    race(f"A training step of 2 crops of {args.crop} x {args.crop}", steps(cfg), batch, args.rounds)


def compare_metrics(args: argparse.Namespace) -> None:
    """Our metrics against mmseg's, and rankings from histograms against sorted ones."""
    sample = prediction()
    race("Metrics on 1024 x 2048 pixels, 19 classes", metrics(), (sample,), args.rounds)
    print(f"  state of ours {state_megabytes(sample):.1f} MB")
    valid = sample["gt_sem_seg"]["data"] != 255
    pixels = tuple(sample[name]["data"][valid] for name in ("pred_sem_seg", "gt_sem_seg", "pred_uncertainty"))
    curves = {"from a histogram": histogram_curve, "from a full sort": sorted_curve}
    means = {name: lambda *inputs, curve=curve: curve(*inputs).mean().item() for name, curve in curves.items()}
    race("Sparsification of the same", means, pixels, min(args.rounds, 5))
    difference = (histogram_curve(*pixels) - sorted_curve(*pixels)).abs().max().item()
    print(f"  largest difference of mIoU {100 * difference:.4f} points")


def main() -> None:
    """Run the benchmarks that are asked for."""
    parser = argument_parser(__doc__, rounds=7)
    parser.add_argument(
        "--shape", nargs=2, type=int, default=(512, 1024), metavar=("H", "W"), help="of the image (default: 512 1024)"
    )
    parser.add_argument("--crop", type=int, default=256, help="side of a training crop (default: %(default)s)")
    parser.add_argument("--only", choices=("models", "metrics"), help="half of it")
    args = parser.parse_args()
    set_up(args.threads)
    if args.only != "metrics":
        with tempfile.TemporaryDirectory() as folder:
            compare_models(args, Path(folder))
    if args.only != "models":
        compare_metrics(args)


if __name__ == "__main__":
    sys.exit(main())
