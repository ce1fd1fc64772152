# DUDES on drawn streets, from random weights like the members. Expected of three members: mIoU 20.9, mUnc 0.114 (that
# of the teacher 0.133), AUROC of errors 0.808; docs/results.md has the rest.
_base_ = "./streets_member.py"
model = dict(type="DUDESEncoderDecoder")
train_pipeline = _base_.train_pipeline
train_pipeline.insert(2, dict(type="LoadUncertaintyTarget", store="targets/street_scenes"))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_evaluator = _base_.uncertainty_evaluator
