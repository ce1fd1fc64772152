# Fine-tunes a trained member towards the mean probabilities of all members, on the very crops that it sees: a store
# teaches worse (docs/results.md).
_base_ = "./deeplabv3plus_r18_camvid-160x160_member.py"
members = "work_dirs/deeplabv3plus_r18_camvid-160x160_member"
load_from = f"{members}/member_0/iter_2000.pth"
model = dict(
    type="DUDESEncoderDecoder",
    uncertainty_head=dict(outputs=["std", "entropy", "mutual_information", "error"]),
    loss_distillation=dict(type="MeanProbabilityLoss", loss_weight=3.0),
    teacher=dict(type="DeepEnsembleSegmentor", segmentor=_base_.model, checkpoints=f"{members}/member_*/iter_2000.pth"),
)
optim_wrapper = dict(optimizer=dict(lr=0.001))
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=0.0, begin=0, end=500, by_epoch=False)]
train_cfg = dict(max_iters=500, val_interval=500)
test_evaluator = _base_.uncertainty_evaluator
