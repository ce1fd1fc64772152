"""Detectron2 trains and tests as on any machine, but says nothing; a tiny data set, and a detector to distil."""

import logging
from types import SimpleNamespace

import pytest
import torch
from detectron2.modeling import build_model
from tiny_detectors import give_moderate_weights, images, small_config, write_small_config

from ddn_detectron2.data import register_coco_format, write_scenes


@pytest.fixture(autouse=True)
def same_random_numbers():
    """A test that draws from the global state draws the same each time."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def quiet():
    """Detectron2 reports on every tiny model that is built."""
    logging.getLogger("detectron2").setLevel(logging.ERROR)
    logging.getLogger("fvcore").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A few drawn scenes, as tiny_train and tiny_val, and the quick configs made tinier. Not to be changed.

    `baseline` and `ddn` are config files, `weights` is what is distilled, `data` the arguments that name the scenes.
    """
    folder = tmp_path_factory.mktemp("small")
    data = []
    for split, count in (("train", 9), ("val", 4)):
        path = write_scenes(folder / "scenes", split, count, progress=False)
        register_coco_format(f"tiny_{split}", path, folder / "scenes" / split)
        data += [f"--{split}-json", path, f"--{split}-images", folder / "scenes" / split]
    files = {kind: write_small_config(folder, kind, "tiny_train", "tiny_val") for kind in ("baseline", "ddn")}
    small = SimpleNamespace(folder=folder, data=data, weights=folder / "weights.pth", **files)
    model = give_moderate_weights(build_model(small_config(small.baseline)), images())
    torch.save({"model": model.state_dict()}, small.weights)
    return small


@pytest.fixture
def config(small, tmp_path):
    """Makes a config of `small`, ddn unless said otherwise, that distils its weights and writes under tmp_path."""

    def make(*options, kind="ddn"):
        basics = ("MODEL.WEIGHTS", small.weights, "OUTPUT_DIR", tmp_path / "output")
        return small_config(getattr(small, kind), *basics, *options)

    return make
