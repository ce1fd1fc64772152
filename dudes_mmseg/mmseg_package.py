"""Configs that inherit from `mmseg::` under either name that mmsegmentation is distributed by."""

from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import is_installed

CONTINUATION = "onedl-mmsegmentation"


def find_mmseg_configs() -> None:
    """Tell mmengine where `mmseg::` bases are, if only the maintained continuation of mmsegmentation is installed.

    mmengine looks for a distribution by its original name alone, and reads the bases of a config before it heeds
    `custom_imports`: a program that shall read such a config imports this package first.
    """
    if is_installed(CONTINUATION) and not is_installed("mmsegmentation"):
        MODULE2PACKAGE["mmseg"] = CONTINUATION


find_mmseg_configs()
