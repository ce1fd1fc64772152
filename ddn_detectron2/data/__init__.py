"""Data sets: the drawn scenes that need no download, and anybody's COCO-format files, checked before they are used."""

from .coco_check import DatasetError, check_coco, check_images
from .datasets import (
    check_num_classes,
    check_on_disk,
    check_same_categories,
    register_coco_format,
    register_own,
    register_scenes,
)
from .scenes import write_scenes
from .unlabelled import register_unlabelled, unlabelled_dicts
