"""From the config of a detector to its distilled form, and back; `lazy` registers what is different for LazyConfigs."""

from . import lazy
from .yacs import is_ddn, to_ddn, to_plain
