"""Speed and memory as ratios: a start, metrics, sampling and distillation.

A start is compared with `import torch`, metrics with torchmetrics and netcal, the others with plain ones; ratios are to
ours. Memory is the growth of a fresh process's peak.
"""

import resource
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from timing import Contender, argument_parser, in_fresh_process, peak_growth, race, take_step
from torch import Tensor
from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError

from classification.methods import DDN, Standard
from classification.models import build_model
from classification.sampling import mc_outputs
from uncertainty_core import CalibrationMetric, ConfidenceCalibration, mc_mean_std

BATCH = 2**16
TOOLS = Path(__file__).resolve().parents[1]


def ours(confidence: Tensor, success: Tensor) -> float:
    """ECE of confidences (N,) and successes (N,), batch by batch."""
    metric = ConfidenceCalibration(num_bins=15)
    for pair in zip(confidence.split(BATCH), success.split(BATCH), strict=True):
        metric.update(*pair)
    return metric.compute()["ece"].item()


def torchmetrics_streaming(confidence: Tensor, success: Tensor) -> float:
    """The same by torchmetrics."""
    metric = BinaryCalibrationError(n_bins=15, validate_args=False)  # its fastest setting; ours always validates
    for pair in zip(confidence.split(BATCH), success.split(BATCH), strict=True):
        metric.update(*pair)
    return metric.compute().item()


def netcal_whole(confidence: Tensor, success: Tensor) -> float:
    """The same by netcal, which needs all of them at once."""
    from netcal.metrics import ECE

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(ECE(15).measure(confidence.numpy(), success.int().numpy()))


def ours_pixels(probabilities: Tensor, labels: Tensor) -> float:
    """ECE, and with it all other scores, of probabilities (N, C, H, W) and labels (N, H, W)."""
    metric = CalibrationMetric(probabilities.shape[1])
    metric.update(probabilities, labels)
    return metric.compute()["ece"].item()


def torchmetrics_pixels(probabilities: Tensor, labels: Tensor) -> float:
    """ECE alone, by torchmetrics."""
    metric = MulticlassCalibrationError(probabilities.shape[1], n_bins=15, validate_args=False)
    metric.update(probabilities, labels)
    return metric.compute().item()


def sampling(network: str, draws: int) -> tuple[dict[str, Contender], dict[str, Contender]]:
    """Ways to take Monte-Carlo passes of a network: in float32, and those that trade bits for speed against all."""
    model = build_model(network).eval()

    def ours(**options: Any) -> Contender:
        return lambda images: mc_outputs(model, images, draws, **options).mean().item()

    def naive(batch_size: int, dtype: torch.dtype) -> Contender:
        def contender(images: Tensor) -> float:
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                means = [mc_mean_std(model, part, num_samples=draws)[0] for part in images.split(batch_size)]
            return torch.cat(means).mean().item()

        return contender

    rivals = {
        "naive, whole batches": naive(64, torch.float32),
        "naive, sub-batches of 16": naive(16, torch.float32),
    }
    exact = {
        "ours": ours(),
        "ours, a seed per image": ours(seed=0),
        "ours, channels last": ours(channels_last=True),
        **rivals,
    }
    fast = {
        "ours, bfloat16 and channels last": ours(precision="bfloat16", channels_last=True),
        "ours, bfloat16": ours(precision="bfloat16"),
        "naive, whole batches, bfloat16": naive(64, torch.bfloat16),
        **rivals,
    }
    return exact, fast


def training_steps(network: str, targets: Tensor) -> dict[str, Contender]:
    """A step of training on labels alone, and one on cached targets as well."""
    contenders = {}
    for name, method in {"on cached targets": DDN(), "on labels alone": Standard()}.items():
        model = build_model(network)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

        def step(images: Tensor, labels: Tensor, model=model, optimizer=optimizer, method=method) -> float:
            return take_step(optimizer, method.loss(model(images), targets, labels))

        contenders[name] = step
    return contenders


def growth(contender: Contender, millions: int) -> float:
    """MiB by which the peak of this process grows while it feeds `millions` of confidences."""
    torch.set_num_threads(1)
    confidence, success = one_million()
    contender(confidence[:1000], success[:1000])  # imports and first-call costs
    confidence, success = confidence.expand(millions, -1).flatten(), success.expand(millions, -1).flatten()
    return peak_growth(lambda: contender(confidence, success))


def one_million() -> tuple[Tensor, Tensor]:
    """A million confidences, the high ones more frequent, and successes that they foretell rightly."""
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(1_000_000, generator=generator).sqrt()
    return confidence, torch.rand(1_000_000, generator=generator) < confidence


def one_image() -> tuple[Tensor, Tensor]:
    """Probabilities and labels of a Cityscapes-sized image, 19 classes."""
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(1, 19, 1024, 2048, generator=generator).mul(3).softmax(1)
    return probabilities, torch.randint(19, (1, 1024, 2048), generator=generator)


STARTS = {
    "import torch": ("-c", "import torch"),
    "import uncertainty_core": ("-c", "import uncertainty_core"),
    "the same and all its functions": ("-c", "import uncertainty_core.functional, uncertainty_core.sampling"),
    "train_net.py --help": (str(TOOLS / "train_net.py"), "--help"),
}


def processor_seconds(*words: str) -> float:
    """Processor time of `python <words>`, the least of three."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def starts() -> None:
    """What it costs to start, as ratios to `import torch`."""
    print("Processor time of a start")
    seconds = {name: processor_seconds(*words) for name, words in STARTS.items()}
    for name, value in seconds.items():
        print(f"  {name:<34}{value:7.2f} s{value / seconds['import torch']:8.2f}")
    print()


def main() -> None:
    """Run all benchmarks."""
    args = argument_parser(__doc__, rounds=11).parse_args()
    torch.set_num_threads(args.threads)
    starts()

    confidence, success = one_million()
    streams: dict[str, Contender] = {
        "ours": ours,
        "torchmetrics, not validating": torchmetrics_streaming,
        "netcal": netcal_whole,
    }
    race("ECE of a million confidences", streams, (confidence, success), args.rounds)

    print(f"\nGrowth of the peak memory (MiB) with the number of confidences\n  {'':<34}    1 M    4 M   16 M")
    for name, contender in streams.items():
        grown = "".join(f"{in_fresh_process(growth, contender, millions):7.0f}" for millions in (1, 4, 16))
        print(f"  {name:<34}{grown}")

    pixels = {"ours, with all nine scores": ours_pixels, "torchmetrics, ECE alone": torchmetrics_pixels}
    probabilities, labels = one_image()
    race("Calibration of a 1024 x 2048 image, 19 classes", pixels, (probabilities, labels), min(args.rounds, 5))

    torch.manual_seed(0)
    for network, channels, size, draws in (("densenet40", 3, 32, 2), ("lenet", 1, 28, 20)):
        images = torch.randn(64, channels, size, size)
        for kind, contenders in zip(("in float32", "in bfloat16"), sampling(network, draws), strict=True):
            title = f"{draws} Monte-Carlo passes of 64 images, {network}, {kind}"
            race(title, contenders, (images,), min(args.rounds, 5))

    batch = torch.randn(64, 1, 28, 28), torch.randint(10, (64,))
    race("A training step of 64 images, lenet_all", training_steps("lenet_all", torch.randn(64, 10)), batch, 51)


if __name__ == "__main__":
    main()
