"""Target stores: the teacher's logits for every ground-truth box of a data set, written once."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, MapDataset
from detectron2.modeling import GeneralizedRCNN
from detectron2.utils import comm
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from uncertainty_core import TargetStore, TargetStoreError, derive_seed, state_dict_sha256, write_targets
from uncertainty_core.io.claims import without
from uncertainty_core.io.strict_json import strict_json
from uncertainty_core.sampling.folds import read_held_out

from ..boxes import without_box_std
from ..config import NEVER_DECISIVE, all_settings, dropout_positions
from .mapper import corner_boxes, not_crowd
from .teacher import EnsembleTeacher, MCDropoutTeacher

# Keys, or whole sections, that change no target of a teacher whose weights are the same. All others are decisive, those
# that a later Detectron2 adds among them.
_HARMLESS = (
    *NEVER_DECISIVE,
    # the training of students
    *("SEED", "SOLVER", "DATALOADER", "MODEL.BACKBONE.FREEZE_AT", "TEST.PRECISE_BN"),
    *(f"INPUT.{key}" for key in ("MIN_SIZE_TRAIN", "MIN_SIZE_TRAIN_SAMPLING", "MAX_SIZE_TRAIN", "CROP", "RANDOM_FLIP")),
    *(f"MODEL.DDN.{key}" for key in ("LOSS", "DD_WEIGHT", "GT_WEIGHT", "FREEZE", "FRESH_HEAD")),
    *("MODEL.DDN.BOX_STD", "MODEL.DDN.BOX_STD_LOSS"),
    *(f"MODEL.DDN.TARGETS.{key}" for key in ("SOURCE", "MATCH", "SHARE", "MISSING")),
    *(
        f"MODEL.{part}.{key}"
        for part in ("RPN", "ROI_HEADS")
        for key in ("BATCH_SIZE_PER_IMAGE", "POSITIVE_FRACTION", "IOU_THRESHOLDS", "IOU_LABELS")
    ),
    *("MODEL.RPN.PRE_NMS_TOPK_TRAIN", "MODEL.RPN.POST_NMS_TOPK_TRAIN"),
)
_OF_DROPOUT = ("MODEL.DDN.DROPOUT", "MODEL.DDN.TARGETS.MC_SAMPLES", "MODEL.DDN.TARGETS.SEED")


def dataset_fingerprint(dicts: Sequence[dict]) -> str:
    """A number that changes with anything in the data set that targets depend on; 16 hexadecimal digits.

    It comes from image ids, sizes, boxes and classes, not from paths or from how a json file is formatted.
    """
    parts: list[int | str] = []
    for image in dicts:
        parts += [str(image["image_id"]), image["height"], image["width"]]
        for annotation in not_crowd(image["annotations"]):
            parts.append(annotation["category_id"])
        parts.append(repr(corner_boxes(not_crowd(image["annotations"])).tolist()))
    return f"{derive_seed(*parts):016x}"


def target_fingerprint(cfg: CfgNode, model: GeneralizedRCNN, dicts: Sequence[dict]) -> dict[str, Any]:
    """JSON values of everything that targets depend on. `model` has a teacher, and its own weights are the start's."""
    teacher = model.roi_heads.teacher
    fingerprint = decisive_settings(cfg) | {
        "student": state_dict_sha256(frozen_part(model)),
        "annotations": dataset_fingerprint(dicts),
    }
    if isinstance(teacher, EnsembleTeacher):
        folds = {"held_out": f"{derive_seed(strict_json(teacher.held_out)):016x}"} if teacher.held_out else {}
        members = [state_dict_sha256(without_box_std(member.state_dict())) for member in teacher.module]
        return fingerprint | {"ensemble": members} | folds
    return fingerprint | {"teacher": state_dict_sha256(without_box_std(teacher.module.state_dict()))}


def decisive_settings(cfg: CfgNode) -> dict[str, Any]:
    """The config's values, by their whole names, that targets of the same weights and images depend on."""
    decisive = without(all_settings(cfg), _HARMLESS)
    if cfg.MODEL.DDN.TEACHER.WEIGHTS:
        return without(decisive, _OF_DROPOUT)
    return decisive | {"MODEL.DDN.DROPOUT.POSITIONS": list(dropout_positions(cfg))}


def frozen_part(model: GeneralizedRCNN) -> dict[str, Tensor]:
    """The weights of what decides proposals."""
    return {k: v for k, v in model.state_dict().items() if not k.startswith("roi_heads.")}


def attach_teacher(cfg: CfgNode, model: GeneralizedRCNN, members: Sequence[GeneralizedRCNN] = ()) -> None:
    """Give the ROI heads of `model` their teacher: the ensemble `members`, or Monte-Carlo dropout of their weights."""
    heads = model.roi_heads
    if members:
        of_teacher = cfg.MODEL.DDN.TEACHER
        held_out = read_held_out(of_teacher.WEIGHTS) if of_teacher.OUT_OF_FOLD else None
        heads.teacher = EnsembleTeacher(members, model.backbone, held_out)
    else:
        heads.teacher = MCDropoutTeacher(heads, cfg.MODEL.DDN.TARGETS.MC_SAMPLES, cfg.MODEL.DDN.TARGETS.SEED)


class _WithBoxes(DatasetMapper):
    """Images as they are at test time, with the ground-truth boxes (G, 4) at that scale."""

    def __call__(self, dataset_dict: dict) -> dict:
        mapped = super().__call__(dataset_dict)
        height, width = mapped["image"].shape[1:]
        scale = torch.tensor([width / dataset_dict["width"], height / dataset_dict["height"]]).repeat(2)
        boxes = corner_boxes(not_crowd(dataset_dict["annotations"]))
        return mapped | {"boxes": boxes, "gt_boxes": boxes * scale}


def _as_it_is(sample: dict) -> dict:
    return sample


def generate_targets(cfg: CfgNode, model: GeneralizedRCNN, dicts: Sequence[dict], shard_size: int = 500) -> None:
    """Write the store `TARGETS.STORE` for the images `dicts`, or go on where an earlier call stopped.

    Each image is seen alone and as at test time, so its targets depend neither on its neighbours nor on the number of
    processes: "logits" (G, K + 1), "found" (G,), the number of passes that detected the box, and "boxes" (G, 4).
    """
    settings, teacher = cfg.MODEL.DDN.TARGETS, model.roi_heads.teacher
    position = {image["image_id"]: number for number, image in enumerate(dicts)}
    dataset = MapDataset(list(dicts), _WithBoxes(cfg, is_train=False))

    @torch.no_grad()
    def targets_of(inputs: dict) -> dict[str, Tensor]:
        images = model.preprocess_image([inputs])
        features = model.backbone(images.tensor)
        proposals = (
            model.proposal_generator(images, features, None)[0]
            if model.proposal_generator is not None
            else [inputs["proposals"].to(model.device)]
        )
        [(logits, found)] = teacher.on_ground_truth(
            images,
            features,
            proposals,
            [inputs["gt_boxes"].to(model.device)],
            iou_threshold=settings.IOU,
            score_threshold=settings.SCORE_THRESH,
            average=settings.AVERAGE,
            keys=[inputs["image_id"]],
        )
        return {"logits": logits.float().cpu(), "found": found.cpu(), "boxes": inputs["boxes"]}

    def make(ids: list[int | str]) -> Iterator[dict[str, Tensor]]:
        part = Subset(dataset, [position[image_id] for image_id in ids])
        loader = DataLoader(part, batch_size=None, num_workers=cfg.DATALOADER.NUM_WORKERS, collate_fn=_as_it_is)
        for inputs in loader:
            yield targets_of(inputs)

    model.eval()
    write_targets(
        settings.STORE,
        [image["image_id"] for image in dicts],
        make,
        target_fingerprint(cfg, model, dicts),
        shard_size,
        comm.get_rank(),
        comm.get_world_size(),
        progress=comm.is_main_process(),
    )


def check_store(cfg: CfgNode, model: GeneralizedRCNN, dicts: Sequence[dict]) -> None:
    """Before a training that reads targets: raise TargetStoreError unless the store is whole and for this very use.

    With `TARGETS.MISSING` "ground_truth" the store may be of another selection of the images.
    """
    settings = cfg.MODEL.DDN.TARGETS
    fingerprint = target_fingerprint(cfg, model, dicts)
    if settings.MISSING == "ground_truth":
        store = TargetStore(settings.STORE)
        selection = {"DATASETS.TRAIN", "annotations"}
        fingerprint |= {key: store.fingerprint[key] for key in selection & store.fingerprint.keys()}
    store = TargetStore(settings.STORE, fingerprint)
    missing = [image["image_id"] for image in dicts if image["image_id"] not in store]
    if missing and settings.MISSING == "error":
        raise TargetStoreError(
            f"{settings.STORE} lacks {len(missing)} of {len(dicts)} images, the first being {missing[0]}: generate "
            "targets for this data set, or set MODEL.DDN.TARGETS.MISSING to 'ground_truth' to train on its labels alone"
        )
