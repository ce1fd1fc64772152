"""Configs that inherit from `mmseg::`."""

import importlib.metadata

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmseg.registry import MODELS

import dudes_mmseg  # noqa: F401 (mends the mapping)


def test_the_mapping_names_what_is_installed():
    assert importlib.metadata.version(MODULE2PACKAGE["mmseg"])


def test_a_config_that_inherits_from_mmseg_becomes_a_student(tmp_path):
    path = tmp_path / "student.py"
    path.write_text(
        "_base_ = 'mmseg::deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024.py'\n"
        "custom_imports = dict(imports=['dudes_mmseg'])\n"
        "model = dict(type='DUDESEncoderDecoder', pretrained=None, backbone=dict(norm_cfg=dict(type='BN')))\n"
    )
    config = Config.fromfile(path)
    model = MODELS.build(config.model)
    assert type(model).__name__ == "DUDESEncoderDecoder"
    assert model.uncertainty_head.conv.in_channels == model.decode_head.conv_seg.in_channels == 128
