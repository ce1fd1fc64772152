# A cheaper ensemble: one backbone with four decode heads, trained together.
_base_ = "./deeplabv3plus_r18_camvid-160x160_member.py"
model = dict(type="HeadEnsembleEncoderDecoder", num_heads=4)
# the gradients of four heads add up in the backbone
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.25))))
