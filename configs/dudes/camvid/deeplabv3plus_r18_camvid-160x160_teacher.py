# The deep ensemble of what tools/train_ensemble.py left in its default work dir.
_base_ = "./deeplabv3plus_r18_camvid-160x160_member.py"
model = dict(
    _delete_=True,
    type="DeepEnsembleSegmentor",
    segmentor=_base_.model,
    checkpoints="work_dirs/deeplabv3plus_r18_camvid-160x160_member/member_*/iter_2000.pth",
)
test_evaluator = _base_.uncertainty_evaluator
