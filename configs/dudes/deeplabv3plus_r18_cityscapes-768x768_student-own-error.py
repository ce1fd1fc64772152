# Beyond DUDES: the same student also learns, beside the paper's map, where it is wrong itself. No other targets.
_base_ = "./deeplabv3plus_r18_cityscapes-768x768_student.py"
model = dict(uncertainty_head=dict(outputs=["std", "own_error"], hidden=64))
