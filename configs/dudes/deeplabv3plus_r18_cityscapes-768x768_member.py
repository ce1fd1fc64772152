# A member of the deep ensemble: random weights, 200 epochs, batches of 16. tools/train_ensemble.py trains ten.
_base_ = [
    "./_base_/default_runtime.py",
    "./_base_/models/deeplabv3plus_r18.py",
    "./_base_/datasets/cityscapes_768x768.py",
    "./_base_/schedules/sgd_200_epochs.py",
    "./_base_/uncertainty_evaluators.py",
]
test_evaluator = _base_.softmax_evaluator
