"""CamVid as a data set of mmsegmentation."""

import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from dudes_mmseg import CamVidDataset

init_default_scope("mmseg")

CLASSES = ("sky", "building", "pole", "road", "sidewalk", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")


def test_classes_and_colours():
    assert CamVidDataset.METAINFO["classes"] == CLASSES
    palette = CamVidDataset.METAINFO["palette"]
    assert len({tuple(colour) for colour in palette}) == len(palette) == len(CLASSES)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_images_and_labels_are_paired_by_name(tmp_path, suffix):
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    labels[labels == 11] = 255
    for number in range(2):
        for kind, end, values in (("images", suffix, np.full((3, 4, 3), number)), ("annotations", ".png", labels)):
            folder = tmp_path / kind / "train"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(folder / f"0001TP_{number}{end}")
    dataset = DATASETS.build(
        {
            "type": "CamVidDataset",
            "data_root": str(tmp_path),
            "data_prefix": {"img_path": "images/train", "seg_map_path": "annotations/train"},
            "img_suffix": suffix,
            "pipeline": [{"type": kind} for kind in ("LoadImageFromFile", "LoadAnnotations", "PackUncertaintyInputs")],
        }
    )
    assert len(dataset) == 2
    for number, sample in enumerate(dataset):
        assert (sample["inputs"] == number).all()
        assert np.array_equal(sample["data_samples"].gt_sem_seg.data[0].numpy(), labels)
