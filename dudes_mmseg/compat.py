"""mmsegmentation and mmengine as they are distributed: chatter that no user can act on, and `mmseg::` bases.

The package imports this module before anything else of mmsegmentation's.
"""

import io
import warnings
from contextlib import redirect_stdout

from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import is_installed

CONTINUATION = "onedl-mmsegmentation"
_CHATTER = (
    ("mmcv", "Fail to import ``MultiScaleDeformableAttention``"),
    ("mmengine", ".* instance named of .* has been created"),
    ("mmseg", "Default ``avg_non_ignore`` is False"),
    ("mmseg", "The draw is False"),
)


def silence() -> None:
    """Never show these warnings from now on; for programs."""
    for module, beginning in _CHATTER:
        warnings.filterwarnings("ignore", beginning, module=module)


def find_mmseg_configs() -> None:
    """Tell mmengine where `mmseg::` bases are, if only the maintained continuation of mmsegmentation is installed.

    mmengine looks for a distribution by its original name alone, and reads the bases of a config before it heeds
    `custom_imports`: a program that shall read such a config imports this package first.
    """
    if is_installed(CONTINUATION) and not is_installed("mmsegmentation"):
        MODULE2PACKAGE["mmseg"] = CONTINUATION


# Imported here first, they have nothing left to say to whoever imports them later.
with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
    silence()
    import mmseg.datasets
    import mmseg.models  # noqa: F401

find_mmseg_configs()
