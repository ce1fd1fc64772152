default_scope = "mmseg"
custom_imports = dict(imports=["dudes_mmseg"])
env_cfg = dict(
    cudnn_benchmark=True, mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0), dist_cfg=dict(backend="nccl")
)
vis_backends = [dict(type="LocalVisBackend")]
visualizer = dict(type="SegLocalVisualizer", vis_backends=vis_backends, name="visualizer")
log_level = "INFO"
load_from = None
resume = False
randomness = dict(seed=0)
custom_hooks = [
    dict(type="KeyedRandomnessHook"),
    dict(type="CheckTargetsHook"),
]
