# Half the paper's width (but its decoder's 256 channels), small crops of half-size images: for a CPU.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/models/deeplabv3plus_r18.py",
    "../_base_/datasets/camvid_160x160.py",
    "../_base_/schedules/sgd_iterations.py",
    "../_base_/uncertainty_evaluators.py",
]
model = dict(
    data_preprocessor=dict(size=(160, 160)),
    backbone=dict(base_channels=32, stem_channels=32),
    decode_head=dict(in_channels=256, c1_in_channels=32, num_classes=11),
)
test_evaluator = _base_.softmax_evaluator
