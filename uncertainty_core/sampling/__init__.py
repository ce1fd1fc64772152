"""Teachers that sample: Monte-Carlo dropout, ensembles, and modules that training leaves alone."""

from .ensemble import EnsemblePrediction, ensemble
from .frozen import Frozen
from .mc_dropout import (
    derive_seed,
    drawn_dropout,
    dropout_modules,
    masks_by_row,
    masks_of_shard,
    mc_dropout,
    mc_mean_std,
    split_at_dropout,
)
