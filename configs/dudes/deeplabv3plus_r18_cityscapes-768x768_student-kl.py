# Beyond DUDES: the same student also learns the members' mean probabilities, and three more outputs. Its targets:
#   distilled-uncertainty generate-targets --task segmentation deeplabv3plus_r18_cityscapes-768x768_teacher.py \
#       --store targets/cityscapes-kl --outputs std entropy mutual_information --top-k 3
_base_ = "./deeplabv3plus_r18_cityscapes-768x768_student.py"
model = dict(
    uncertainty_head=dict(outputs=["std", "entropy", "mutual_information", "error"]),
    loss_distillation=dict(type="MeanProbabilityLoss", loss_weight=3.0),
)
train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(type="LoadUncertaintyTarget", store="targets/cityscapes-kl")
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
