"""What stands between this package and mmsegmentation: the names of its configs, and what it says about itself."""

import importlib.metadata
import os
import subprocess
import sys
import warnings
from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmseg.registry import MODELS

import dudes_mmseg  # mends the mapping
from dudes_mmseg.compat import silence

ZOO = "mmseg::deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024.py"


def test_the_mapping_names_what_is_installed():
    assert importlib.metadata.version(MODULE2PACKAGE["mmseg"])


def test_a_config_that_inherits_from_mmseg_becomes_a_student(tmp_path):
    path = tmp_path / "student.py"
    path.write_text(
        f"_base_ = {ZOO!r}\n"
        "custom_imports = dict(imports=['dudes_mmseg'])\n"
        "model = dict(type='DUDESEncoderDecoder', pretrained=None, backbone=dict(norm_cfg=dict(type='BN')))\n"
    )
    config = Config.fromfile(path)
    model = MODELS.build(config.model)
    assert type(model).__name__ == "DUDESEncoderDecoder"
    assert model.uncertainty_head.conv.in_channels == model.decode_head.conv_seg.in_channels == 128


FOREIGN = """
from mmengine.config import Config
from mmengine.registry import MODELS

print(MODELS.get("mmseg." + Config.fromfile("my_student.py").model.type).__name__)
"""


def test_mmsegmentations_own_tools_take_a_student_whose_base_is_a_file(tmp_path):
    """So far they read a config in this way; nothing but `custom_imports` imports this package."""
    (tmp_path / "zoo.py").write_text(f"_base_ = {ZOO!r}")
    Config.fromfile(tmp_path / "zoo.py").dump(tmp_path / "my_segmentor.py")
    (tmp_path / "my_student.py").write_text(
        "_base_ = 'my_segmentor.py'\n"
        "custom_imports = dict(imports=['dudes_mmseg'])\n"
        "model = dict(type='DUDESEncoderDecoder', pretrained=None)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(dudes_mmseg.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", FOREIGN], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1:] == ["DUDESEncoderDecoder"], done.stderr


def test_only_the_chatter_of_the_frameworks_is_silenced():
    def said(quiet):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if quiet:
                silence()
            MODELS.build({"type": "mmseg.CrossEntropyLoss"})
            warnings.warn("the images have no labels", stacklevel=1)
        return [str(warning.message)[:20] for warning in caught]

    assert said(quiet=False) == ["Default ``avg_non_ig", "the images have no l"]
    assert said(quiet=True) == ["the images have no l"]
