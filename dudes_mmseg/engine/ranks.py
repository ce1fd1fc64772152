"""Several processes, with GPUs or without."""

import torch
from mmengine.config import Config
from mmengine.dist import init_dist, is_distributed


def start_ranks(launcher: str) -> None:
    """Join the processes that mmengine's `launcher` started; "none" for a process alone."""
    if launcher == "none" or is_distributed():
        return
    if torch.cuda.is_available():
        init_dist(launcher)
    else:  # mmengine takes GPUs for granted
        torch.distributed.init_process_group("gloo")


def prepare_ranks(cfg: Config) -> None:
    """`start_ranks` for a runner of `cfg`, which must not ask for a GPU where there is none."""
    start_ranks(cfg.get("launcher", "none"))
    if is_distributed() and not torch.cuda.is_available():
        # as mmengine's own, but for the ids of devices
        cfg.model_wrapper_cfg = {
            "type": "MMDistributedDataParallel",
            "device_ids": None,
            "broadcast_buffers": False,
            "find_unused_parameters": cfg.get("find_unused_parameters", False),
        }
