"""Data sets: CamVid, drawn streets that need no download, images without labels; a check of a Cityscapes tree."""

from .camvid import CamVidDataset
from .cityscapes_tree import check_cityscapes
from .street_dataset import StreetScenesDataset
from .street_folder import NUM_STREETS, write_streets
from .streets import Street, draw_street
from .unlabelled import LoadNoAnnotations, WithUnlabelledImages, with_unlabelled_images
