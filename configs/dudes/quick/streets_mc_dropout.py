# Monte-Carlo dropout of the first member as the teacher, instead of the ensemble.
_base_ = "./streets_member.py"
model = dict(
    _delete_=True,
    type="MCDropoutSegmentor",
    segmentor=_base_.model,
    checkpoint="work_dirs/streets_member/member_0/iter_400.pth",
    num_samples=10,
)
test_evaluator = _base_.uncertainty_evaluator
