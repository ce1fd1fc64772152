"""Time for one image and size of segmentors: baselines, students and teachers, table 3 of DUDES.

    python tools/benchmark_segmentor.py quick/streets_member.py quick/streets_student.py --shape 128 256
    python tools/benchmark_segmentor.py my_baseline.py my_teacher.py my_student.py --checkpoints a.pth - b.pth

Configs may be any of mmsegmentation's. They take turns, so that a machine whose speed drifts slows all of them alike.
Without --checkpoints the weights are random, which changes no time; a teacher always reads those in its config.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from mmengine.config import DictAction
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

import dudes_mmseg  # noqa: F401  (registers)
from dudes_mmseg.cli import find_config, read_config
from dudes_mmseg.compat import silence
from dudes_mmseg.models.checkpoint import check_fits, load_weights, read_checkpoint
from uncertainty_core.errors import UserError, one_sentence_errors


def build(config: str, options: dict | None, checkpoint: str | None, device: str) -> nn.Module:
    """The segmentor of a config, ready to predict."""
    cfg = read_config(config, options)
    init_default_scope(cfg.get("default_scope", "mmseg"))
    cfg.model.pop("teacher", None)  # of use in a training alone
    model = MODELS.build(cfg.model)
    if checkpoint is not None:
        weights = read_checkpoint(checkpoint)
        check_fits(model, weights)
        load_weights(model, weights)
    return model.to(device).eval()


def number_of_parameters(model: nn.Module) -> int:
    """Trainable parameters; of an ensemble those of all its members, also if only one is in memory at a time."""
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    members = getattr(model, "members", ())
    return count * len(model.checkpoints) // len(members) if members else count


def prediction_of(model: nn.Module, height: int, width: int, device: str) -> Callable[[], None]:
    """A function that predicts one image, from the normalised input to the maps, and waits until it is done."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(1, 3, height, width, generator=generator).to(device)
    metainfo = {"ori_shape": (height, width), "img_shape": (height, width), "pad_shape": (height, width)}

    @torch.no_grad()
    def predict() -> None:
        model.predict(inputs, [SegDataSample(metainfo=metainfo)])
        if inputs.is_cuda:
            torch.cuda.synchronize()

    return predict


def milliseconds(contenders: Mapping[str, Callable[[], None]], runs: int, warm_up: int) -> dict[str, list[float]]:
    """The time of each run of each contender; they alternate."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for run in range(warm_up + runs):
        for name, contender in contenders.items():
            start = time.perf_counter()
            contender()
            if run >= warm_up:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def table(times: Mapping[str, list[float]], parameters: Mapping[str, int]) -> str:
    """A line for each contender; the ratio is the median over runs of its time to the first one's."""
    first = next(iter(times.values()))
    width = max(map(len, times))
    lines = [f"{'':<{width}}  {'ms per image':>17}  {'ratio':>7}  {'trainable parameters':>20}"]
    for name, taken in times.items():
        time_ = f"{statistics.mean(taken):.1f} ± {statistics.stdev(taken):.1f}"
        ratio = statistics.median(own / other for own, other in zip(taken, first, strict=True))
        lines.append(f"{name:<{width}}  {time_:>17}  {ratio:>6.3f}x  {parameters[name]:>20,}")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="config files, or names of those in configs/dudes")
    parser.add_argument("--checkpoints", nargs="+", metavar="FILE", help="weights of each config; - for none")
    parser.add_argument(
        "--shape", nargs=2, type=int, default=(1024, 2048), metavar=("H", "W"), help="of the image (default: 1024 2048)"
    )
    parser.add_argument("--runs", type=int, default=25, help="timed ones of each segmentor (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=3, help="runs before (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="torch threads on a CPU; torch's own choice by default")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default here: %(default)s"
    )
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE", help="override values of all configs"
    )
    args = parser.parse_args()
    if args.runs < 2 or args.warm_up < 0:
        parser.error("--runs must be at least 2, for there is a deviation to tell, and --warm-up at least 0")
    return args


def main(args: argparse.Namespace) -> None:
    """Build all, time all, print the table."""
    silence()
    checkpoints = args.checkpoints or ["-"] * len(args.configs)
    if len(checkpoints) != len(args.configs):
        raise UserError(f"--checkpoints names {len(checkpoints)} files for {len(args.configs)} configs: - means none")
    names = [find_config(config).stem for config in args.configs]
    if len(set(names)) < len(names):
        raise UserError("each config must have a name of its own, for the table")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    models = {
        name: build(config, args.cfg_options, None if checkpoint == "-" else checkpoint, args.device)
        for name, config, checkpoint in zip(names, args.configs, checkpoints, strict=True)
    }
    contenders = {name: prediction_of(model, *args.shape, args.device) for name, model in models.items()}
    times = milliseconds(contenders, args.runs, args.warm_up)
    device = torch.cuda.get_device_name() if args.device != "cpu" else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"{args.shape[0]} x {args.shape[1]} pixels, {args.runs} alternating runs, {device}, torch {torch.__version__}"
    )
    print(table(times, {name: number_of_parameters(model) for name, model in models.items()}))


if __name__ == "__main__":
    with one_sentence_errors():
        main(parse())
