"""Calibrators that are fitted to pixels of held-out images, each once.

<folder>/<method>.json                         fitted to all of the images
<folder>/<method>_0.json, <method>_1.json      to each half of them, where they are the test images

Where a data set has no third split with labels, as Cityscapes, each half of the test images is calibrated by what is
fitted to the other: no image has a part in its own calibrator, and all test images are measured.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.dist import barrier, is_main_process
from mmengine.registry import init_default_scope
from mmseg.models.segmentors import CascadeEncoderDecoder, EncoderDecoder
from mmseg.registry import MODELS

from uncertainty_core.cli import echo
from uncertainty_core.io.claims import claim, holds
from uncertainty_core.recalibration import PROBABILITY_METHODS, save
from uncertainty_core.sampling.pixels import SIZE

from ..cli import ConfigError, unwrapped
from ..metrics.pixels import of_all
from ..models.calibration import KEYS, CalibratedMixin
from ..models.teacher import TeacherSegmentor
from ..targets.generate import inference_dataset
from .claims import evaluation_settings, test_images
from .evaluation import run_test

_CALIBRATED = {EncoderDecoder: "CalibratedEncoderDecoder", CascadeEncoderDecoder: "CalibratedCascadeEncoderDecoder"}


def with_calibrator(cfg: Config, paths: Sequence[Path]) -> Config:
    """A copy of `cfg` whose model has the calibrator in a file, or those of the two halves.

    Raises ConfigError for a model that takes none, or has one already.
    """
    kind = MODELS.get(cfg.model.type)
    takes = isinstance(kind, type) and issubclass(kind, CalibratedMixin | TeacherSegmentor)
    if not takes and kind not in _CALIBRATED:
        raise ConfigError(
            f"model.type is {cfg.model.type}, which takes no calibrator: let it inherit from "
            "dudes_mmseg.CalibratedMixin, too, or leave calibrators out (--calibrators '')"
        )
    if own := [key for key in KEYS if cfg.model.get(key)]:
        raise ConfigError(f"model.{own[0]} is set, where rows are measured with and without: leave it out")
    cfg = cfg.copy()
    names = [str(path) for path in paths]
    cfg.model = cfg.model | {
        "type": cfg.model.type if takes else _CALIBRATED[kind],
        "calibrator": names if len(names) > 1 else names[0],
    }
    return cfg


def check_calibrators(configs: Iterable[Config], split: str) -> None:
    """Raise ConfigError unless calibrators can be fitted to images of `split`, and measured, in all of these."""
    for cfg in configs:
        with_calibrator(cfg, [Path()])
        held_out(cfg, split)


def held_out(cfg: Config, split: str) -> Config:
    """A copy of `cfg` whose test images are those of `split`, "val" or "train", shown as the test images are."""
    if not cfg.get(f"{split}_dataloader"):
        raise ConfigError(f"the config has no {split}_dataloader, whose images calibrators are fitted to")
    cfg = cfg.copy()
    dataset = _shown_by(inference_dataset(cfg).pipeline, cfg[f"{split}_dataloader"].dataset)
    cfg.test_dataloader = cfg.test_dataloader | {"dataset": dataset}
    return cfg


def _shown_by(pipeline: Sequence[Mapping], dataset: ConfigDict) -> ConfigDict:
    """The images of a data set, each once, through another pipeline."""
    dataset = unwrapped(dataset)
    if "datasets" in dataset:
        return dataset | {"datasets": [_shown_by(pipeline, part) for part in dataset.datasets]}
    return dataset | {"pipeline": pipeline}


def sampling(cfg: Config, split: str, folder: Path, size: int = SIZE) -> Config:
    """The config of a test that draws a sample of `size` pixels of the images of `split`, see `PixelSampleMetric`."""
    cfg = held_out(cfg, split)
    cfg.work_dir = str(folder)
    cfg.test_evaluator = [{"type": "PixelSampleMetric", "size": size, "seed": 0}]
    return cfg


def fit_once(
    cfg: Config,
    checkpoint: str | None,
    methods: Iterable[str],
    split: str,
    folder: Path,
    step: Callable[[str], None] = echo,
    overwrite: bool = False,
    size: int = SIZE,
) -> dict[str, list[Path]]:
    """Fit the calibrators that `folder` does not hold yet; returns the files of each method, one or one of each half.

    Args:
        cfg: of a segmentor or a teacher.
        checkpoint: its weights; a teacher has its own.
        methods: of CLASS_METHODS.
        split: whose images they are fitted to, "val" or "train".
        folder: of this predictor.
        step: announces the fit.
        overwrite: fit all of them again.
        size: pixels of the sample.
    """
    init_default_scope(cfg.get("default_scope") or "mmseg")
    fitted = sampling(cfg, split, folder, size)
    images, tested = ({Path(path).resolve() for path in test_images(of)} for of in (fitted, cfg))
    halves = not images.isdisjoint(tested)
    files = {name: [folder / f"{name}{part}.json" for part in (("_0", "_1") if halves else ("",))] for name in methods}
    settings = evaluation_settings(fitted, checkpoint)
    if overwrite or not holds(folder, settings):
        shutil.rmtree(folder, ignore_errors=True)
    missing = [name for name, paths in files.items() if not all(path.is_file() for path in paths)]
    if not missing:
        step(f"calibrators of {folder.name}: fitted before")
        return files
    step(f"calibrators of {folder.name}: {', '.join(missing)}, fitted to {_described(len(images), split, halves)}")
    [metric] = run_test(fitted, checkpoint).evaluators
    if is_main_process():
        claim(folder, settings)
        samples = metric.classes if halves else [of_all(metric.classes)]
        if not all(map(len, samples)):
            raise ConfigError(f"no pixel of the {split} images{', or of a half,' * halves} has a label to fit to")
        pixels = " and ".join(f"{len(sample):,}" for sample in samples)
        start = time.perf_counter()
        for name in missing:
            for sample, path in zip(samples, files[name], strict=True):
                save(PROBABILITY_METHODS[name](sample.probabilities, sample.labels), path)
        echo(f"      to {pixels} pixels drawn at random, void left out, in {time.perf_counter() - start:.0f} s")
    barrier()
    return files


def _described(num_images: int, split: str, halves: bool) -> str:
    if halves:
        return f"each half of the {num_images} {split} images for the other, since they are the test images"
    known = ", which the networks were trained on" if split == "train" else ""
    return f"{num_images} {split} images{known}"
