"""CamVid with the eleven classes that it is usually evaluated on."""

from typing import ClassVar

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """CamVid: labels 0 to 10 in the order of `METAINFO`, 255 for void, as PNG; images of the same names.

    As for any `BaseSegDataset`, `data_prefix` names the folders of images and of labels.
    """

    METAINFO: ClassVar[dict] = {
        "classes": (
            "sky",
            "building",
            "pole",
            "road",
            "sidewalk",
            "tree",
            "sign",
            "fence",
            "car",
            "pedestrian",
            "bicyclist",
        ),
        "palette": [
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [60, 40, 222],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
        ],
    }

    def __init__(self, img_suffix: str = ".jpg", seg_map_suffix: str = ".png", **kwargs) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)
