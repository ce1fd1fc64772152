"""Snapshots of one training, kept at the end of each cycle of the learning rate: the members of an ensemble."""

import copy
import math

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import MODELS
from tiny_segmentors import ROOT, build, images, samples, segmentor_config
from torch.utils.data import DataLoader

CYCLE, CYCLES, LR = 2, 3, 0.01


class Rates(Hook):
    """Notes the learning rate of each iteration."""

    def __init__(self):
        self.seen = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.seen.append(runner.optim_wrapper.get_lr()["lr"][0])


def test_snapshots_of_the_shipped_config_are_members(tmp_path):
    shipped = Config.fromfile(str(ROOT / "configs/dudes/camvid/deeplabv3plus_r18_camvid-160x160_snapshots.py"))
    (scheduler,), hook = copy.deepcopy(shipped.param_scheduler), copy.deepcopy(shipped.custom_hooks[-1])
    assert scheduler.periods == [hook.interval] * 4 and sum(scheduler.periods) == shipped.train_cfg.max_iters
    scheduler.periods, scheduler.restart_weights, hook.interval = [CYCLE] * CYCLES, [1.0] * CYCLES, CYCLE

    data = [{"inputs": image, "data_samples": sample} for image, sample in zip(images(2), samples(2), strict=True)]
    rates = Rates()
    runner = Runner(
        build(segmentor_config()).train(),
        str(tmp_path),
        train_dataloader=DataLoader(data, batch_size=2, collate_fn=pseudo_collate),
        train_cfg={"type": "IterBasedTrainLoop", "max_iters": CYCLE * CYCLES},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": LR}},
        param_scheduler=scheduler,
        default_hooks={"checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": CYCLE * CYCLES}},
        custom_hooks=[hook, rates],
        default_scope="mmseg",
        experiment_name=tmp_path.name,
        log_level="ERROR",
    )
    runner.train()
    # half a cosine each, from the whole rate: (1 + cos 0) / 2, (1 + cos(pi / 2)) / 2
    assert rates.seen == pytest.approx([LR, LR * (1 + math.cos(math.pi / CYCLE)) / 2] * CYCLES)
    files = sorted(path.name for path in tmp_path.glob("*.pth"))
    assert files == ["iter_6.pth", "snapshot_2.pth", "snapshot_4.pth", "snapshot_6.pth"]
    assert (tmp_path / "last_checkpoint").read_text().endswith("iter_6.pth")
    assert "optimizer" not in torch.load(tmp_path / "snapshot_6.pth", weights_only=False)

    pattern = str(tmp_path / "snapshot_*.pth")
    teacher = {"type": "DeepEnsembleSegmentor", "segmentor": segmentor_config(), "checkpoints": pattern}
    teacher = MODELS.build(teacher)
    assert len(teacher.checkpoints) == CYCLES
    assert teacher.targets(images(), samples()).max() > 0
