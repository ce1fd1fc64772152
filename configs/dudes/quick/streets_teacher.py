# The deep ensemble of what tools/train_ensemble.py left in its default work dir.
_base_ = "./streets_member.py"
model = dict(
    _delete_=True,
    type="DeepEnsembleSegmentor",
    segmentor=_base_.model,
    checkpoints="work_dirs/streets_member/member_*/iter_400.pth",
)
test_evaluator = _base_.uncertainty_evaluator
