# DUDES from random weights like the members: there are no ImageNet weights at this width.
_base_ = "./deeplabv3plus_r18_camvid-160x160_member.py"
model = dict(type="DUDESEncoderDecoder")
train_pipeline = _base_.train_pipeline
train_pipeline.insert(2, dict(type="LoadUncertaintyTarget", store="targets/camvid"))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_evaluator = _base_.uncertainty_evaluator
