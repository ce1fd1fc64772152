"""Evaluating a segmentor from a config."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner

from uncertainty_core.io.files import write_text
from uncertainty_core.io.strict_json import strict_json
from uncertainty_core.report.run_record import Data, PaperRow, Picture, Training

from ..cli import ConfigError, check_data
from ..hooks.progress import ProgressHook
from ..metrics.sparsification import PREDICTED
from ..metrics.streaming import StreamingMetric
from ..models.consensus import check_gives_logits
from ..targets.check import base_datasets, image_paths
from ..targets.codec import images_digest
from ..targets.contents import outputs_of
from .ranks import prepare_ranks
from .records import Evaluation, run_records
from .rehearsal import part


def use_test_time_augmentation(cfg: Config) -> None:
    """What mmsegmentation's `--tta` does: the config's `tta_pipeline`, merged by its `tta_model`."""
    for key in ("tta_pipeline", "tta_model"):
        if key not in cfg:
            raise ConfigError(f"--tta needs {key} in the config")
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.tta_model.module = cfg.model
    cfg.model = cfg.tta_model


def write_predictions(cfg: Config, folder: str) -> None:
    """Let the IoUMetric among the test evaluators write predicted classes as PNG."""
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    for evaluator in evaluators:
        if evaluator.type in ("IoUMetric", "CityscapesMetric"):
            evaluator.output_dir = folder
            return
    raise ConfigError("--out needs an IoUMetric or CityscapesMetric in test_evaluator")


def with_rival(evaluators: Any, outputs: Sequence[str] = ()) -> Any:
    """Evaluators of a config; where one ranks pixels, others do so by the entropy of the softmax, which is free, and by
    all `outputs` of the segmentor."""
    found = evaluators if isinstance(evaluators, list) else [evaluators]
    ranked_by = [e.get("uncertainty", "predicted") for e in found if e["type"] == "SparsificationMetric"]
    others = ["entropy", *(PREDICTED[name] for name in outputs)]
    missing = [name for name in others if ranked_by and name not in ranked_by]
    more = [{"type": "SparsificationMetric", "uncertainty": name} for name in missing]
    return [*found, *more] if more else evaluators


class Tested(NamedTuple):
    """A finished test: its runner, the evaluators when they have measured, their values by name, and its seconds."""

    runner: Runner
    evaluators: Sequence[BaseMetric]
    values: dict[str, float]
    seconds: float


def run_test(cfg: Config, checkpoint: str | None = None) -> Tested:
    """Run the test loop of `cfg` with the weights in `checkpoint`; a teacher has its own."""
    check_data(cfg.test_dataloader)
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise ConfigError(f"there is no checkpoint {checkpoint}")
    cfg = cfg.copy()
    prepare_ranks(cfg)
    cfg.load_from, cfg.resume = checkpoint, False
    # by this name and the second mmengine finds the log of an earlier test again, whose folder may be gone
    cfg.experiment_name = f"{cfg.get('experiment_name', 'test')}_{uuid4().hex}"
    with part(cfg, "test"):
        check_gives_logits(cfg.model.get("module", cfg.model))
        runner = Runner.from_cfg(cfg)
        runner.test_loop  # noqa: B018 (the first access builds it)
    runner.register_hook(ProgressHook())
    start = time.perf_counter()
    values = {key: float(value) for key, value in runner.test().items()}
    return Tested(runner, runner.test_loop.evaluator.metrics, values, time.perf_counter() - start)


def evaluate(
    cfg: Config, checkpoint: str | None = None, name: str | None = None, paper_row: PaperRow | None = None
) -> dict[str, float]:
    """`run_test`; into the work dir go `metrics.json`, and `run.json` for the report of all runs.

    Args:
        cfg: of a segmentor or a teacher.
        checkpoint: its weights; a teacher has its own.
        name: of the predictor in the report; that of the work dir by default.
        paper_row: what a paper prints of the same predictor.
    """
    cfg = cfg.copy()
    cfg.test_evaluator = with_rival(cfg.test_evaluator, outputs_of(cfg.model.get("module", cfg.model))[1:])
    runner, evaluators, metrics, seconds = run_test(cfg, checkpoint)
    if is_main_process():
        folder = Path(cfg.work_dir)
        write_text(folder / "metrics.json", strict_json(metrics))
        if any(isinstance(metric, StreamingMetric) for metric in evaluators):
            data = data_of(runner.test_dataloader.dataset)
            weights = checkpoint or next(iter(cfg.model.get("checkpoints", ())), None)
            training = None if weights is None else Training.of(Path(weights).parent)
            passes = _passes(runner.model)
            evaluation = Evaluation(
                name or folder.name, passes, evaluators, metrics, runner.seed, data, seconds, training
            )
            for stale in folder.glob("rival_*/run.json"):  # an earlier evaluation may have had more
                stale.unlink()
            for number, (record, images) in enumerate(run_records(evaluation, pictures_in(folder), paper_row)):
                record.write(folder / f"rival_{number - 1}" if number else folder, images)
    return metrics


def _passes(model) -> int:
    """How often the network runs for one image."""
    return getattr(model, "num_samples", None) or len(getattr(model, "checkpoints", ())) or 1


def data_of(dataset) -> Data:
    """Name, fingerprint and size of a data set."""
    paths = [path for part in base_datasets(dataset) for path in image_paths(part)]
    name = type(dataset).__name__.removesuffix("Dataset")
    return Data(name, images_digest({str(k): path for k, path in enumerate(paths)}), len(paths))


def pictures_in(folder: Path, limit: int = 8) -> Sequence[Picture]:
    """The first strips that UncertaintyVisualizationHook has written below `folder`."""
    return [
        Picture(path.relative_to(folder).as_posix(), path.stem)
        for path in sorted(folder.glob("uncertainty/*.png"))[:limit]
    ]
