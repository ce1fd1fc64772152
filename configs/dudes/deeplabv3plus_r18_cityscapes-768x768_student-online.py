# The same student with the ensemble at its side: targets of the very crops it sees, at the price of ten passes a step.
_base_ = "./deeplabv3plus_r18_cityscapes-768x768_member.py"
model = dict(
    type="DUDESEncoderDecoder",
    pretrained="open-mmlab://resnet18_v1c",
    teacher=dict(
        type="DeepEnsembleSegmentor",
        segmentor=_base_.model,
        checkpoints="work_dirs/deeplabv3plus_r18_cityscapes-768x768_member/member_*/epoch_200.pth",
    ),
)
test_evaluator = _base_.uncertainty_evaluator
