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
# few steps from random weights: an optimizer that is fast at first, small batches, objects of the size of the test's
optim_wrapper = dict(_delete_=True, type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.005, weight_decay=0.01))
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=0.0, begin=0, end=400, by_epoch=False)]
train_cfg = dict(max_iters=400, val_interval=400)
train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(type="RandomResize", scale=(256, 128), ratio_range=(1.0, 1.0), keep_ratio=True)
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
test_evaluator = _base_.softmax_evaluator
