"""Training, checkpoints, the whole pipeline from a detector to its student, and export."""

from .checkpoint import SafeCheckpointer
from .export import export_plain, export_torchscript
from .pipeline import compare, distil
from .trainer import DDNTrainer, build_with_teacher
