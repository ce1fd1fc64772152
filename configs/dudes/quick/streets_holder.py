# The rival of Holder and Shafique on drawn streets: the uncertainty of every class. Its targets are made --class-wise.
_base_ = "./streets_student.py"
model = dict(uncertainty_head=dict(num_outputs=19))
train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(type="LoadUncertaintyTarget", store="targets/street_scenes-classes")
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
