"""How long a segmentor takes for one image, and how large it is."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

from uncertainty_core.cli import progress

from ..models.checkpoint import check_fits, load_weights, read_checkpoint


def build_segmentor(cfg: Config, checkpoint: str | None, device: str) -> nn.Module:
    """The segmentor of a config, ready to predict."""
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
    with progress(warm_up + runs, "time", "run") as bar:
        for run in range(warm_up + runs):
            for name, contender in contenders.items():
                start = time.perf_counter()
                contender()
                if run >= warm_up:
                    times[name].append(1e3 * (time.perf_counter() - start))
            bar.update()
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
