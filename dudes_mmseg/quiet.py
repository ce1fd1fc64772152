"""mmsegmentation and mmengine without what they say about themselves and no user can do anything about."""

import io
import warnings
from contextlib import redirect_stdout

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


# Imported here first, they have nothing left to say to whoever imports them later.
with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
    silence()
    import mmseg.datasets
    import mmseg.models  # noqa: F401
