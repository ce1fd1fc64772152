# The rival of Holder and Shafique (2021): the uncertainty of every class, not only of the predicted one. Its targets:
#   distilled-uncertainty generate-targets --task segmentation \
#       deeplabv3plus_r18_cityscapes-768x768_teacher.py \
#       --store targets/cityscapes-classes --class-wise
_base_ = "./deeplabv3plus_r18_cityscapes-768x768_student.py"
model = dict(uncertainty_head=dict(num_outputs=19))
train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(type="LoadUncertaintyTarget", store="targets/cityscapes-classes")
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
