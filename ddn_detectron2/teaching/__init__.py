"""Teachers, and how what they found reaches the student's boxes."""

from .mapper import DDNDatasetMapper
from .sampling import mc_predictions, predict_boxes
from .store import attach_teacher, check_store, generate_targets
from .target_matching import TEACHER_LOGITS, average_logits, gt_targets
from .teacher import EnsembleTeacher, MCDropoutTeacher
