"""Stored targets: written once by a teacher, coded in 16 bits, and carried through augmentation with their image."""

from .check import CheckTargetsHook
from .codec import encode_target, read_target
from .contents import Contents
from .generate import generate_targets
from .transforms import LoadUncertaintyTarget, MarkRealPixels, PackUncertaintyInputs, Pad
