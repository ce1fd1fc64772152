"""Every config of the project builds, and its parts fit together; a user's own may inherit from them."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import HOOKS, MODELS, TRANSFORMS
from mmseg.structures import SegDataSample

import dudes_mmseg  # noqa: F401  (registers)
from uncertainty_core.cli.configs import CONFIGS as ALL_CONFIGS

CONFIGS = ALL_CONFIGS / "dudes"
NAMES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.py") if "_base_" not in path.parts)
STORED = ("student", "student-kl", "student-own-error", "holder")  # which load their targets
ONLINE = ("student-online", "student-kl-online")  # which have their teacher at their side
TEACHERS = {
    "teacher": "DeepEnsembleSegmentor",
    "snapshots-teacher": "DeepEnsembleSegmentor",
    "heads-teacher": "HeadEnsembleSegmentor",
    "mc_dropout": "MCDropoutSegmentor",
}
NETWORKS = {
    **dict.fromkeys(("member", "snapshots", "baseline"), "EncoderDecoder"),
    "heads": "HeadEnsembleEncoderDecoder",
}
ROLES = (*STORED, *ONLINE, *TEACHERS, *NETWORKS)


def read(name: str) -> Config:
    init_default_scope("mmseg")
    return Config.fromfile(str(CONFIGS / name))


def with_checkpoints(cfg: Config, folder: Path) -> Config:
    """The config with checkpoints of freshly made members where it names some that a user has to train."""
    teacher = cfg.model if "segmentor" in cfg.model else cfg.model.get("teacher")
    if teacher is not None:
        paths = []
        for number in range(2):
            paths.append(str(folder / f"member_{number}.pth"))
            torch.save({"state_dict": MODELS.build(teacher.segmentor).state_dict()}, paths[-1])
        key = "checkpoint" if "checkpoint" in teacher else "checkpoints"
        teacher[key] = paths[0] if key == "checkpoint" else paths
    return cfg


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_builds(name, tmp_path):
    cfg = with_checkpoints(read(name), tmp_path)
    model = MODELS.build(cfg.model)
    for split in ("train", "val", "test"):
        for transform in cfg[f"{split}_dataloader"].dataset.pipeline:
            TRANSFORMS.build(transform)
    for evaluators in (cfg.val_evaluator, cfg.test_evaluator):
        Evaluator(evaluators)
    for hook in cfg.custom_hooks:
        HOOKS.build(hook)
    assert model.out_channels == {"cityscapes": 19, "voc12": 21, "camvid": 11, "streets": 19}[dataset_of(name)]


def dataset_of(name: str) -> str:
    return next(dataset for dataset in ("cityscapes", "voc12", "camvid", "streets") if dataset in name)


@pytest.mark.parametrize("name", NAMES)
def test_name_says_what_it_is(name):
    stem = Path(name).stem
    role = next(role for role in sorted(ROLES, key=len, reverse=True) if stem.endswith(role))
    cfg = read(name)
    assert cfg.model.type == (TEACHERS | NETWORKS).get(role, "DUDESEncoderDecoder")
    loads = [t for t in cfg.train_dataloader.dataset.pipeline if t.type == "LoadUncertaintyTarget"]
    assert len(loads) == (role in STORED)
    assert ("teacher" in cfg.model) == (role in ONLINE)
    assert bool(cfg.model.get("pretrained")) == (role in ("baseline", *ONLINE, *STORED)) * (
        dataset_of(name) in ("cityscapes", "voc12") and "segformer" not in name
    )


@pytest.mark.parametrize("prefix", ["deeplabv3plus_r18_cityscapes-768x768", "deeplabv3plus_r18_voc12-512x512"])
def test_the_papers_recipe(prefix):
    cfg = read(f"{prefix}_student.py")
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.optimizer.type) == ("AmpOptimWrapper", "SGD")
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (0.01, 0.9, 0.0005)
    assert {key: value.lr_mult for key, value in cfg.optim_wrapper.paramwise_cfg.custom_keys.items()} == {
        "decode_head": 10,
        "uncertainty_head": 10,
    }
    (scheduler,) = cfg.param_scheduler
    assert (scheduler.type, scheduler.power, scheduler.end) == ("PolyLR", 0.9, 200)
    assert (cfg.train_cfg.max_epochs, cfg.train_dataloader.batch_size) == (200, 16)
    resize = next(t for t in cfg.train_dataloader.dataset.pipeline if t.type == "RandomResize")
    crop = next(t for t in cfg.train_dataloader.dataset.pipeline if t.type == "RandomCrop")
    assert resize.ratio_range == (0.5, 2.0)
    assert crop.crop_size == cfg.model.data_preprocessor.size == ((768, 768) if "city" in prefix else (512, 512))


def test_a_student_has_257_parameters_more():
    student, baseline = (
        MODELS.build(read(f"deeplabv3plus_r18_cityscapes-768x768_{role}.py").model) for role in ("student", "baseline")
    )
    assert count(student) - count(baseline) == 257


def losses_of(model: torch.nn.Module, size: int = 64) -> dict[str, torch.Tensor]:
    """Of a batch of two crops with labels and targets."""
    made = [SegDataSample(metainfo={"img_shape": (size, size), "ori_shape": (size, size)}) for _ in range(2)]
    for sample in made:
        sample.gt_sem_seg = PixelData(data=torch.randint(19, (1, size, size)))
        sample.gt_uncertainty = PixelData(data=torch.rand(1, size, size) / 2)
    return model.train().loss(torch.randn(2, 3, size, size), made)


@pytest.mark.parametrize("base", ["ours", "theirs"])
def test_a_config_of_a_user_inherits_and_trains(tmp_path, base):
    """From one of ours, which is found by path, and from one of mmsegmentation's."""
    path = tmp_path / "my.py"
    if base == "ours":
        path.write_text(f"_base_ = {str(CONFIGS / 'quick' / 'streets_student.py')!r}\ntrain_cfg = dict(max_iters=7)\n")
    else:
        path.write_text(
            "_base_ = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'\n"
            "custom_imports = dict(imports=['dudes_mmseg'])\n"
            "_norm = dict(type='BN')\n"
            "model = dict(type='DUDESEncoderDecoder', pretrained=None, backbone=dict(depth=18, norm_cfg=_norm),\n"
            "    decode_head=dict(in_channels=512, channels=32, norm_cfg=_norm),\n"
            "    auxiliary_head=dict(in_channels=256, channels=16, norm_cfg=_norm))\n"
        )
    cfg = Config.fromfile(str(path))
    init_default_scope("mmseg")
    model = MODELS.build(cfg.model)
    losses = losses_of(model)
    assert {"decode.loss_ce", "uncertainty.loss_rmsle"} <= set(losses)
    sum(value for name, value in losses.items() if "loss" in name).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
