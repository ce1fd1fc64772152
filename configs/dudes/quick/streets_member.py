# A quarter of the paper's width, on drawn streets.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/models/deeplabv3plus_r18.py",
    "../_base_/datasets/street_scenes_128x128.py",
    "../_base_/schedules/sgd_iterations.py",
    "../_base_/uncertainty_evaluators.py",
]
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(base_channels=16, stem_channels=16),
    decode_head=dict(in_channels=128, c1_in_channels=16, c1_channels=12, channels=64),
)
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=0.0, begin=0, end=300, by_epoch=False)]
train_cfg = dict(max_iters=300, val_interval=300)
test_evaluator = _base_.softmax_evaluator
