# DUDES on drawn streets, from random weights like the members.
_base_ = "./streets_member.py"
model = dict(type="DUDESEncoderDecoder")
train_pipeline = _base_.train_pipeline
train_pipeline.insert(2, dict(type="LoadUncertaintyTarget", store="targets/street_scenes"))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_evaluator = _base_.uncertainty_evaluator
