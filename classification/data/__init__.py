"""Images in memory: data sets by name or from a folder, their splits, and what is done to a batch on its way in.

These data sets are small, so a data set is a few tensors: there is no loader and no worker. Nothing here touches the
global random state: splits are decided by hashes of the images' ids, augmentation draws from the generator it is given.
"""

from .batches import adapt, channel_statistics, drop_pixels, random_crop, random_flip, resize, to_float
from .folders import unlabelled
from .image_set import SPLITS, DataError, ImageSet
from .named import load
from .splits import TEST_FRACTION, stratified_split
