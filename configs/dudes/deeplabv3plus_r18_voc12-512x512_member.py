# A member of the deep ensemble on Pascal VOC 2012, with the recipe for Cityscapes.
_base_ = [
    "./_base_/default_runtime.py",
    "./_base_/models/deeplabv3plus_r18.py",
    "./_base_/datasets/pascal_voc12_512x512.py",
    "./_base_/schedules/sgd_200_epochs.py",
    "./_base_/uncertainty_evaluators.py",
]
model = dict(data_preprocessor=dict(size=(512, 512)), decode_head=dict(num_classes=21))
test_evaluator = _base_.softmax_evaluator
