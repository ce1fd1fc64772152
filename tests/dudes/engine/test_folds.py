"""Folds: which images a member never sees, and what that does to settings."""

import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS
from PIL import Image
from tiny_segmentors import segmentor_config

from dudes_mmseg.cli import ConfigError
from dudes_mmseg.engine.claims import training_settings
from dudes_mmseg.engine.folds import leave_out, training_images
from dudes_mmseg.engine.members import make_member, member_claims
from dudes_mmseg.targets.check import image_paths
from uncertainty_core.errors import UserError
from uncertainty_core.sampling.folds import fold_of

COUNT = 40


@pytest.fixture
def cfg(tmp_path):
    """The training of a member on images of two folders."""
    for number in range(COUNT):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(path)
    dataset = {
        "type": "BaseSegDataset",
        "data_prefix": {"img_path": str(tmp_path / "images")},
        "img_suffix": ".png",
        "metainfo": {"classes": list("abcd")},
        "pipeline": [{"type": "LoadImageFromFile"}],
    }
    loader = {"dataset": {"type": "RepeatDataset", "times": 2, "dataset": dataset}}
    content = {"default_scope": "mmseg", "model": segmentor_config(), "train_dataloader": loader}
    return Config(content | {"work_dir": str(tmp_path / "work")})


def seen(cfg):
    """Keys of the images that a training of `cfg` sees."""
    return {
        "/".join(path.split("/")[-2:]) for path in image_paths(DATASETS.build(cfg.train_dataloader.dataset.dataset))
    }


def test_each_image_is_left_out_by_the_members_of_one_fold(cfg):
    everything = set(training_images(cfg))
    assert len(everything) == COUNT
    members = [make_member(cfg, number, 3) for number in range(6)]
    for number, member in enumerate(members):
        assert seen(member.config) == everything - set(member.held_out)
        assert set(member.held_out) == {image for image in everything if fold_of(image, 3) == number % 3}
        assert member.config.randomness["seed"] == number
    left_out = [image for member in members for image in member.held_out]
    assert sorted(left_out) == sorted([*everything, *everything])  # by two of the six
    assert seen(cfg) == seen(make_member(cfg, 0).config) == everything  # none without folds


def test_settings_hold_what_is_left_out_and_are_as_ever_without_folds(cfg):
    plain, folded = (list(member_claims(cfg, range(2), folds).values()) for folds in (0, 2))
    key = "train_dataloader.dataset.dataset.indices"
    assert key not in plain[0] and plain[0] == training_settings(make_member(cfg, 0).config)
    assert sorted(folded[0][key] + folded[1][key]) == list(range(COUNT))
    assert {name for name in folded[0] if folded[0][name] != plain[0].get(name)} == {key}


def test_what_cannot_be_folded(cfg):
    with pytest.raises(UserError, match="40 images are too few for 400 folds"):
        leave_out(cfg.copy(), 0, 400)
    dataset = cfg.train_dataloader.dataset.dataset
    for other in ({"type": "ConcatDataset", "datasets": [dataset, dataset]}, dataset | {"indices": 3}):
        part = cfg.copy()
        part.train_dataloader.dataset = other
        with pytest.raises(ConfigError, match="folds are of one data set, whole"):
            leave_out(part, 0, 2)
