"""Arithmetic on streams: exact sums, running moments, and inputs cut into parts that fit the cache."""

from .chunks import chunk_length, class_cells, pieces, split_void
from .dtypes import at_least_float32
from .exact_sums import from_limbs, group_counts, group_sums, to_limbs, total_limbs, whole_limbs
from .moments import RunningMoments
