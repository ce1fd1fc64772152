"""Target stores: the uncertainty of a teacher for every image of a data set, written once."""

from collections.abc import Iterator, Sequence
from os.path import abspath, commonpath, relpath
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset, Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.dist import get_dist_info, is_main_process
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from uncertainty_core import state_dict_sha256, write_targets
from uncertainty_core.errors import UserError
from uncertainty_core.targets.top_k import MOST_CLASSES

from ..cli import ConfigError, check_data
from ..models.calibration import KEYS
from ..models.checkpoint import read_checkpoint
from ..models.consensus import FIELDS, both_classes, probabilities_of
from ..models.teacher import TeacherSegmentor
from .check import base_datasets, image_paths
from .codec import CODEC, digest, encode_target, images_digest
from .contents import PAPERS, Contents

# Keys of a teacher's config that do not change what it predicts: where weights are, and what only a training needs.
_INDECISIVE = {
    *("checkpoint", "checkpoints", "resident", "class_wise", "outputs", "ddof"),
    *("auxiliary_head", "init_cfg", "loss_decode", "pretrained", "train_cfg"),
}


def generate_targets(
    cfg: Config, store: str, split: str = "train", contents: Contents = PAPERS, shard_size: int = 50
) -> None:
    """Write the store of a teacher's targets for the images of one of its data sets, or go on where it stopped.

    Images are seen one by one and as at test time, whatever augments the training, and their targets have the size of
    their files. So a target depends on nothing but its image and the teacher, not on the number of processes.

    Args:
        cfg: of a teacher, whose calibrators have no part in it.
        store: folder, made if need be; one that holds other targets is refused.
        split: which of the config's data loaders names the images, "train", "val" or "test".
        contents: what is written of each image.
        shard_size: images per file; what a kill can lose.
    """
    init_default_scope(cfg.get("default_scope") or "mmseg")
    for name, use in ((f"{split}_dataloader", "which images are meant"), ("test_dataloader", "how they are shown")):
        if not cfg.get(name):
            raise ConfigError(f"the config has no {name}, which decides {use}")
    loader = cfg[f"{split}_dataloader"]
    check_data(loader)
    cfg = cfg.copy()
    cfg.model = {key: value for key, value in cfg.model.items() if key not in KEYS}
    cfg.model["outputs"] = contents.outputs
    teacher = build_teacher(cfg, contents.class_wise)
    _check_top_k(contents, teacher)
    pipeline = inference_pipeline(cfg)
    images = _Images(_datasets(loader), pipeline)
    rank, world_size = get_dist_info()

    def make(ids: list[str]) -> Iterator[dict[str, Tensor]]:
        part = Subset(images, [images.position[id_] for id_ in ids])
        inputs = DataLoader(part, batch_size=None, num_workers=loader.get("num_workers", 0), collate_fn=_as_it_is)
        for id_, data in zip(ids, inputs, strict=True):
            [sample] = teacher.test_step(pseudo_collate([data]))
            std = sample.pred_class_uncertainty.data if contents.class_wise else sample.pred_uncertainty.data[0]
            others = {name: sample.get(f"pred_{FIELDS[name]}").data[0].cpu() for name in contents.outputs[1:]}
            mean = both_classes(probabilities_of(sample))[0].cpu() if contents.top_k else None
            yield encode_target(std.cpu(), images.paths[id_], others, mean, contents.top_k)

    write_targets(
        store,
        list(images.paths),
        make,
        target_fingerprint(cfg.model, teacher, pipeline)
        | contents.settings
        | {"images": images_digest(images.paths), "codec": CODEC},
        shard_size,
        rank,
        world_size,
        progress=is_main_process(),
    )


def _check_top_k(contents: Contents, teacher: TeacherSegmentor) -> None:
    if contents.top_k and teacher.num_classes > MOST_CLASSES:
        raise ConfigError(
            f"--top-k: stored probabilities are of {MOST_CLASSES} classes at most, and the teacher has more"
        )


def build_teacher(cfg: Config, class_wise: bool) -> TeacherSegmentor:
    """The teacher of a config, on its device; ConfigError for a config of something else."""
    kind = MODELS.get(cfg.model.type)
    if kind is None or not (isinstance(kind, type) and issubclass(kind, TeacherSegmentor)):
        raise ConfigError(
            f"model.type is {cfg.model.type}, which is no teacher: give the config of a DeepEnsembleSegmentor or an "
            "MCDropoutSegmentor"
        )
    teacher = MODELS.build(cfg.model | {"class_wise": class_wise})
    if class_wise and teacher.out_channels == 1:
        raise ConfigError("a segmentor with a single output has a single uncertainty: leave out --class-wise")
    return teacher.to(get_device()).eval()


def inference_dataset(cfg: Config) -> ConfigDict:
    """The config's test set; the first that is inside, where it repeats or joins others."""
    dataset = cfg.test_dataloader.dataset
    while "pipeline" not in dataset:
        dataset = dataset.get("dataset") or dataset.datasets[0]
    return dataset


def inference_pipeline(cfg: Config) -> list[dict]:
    """How the config shows images to a network that is tested, without the loading of labels."""
    pipeline = inference_dataset(cfg).pipeline
    return [transform for transform in pipeline if transform["type"].split(".")[-1] != "LoadAnnotations"]


def target_fingerprint(model: ConfigDict, teacher: TeacherSegmentor, pipeline: Sequence[dict]) -> dict[str, Any]:
    """JSON values of everything that the target of an image depends on. `model` is the teacher's config."""
    settings = {
        key: digest(_decisive(value)) if isinstance(value, (dict, list, tuple)) else value
        for key, value in model.items()
        if key not in _INDECISIVE
    }
    return (
        settings
        | {
            "members": [state_dict_sha256(read_checkpoint(path).weights) for path in teacher.checkpoints],
            "ddof": teacher.ddof,
            "class_wise": teacher.class_wise,
            "pipeline": digest(list(pipeline)),
        }
        | ({"judges": digest(teacher.held_out)} if getattr(teacher, "held_out", None) else {})
    )


def _decisive(content: Any) -> Any:
    """A config without the keys that do not matter, at any depth."""
    if isinstance(content, dict):
        return {key: _decisive(value) for key, value in content.items() if key not in _INDECISIVE}
    if isinstance(content, (list, tuple)):
        return [_decisive(value) for value in content]
    return content


def _datasets(loader: ConfigDict) -> list[BaseDataset]:
    """The data sets that a loader reads."""
    try:
        return list(base_datasets(DATASETS.build(loader.dataset)))
    except UserError:
        raise
    except (ValueError, OSError) as error:  # as mmengine's about a data set that has no image
        raise ConfigError(
            f"the data set {loader.dataset.type} cannot be read ({error}): check data_root, data_prefix, img_suffix "
            "and ann_file"
        ) from None


class _Images(Dataset):
    """Every image of some data sets once, through one pipeline.

    Attributes:
        paths: of the files, by id: the path below the deepest folder that all of the data sets' image folders are in.
        position: number of each image by id.
    """

    def __init__(self, datasets: Sequence[BaseDataset], pipeline: Sequence[dict]) -> None:
        root = commonpath([abspath(dataset.data_prefix["img_path"]) for dataset in datasets])
        self._found: dict[str, tuple[BaseDataset, int]] = {}
        self.paths: dict[str, str] = {}
        for dataset in datasets:
            dataset.pipeline = Compose(pipeline)
            dataset.test_mode = True  # an image that cannot be read is an error, not a reason to take another one
            for number, path in enumerate(image_paths(dataset)):
                id_ = Path(relpath(path, root)).as_posix()
                self.paths[id_], self._found[id_] = path, (dataset, number)
        self.position = {id_: number for number, id_ in enumerate(self.paths)}
        self._in_order = list(self._found.values())

    def __len__(self) -> int:
        return len(self._in_order)

    def __getitem__(self, position: int) -> dict[str, Any]:
        dataset, number = self._in_order[position]
        return dataset[number]


def _as_it_is(sample: dict) -> dict:
    return sample
