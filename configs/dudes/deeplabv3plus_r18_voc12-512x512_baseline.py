# The network that the student is compared with: the same from ImageNet weights.
_base_ = "./deeplabv3plus_r18_voc12-512x512_member.py"
model = dict(pretrained="open-mmlab://resnet18_v1c")
