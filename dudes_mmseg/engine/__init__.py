"""Training, ensembles, evaluation, and the whole pipeline from a config to a student."""

from .evaluation import evaluate
from .members import train_members
from .pipeline import compare, distil
from .training import train, train_once
