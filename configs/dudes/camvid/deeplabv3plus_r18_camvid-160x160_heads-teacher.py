# The ensemble of the heads that tools/train_seg.py left in its default work dir.
_base_ = "./deeplabv3plus_r18_camvid-160x160_heads.py"
model = dict(
    _delete_=True,
    type="HeadEnsembleSegmentor",
    segmentor=_base_.model,
    checkpoint="work_dirs/deeplabv3plus_r18_camvid-160x160_heads/iter_2000.pth",
)
test_evaluator = _base_.uncertainty_evaluator
