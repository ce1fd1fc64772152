# Beyond DUDES: the same student also learns the members' mean probabilities, and three more outputs. With
# these weights it is worse than its baseline (docs/results.md). Its targets:
#   distilled-uncertainty generate-targets --task segmentation camvid/deeplabv3plus_r18_camvid-160x160_teacher.py \
#       --store targets/camvid-kl --outputs std entropy mutual_information --top-k 3
_base_ = "./deeplabv3plus_r18_camvid-160x160_student.py"
model = dict(
    uncertainty_head=dict(outputs=["std", "entropy", "mutual_information", "error"]),
    loss_distillation=dict(type="MeanProbabilityLoss", loss_weight=3.0),
)
train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(type="LoadUncertaintyTarget", store="targets/camvid-kl")
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
