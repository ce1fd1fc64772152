# DUDES: the baseline with 257 parameters more, which learn the ensemble's uncertainty from stored targets:
#   distilled-uncertainty generate-targets --task segmentation \
#       deeplabv3plus_r18_cityscapes-768x768_teacher.py \
#       --store targets/cityscapes
_base_ = "./deeplabv3plus_r18_cityscapes-768x768_baseline.py"
model = dict(type="DUDESEncoderDecoder")
train_pipeline = _base_.train_pipeline
train_pipeline.insert(2, dict(type="LoadUncertaintyTarget", store="targets/cityscapes"))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_evaluator = _base_.uncertainty_evaluator
