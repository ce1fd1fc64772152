# The ensemble of the snapshots that tools/train_seg.py left in its default work dir.
_base_ = "./deeplabv3plus_r18_camvid-160x160_member.py"
model = dict(
    _delete_=True,
    type="DeepEnsembleSegmentor",
    segmentor=_base_.model,
    checkpoints="work_dirs/deeplabv3plus_r18_camvid-160x160_snapshots/snapshot_*.pth",
)
test_evaluator = _base_.uncertainty_evaluator
