"""Targets on disk, and the hashes that tell what they depend on."""

from .hashing import file_sha256, state_dict_sha256
from .store import TargetStore, TargetStoreError, write_targets
