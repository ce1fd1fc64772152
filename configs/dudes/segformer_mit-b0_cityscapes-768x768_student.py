# Another architecture, another optimiser, the same branch: SegFormer learns the uncertainty of the DeepLabV3+ ensemble.
_base_ = [
    "./_base_/default_runtime.py",
    "./_base_/models/segformer_mit-b0.py",
    "./_base_/datasets/cityscapes_768x768.py",
    "./_base_/schedules/sgd_200_epochs.py",
    "./_base_/uncertainty_evaluators.py",
]
model = dict(
    type="DUDESEncoderDecoder",
    backbone=dict(
        init_cfg=dict(
            type="Pretrained",
            checkpoint="https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/segformer/mit_b0_20220624-7e0fe6dd.pth",
        )
    ),
)
train_pipeline = _base_.train_pipeline
train_pipeline.insert(2, dict(type="LoadUncertaintyTarget", store="targets/cityscapes"))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=0.00006, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(custom_keys=dict(pos_block=dict(decay_mult=0.0), norm=dict(decay_mult=0.0))),
)
test_evaluator = _base_.uncertainty_evaluator
