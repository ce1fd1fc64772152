# A cheaper ensemble: four networks of one training, whose learning rate falls to 0 and starts anew every 500 iterations
# (Huang et al. 2017). The work dir keeps a snapshot of each.
_base_ = "./deeplabv3plus_r18_camvid-160x160_member.py"
param_scheduler = [
    dict(type="CosineRestartLR", periods=[500] * 4, restart_weights=[1.0] * 4, eta_min=0.0, by_epoch=False)
]
# before the hook of whole checkpoints, whose name mmengine's own --resume then reads
snapshots = dict(type="CheckpointHook", by_epoch=False, interval=500, filename_tmpl="snapshot_{}.pth", priority="LOW")
snapshots.update(save_optimizer=False, save_param_scheduler=False)
custom_hooks = [*_base_.custom_hooks, snapshots]
