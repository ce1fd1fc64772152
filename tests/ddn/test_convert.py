"""From every config of Detectron2's model zoo to its distilled form and back; and the configs of this package."""

import functools
import glob
import re
from pathlib import Path

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.modeling import GeneralizedRCNN, build_model
from tiny_detectors import CONFIGS, shrink, tiny_config

from ddn_detectron2.config import ConfigError, add_ddn_config, check_ddn_config, dropout_positions
from ddn_detectron2.convert import is_ddn, to_ddn, to_plain
from ddn_detectron2.modeling.rcnn import DDNRCNN
from uncertainty_core import dropout_modules

ZOO = Path(model_zoo.__file__).parent / "configs"
NAMES = sorted(str(path.relative_to(ZOO)) for path in map(Path, glob.glob(f"{ZOO}/**/*.yaml", recursive=True)))
SHIPPED = Path(__file__).resolve().parents[2] / "configs" / "ddn"
SHIPPED_NAMES = sorted(str(path.relative_to(SHIPPED)) for path in SHIPPED.rglob("*.yaml") if "_base_" not in path.parts)
# One of each kind of model and of box head; deformable convolutions need Detectron2's C++ sources.
BUILT = [
    "COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml",
    "COCO-Detection/faster_rcnn_R_101_DC5_3x.yaml",
    "COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x.yaml",
    "COCO-InstanceSegmentation/mask_rcnn_R_101_C4_3x.yaml",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x_giou.yaml",
    "COCO-Keypoints/keypoint_rcnn_R_101_FPN_3x.yaml",
    "Misc/cascade_mask_rcnn_R_50_FPN_3x.yaml",
    "Misc/mask_rcnn_R_50_FPN_1x_cls_agnostic.yaml",
    "Misc/scratch_mask_rcnn_R_50_FPN_3x_gn.yaml",
    "PascalVOC-Detection/faster_rcnn_R_50_C4.yaml",
]


@functools.cache
def read(name):
    return model_zoo.get_config(name)


def load(name):
    """A config of the zoo, to be changed."""
    return read(name).clone()


def families():
    """Names that can be distilled, and those that cannot, judged by the config alone."""
    known = {"Res5ROIHeads", "StandardROIHeads", "CascadeROIHeads"}
    groups = [], []
    for name in NAMES:
        cfg = load(name)
        fits = cfg.MODEL.META_ARCHITECTURE in ("GeneralizedRCNN", "PanopticFPN") and cfg.MODEL.ROI_HEADS.NAME in known
        groups[0 if fits else 1].append(name)
    return groups


SUPPORTED, OTHERS = families()


def test_the_zoo_is_where_we_look():
    assert len(SUPPORTED) >= 50
    assert len(OTHERS) >= 10
    assert set(BUILT) | set(CONFIGS.values()) <= set(SUPPORTED)


@pytest.mark.parametrize("name", SUPPORTED)
def test_configs_convert_there_and_back(name):
    cfg = load(name)
    ddn = to_ddn(cfg)
    assert is_ddn(ddn)
    assert not is_ddn(cfg)  # which stays as it was
    assert ddn.MODEL.ROI_HEADS.NAME.removeprefix("DDN") == cfg.MODEL.ROI_HEADS.NAME
    check_ddn_config(ddn)
    assert to_plain(ddn) == cfg == load(name)
    # what differs is named in the documentation of to_ddn, and nothing else
    differing = {key for key in ddn.MODEL if key == "DDN" or ddn.MODEL[key] != cfg.MODEL[key]}
    assert differing <= {"META_ARCHITECTURE", "ROI_HEADS", "ROI_BOX_HEAD", "DDN"}
    assert all(ddn[key] == cfg[key] for key in cfg if key != "MODEL")


@pytest.mark.parametrize("name", OTHERS)
def test_other_families_are_refused(name):
    with pytest.raises(
        ConfigError, match=r"^MODEL\.[A-Z_.]+ is '\w+': only models with \w+(?: or \w+)* can be distilled$"
    ):
        to_ddn(load(name))


def test_converting_twice_is_converting_once():
    cfg = to_ddn(load(CONFIGS["FPN"]))
    cfg.MODEL.DDN.DD_WEIGHT = 3.0
    assert to_ddn(cfg) == cfg


def test_keys_that_are_set_already_are_kept():
    cfg = load(CONFIGS["FPN"])
    add_ddn_config(cfg)
    cfg.MODEL.DDN.TARGETS.IOU = 0.7
    assert to_ddn(cfg).MODEL.DDN.TARGETS.IOU == 0.7


def test_frozen_configs_convert_too():
    cfg = load(CONFIGS["C4"])
    cfg.freeze()
    assert is_ddn(to_ddn(cfg))
    assert cfg.is_frozen()
    assert to_plain(to_ddn(cfg)) == cfg


@pytest.mark.parametrize("name", BUILT)
def test_models_of_the_zoo_build_with_the_same_weights(name):
    cfg = load(name)
    groups, norm = cfg.MODEL.RESNETS.NUM_GROUPS, cfg.MODEL.ROI_BOX_HEAD.NORM
    shrink(cfg)
    cfg.MODEL.RESNETS.NUM_GROUPS = min(groups, 4)
    if norm == "GN":  # 32 groups
        cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = cfg.MODEL.RESNETS.WIDTH_PER_GROUP = (
            cfg.MODEL.RESNETS.RES2_OUT_CHANNELS
        ) = 32
        cfg.MODEL.FPN.OUT_CHANNELS = cfg.MODEL.ROI_BOX_HEAD.CONV_DIM = cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 32
    plain, ddn = build_model(cfg), build_model(to_ddn(cfg))
    assert isinstance(ddn, DDNRCNN)
    assert type(plain) is type(build_model(to_plain(to_ddn(cfg)))) is GeneralizedRCNN
    assert {k: v.shape for k, v in ddn.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    assert dropout_modules(ddn)
    assert not dropout_modules(plain)
    assert any(value.requires_grad for value in ddn.parameters())


# --- the configs of this package ---------------------------------------------------------------------------------


def shipped(name):
    cfg = get_cfg()
    add_ddn_config(cfg)
    cfg.merge_from_file(str(SHIPPED / name))
    if cfg.MODEL.DDN.TARGETS.SOURCE == "store":
        cfg.MODEL.DDN.TARGETS.STORE = "targets"  # named on the command line
    return cfg


def baseline_of(name):
    """The name of the config that trains what `name` distils."""
    return re.sub("_(gt_iou|control|kl)", "", re.sub("(ddn|finetuned|member)_", "baseline_", name))


def test_there_are_configs():
    assert {"ddn_R50.yaml", "ddn_R101.yaml", "ddn_R50_FPN.yaml", "ddn_R101_FPN.yaml"} <= set(SHIPPED_NAMES)
    assert {baseline_of(name) for name in SHIPPED_NAMES} <= set(SHIPPED_NAMES)


@pytest.mark.parametrize("name", SHIPPED_NAMES)
def test_configs_load_and_build(name):
    cfg = shipped(name)
    assert is_ddn(cfg) != Path(name).name.startswith("baseline")
    if is_ddn(cfg):
        check_ddn_config(cfg)
    # real widths, without the memory: the weights are nowhere
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        model = build_model(cfg)
    assert type(model).__name__ == cfg.MODEL.META_ARCHITECTURE
    assert bool(dropout_modules(model)) == is_ddn(cfg)


@pytest.mark.parametrize("name", [name for name in SHIPPED_NAMES if "baseline" not in name])
def test_a_ddn_config_and_its_baseline_are_one_network(name):
    ddn, baseline = shipped(name), shipped(baseline_of(name))
    network = ("BACKBONE", "FPN", "RESNETS", "RPN", "ANCHOR_GENERATOR", "PIXEL_MEAN", "PIXEL_STD", "MASK_ON")
    assert {key: ddn.MODEL[key] for key in network} == {key: baseline.MODEL[key] for key in network}
    assert to_plain(ddn).MODEL.ROI_BOX_HEAD == baseline.MODEL.ROI_BOX_HEAD
    assert to_plain(ddn).MODEL.ROI_HEADS.NAME == baseline.MODEL.ROI_HEADS.NAME
    assert ddn.INPUT == baseline.INPUT


@pytest.mark.parametrize("name", ["ddn_R50.yaml", "ddn_R101.yaml", "ddn_R50_FPN.yaml", "ddn_R101_FPN.yaml"])
def test_the_papers_values(name):
    cfg = shipped(name)
    ddn, solver = cfg.MODEL.DDN, cfg.SOLVER
    assert (solver.BASE_LR, solver.IMS_PER_BATCH, solver.MAX_ITER, solver.WEIGHT_DECAY) == (0.001, 1, 1000, 0.0005)
    assert (ddn.TARGETS.MC_SAMPLES, ddn.TARGETS.IOU, ddn.DD_WEIGHT, ddn.GT_WEIGHT) == (10, 0.5, 0.5, 1.0)
    assert ddn.TARGETS.MATCH == "gt_iou"
    assert cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE == 128
    assert f"R{cfg.MODEL.RESNETS.DEPTH}" in name


def test_positions_of_the_zoo():
    expected = {
        "C4": ("residual",),
        "DC5": ("fc1",),
        "FPN": ("fc1",),
        "MaskC4": ("residual",),
        "MaskFPN": ("fc1",),
        "Keypoint": ("fc1",),
        "Cascade": ("fc1",),
    }
    assert {name: dropout_positions(tiny_config(name)) for name in CONFIGS} == expected
