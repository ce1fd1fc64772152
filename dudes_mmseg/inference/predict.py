"""What a segmentor predicts for images of one's own, without labels, and how sure it is of each of them."""

from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, MODELS
from torch.utils.data import DataLoader, Dataset

from uncertainty_core import file_sha256, state_dict_sha256
from uncertainty_core.cli import log_to, progress
from uncertainty_core.errors import UserError
from uncertainty_core.io.images import check_apart, find_images, unreadable_error

from ..cli import ConfigError
from ..models.calibration import by_content
from ..models.checkpoint import Checkpoint, CheckpointError, check_fits, load_weights, read_checkpoint
from ..models.segmentor import UncertaintyMixin
from ..models.teacher import TeacherSegmentor
from ..targets.codec import digest
from ..targets.generate import build_teacher, inference_dataset, inference_pipeline, target_fingerprint
from .folder import KINDS, PredictionFolder, Row


def predict_images(
    cfg: Config, checkpoint: str | None, images: Path, output: Path, level: float = 0.1, top: int = 12
) -> list[Row]:
    """Predict every image, or go on where it stopped; returns the rows of images.csv in the order of names.

    Images that are in `output` already, and not among these, stay there and in images.csv.
    Images are shown as at test time, one by one. Those that cannot be read are left out, and named by a UserError at
    the end.

    Args:
        cfg: of a student or a teacher.
        checkpoint: weights of the student; a teacher has its own.
        images: a folder, with folders in it or not, or a single image.
        output: becomes a `PredictionFolder`.
        level: of uncertainty, see `Row.share_above`.
        top: how many strips of the most uncertain images index.png shows.
    """
    init_default_scope(cfg.get("default_scope") or "mmseg")
    for name, use in (("model", "what predicts"), ("test_dataloader", "how images are shown to it")):
        if not cfg.get(name):
            raise ConfigError(f"the config has no {name}, which decides {use}")
    sources = find_images(images)
    check_apart(images, output, KINDS)
    model, fingerprint = build_predictor(cfg, checkpoint)
    folder = PredictionFolder(output, fingerprint, palette_of(cfg, model.num_classes))
    log_to(output / "log.txt")

    rows = {}
    for image, path in sources.items():
        if (codes := folder.read(image, path)) is not None:
            rows[image] = Row.of(image, codes, level)
    todo = _Images({image: path for image, path in sources.items() if image not in rows}, inference_pipeline(cfg))
    workers = min(cfg.test_dataloader.get("num_workers", 0), len(todo))
    with progress(len(sources), "predict", "image", initial=len(rows)) as bar:
        for image, loaded in DataLoader(todo, num_workers=workers, collate_fn=itemgetter(0)):
            if loaded is not None:
                try:
                    codes = folder.write(image, loaded.sha256, loaded.pixels, *_prediction(model, loaded.inputs))
                except ValueError as error:
                    raise UserError(f"{image}: {error}") from None
                rows[image] = Row.of(image, codes, level)
            bar.update()

    rows |= {image: Row.of(image, codes, level) for image, codes in folder.read_others(sources)}
    if rows:
        folder.write_index(list(rows.values()), level, top)
    if unreadable := [image for image in sources if image not in rows]:
        raise unreadable_error(unreadable, len(sources))
    return [rows[image] for image in sorted(rows)]


def build_predictor(cfg: Config, checkpoint: str | None) -> tuple[BaseModel, dict[str, Any]]:
    """The student or teacher of a config on its device, and JSON values of all that decides what it predicts."""
    kind = MODELS.get(cfg.model.type)
    kind = kind if isinstance(kind, type) else object
    if issubclass(kind, TeacherSegmentor):
        if checkpoint is not None:
            raise ConfigError(f"a teacher reads the checkpoints in its config: leave out {checkpoint}")
        teacher = build_teacher(cfg, class_wise=False)
        return teacher, target_fingerprint(by_content(cfg.model), teacher, inference_pipeline(cfg))
    if not issubclass(kind, UncertaintyMixin):
        raise ConfigError(
            f"model.type is {cfg.model.type}, which gives no uncertainty: give the config of a student "
            "(DUDESEncoderDecoder, DUDESCascadeEncoderDecoder) or of a teacher (DeepEnsembleSegmentor, "
            "MCDropoutSegmentor)"
        )
    student, weights = load_student(cfg, checkpoint)
    fingerprint = {
        "model": digest(by_content(_without_teacher(cfg))),
        "weights": state_dict_sha256(weights.weights),
        "pipeline": digest(inference_pipeline(cfg)),
    }
    return student.to(get_device()).eval(), fingerprint


def load_student(cfg: Config, checkpoint: str | None) -> tuple[BaseModel, Checkpoint]:
    """The student of a config, or another segmentor of one pass, on the processor; and its weights."""
    kind = MODELS.get(cfg.model.type)
    if isinstance(kind, type) and issubclass(kind, TeacherSegmentor):
        raise ConfigError(f"{cfg.model.type} is a teacher, which needs many passes: give the config of its student")
    if checkpoint is None:
        raise ConfigError("a student needs its weights: name a checkpoint behind the config")
    if not Path(checkpoint).is_file():
        raise ConfigError(f"there is no checkpoint {checkpoint}")
    student, weights = MODELS.build(_without_teacher(cfg)), read_checkpoint(checkpoint)
    check_fits(student, weights)
    if isinstance(student, UncertaintyMixin):
        _check_branch(student, weights)
    load_weights(student, weights)
    return student.eval(), weights


def _without_teacher(cfg: Config) -> dict[str, Any]:
    """The config of a student without what is of use in a training alone."""
    return {key: value for key, value in cfg.model.items() if key != "teacher"}


def _check_branch(student: UncertaintyMixin, checkpoint: Checkpoint) -> None:
    """Raise CheckpointError unless the weights of the branch are there, without which its output would be random."""
    for name, values in student.uncertainty_head.state_dict(prefix="uncertainty_head.").items():
        found = checkpoint.weights.get(name)
        if found is None or found.shape != values.shape or not found.isfinite().all():
            raise CheckpointError(
                f"{checkpoint.path} holds no finite {name} of shape {tuple(values.shape)}: it is not of this student, "
                "which has to be trained first"
            )


def palette_of(cfg: Config, num_classes: int) -> list[list[int]]:
    """The colours of the classes that the config's test set names; it need not be on disk."""
    return [list(colour) for colour in _metainfo(cfg, "palette", num_classes)]


def classes_of(cfg: Config, num_classes: int) -> list[str]:
    """The names of the classes of the config's test set; it need not be on disk."""
    return list(_metainfo(cfg, "classes", num_classes))


def _metainfo(cfg: Config, key: str, num_classes: int) -> list[Any]:
    dataset = inference_dataset(cfg)
    # mmseg's own rules for classes and colours, without what some data sets ask of their folders
    named = type("Named", (BaseSegDataset,), {"METAINFO": getattr(DATASETS.get(dataset.type), "METAINFO", {})})
    values = named(metainfo=dataset.get("metainfo"), lazy_init=True).metainfo.get(key) or ()
    if len(values) != num_classes:
        raise ConfigError(
            f"the data set {dataset.type} of test_dataloader names {len(values)} classes, and the model has "
            f"{num_classes}: set the data set's metainfo to the classes that it was trained on"
        )
    return values


class _Loaded(NamedTuple):
    sha256: str
    pixels: np.ndarray  # RGB (H, W, 3)
    inputs: dict[str, Any]


class _Images(Dataset):
    """Each image by its name, and what a pipeline makes of it; None of a file that cannot be read as an image."""

    def __init__(self, sources: Mapping[str, Path], pipeline: list[dict]) -> None:
        self.sources, self.pipeline = list(sources.items()), Compose(pipeline)

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, number: int) -> tuple[str, _Loaded | None]:
        image, path = self.sources[number]
        try:
            sha256, pixels = file_sha256(path), mmcv.imread(path, channel_order="rgb")
        except (OSError, cv2.error):
            return image, None
        return image, _Loaded(sha256, pixels, self.pipeline({"img_path": str(path), "seg_fields": []}))


@torch.no_grad()
def _prediction(model: BaseModel, inputs: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Predicted classes (H, W) of an image, and their uncertainty (H, W)."""
    [sample] = model.test_step(pseudo_collate([inputs]))
    return sample.pred_sem_seg.data[0].cpu().numpy(), sample.pred_uncertainty.data[0].float().cpu().numpy()
