"""Real segmentors of mmseg, made tiny: a backbone of four convolutions, and every decode head of the model zoo.

Importing this sets mmseg's scope, in which configs are built.
"""

import copy
from pathlib import Path

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModule
from mmengine.registry import init_default_scope
from mmengine.runner import save_checkpoint
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

import dudes_mmseg  # noqa: F401 (registers)
from uncertainty_core import derive_seed

init_default_scope("mmseg")

ROOT = Path(__file__).resolve().parents[1]
NUM_CLASSES = 4
HEIGHT, WIDTH = 56, 64  # no smaller than LR-ASPP's fixed pooling
NORM = {"type": "BN", "requires_grad": True}


@MODELS.register_module()
class TinyBackbone(BaseModule):
    """Four stages of one convolution each, as most backbones at strides 2, 4, 8, 16 unless said otherwise."""

    def __init__(self, channels=(8, 8, 16, 16), strides=(2, 2, 2, 2), dropout=0.0):
        super().__init__()
        ends = (3, *channels)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(ends[k], ends[k + 1], 3, stride=strides[k], padding=1),
                nn.BatchNorm2d(ends[k + 1]),
                nn.ReLU(),
                nn.Dropout2d(dropout),
            )
            for k in range(4)
        )

    def forward(self, inputs):
        features = []
        for stage in self.stages:
            inputs = stage(inputs)
            features.append(inputs)
        return tuple(features)


@MODELS.register_module()
class LastFeature(BaseModule):
    """A neck for heads that take one tensor in evaluation and several in training."""

    def __init__(self, in_training=(-1,)):
        super().__init__()
        self.in_training = in_training

    def forward(self, features):
        return tuple(features[k] for k in self.in_training) if self.training else features[-1]


def head(kind, **options):
    """A decode head's config, on the last feature unless `options` say otherwise."""
    loss = {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0}
    basics = {"in_channels": 16, "in_index": 3, "channels": 8, "num_classes": NUM_CLASSES, "dropout_ratio": 0.1}
    return {"type": kind, **basics, "norm_cfg": NORM, "align_corners": False, "loss_decode": loss, **options}


ALL = {"in_channels": [8, 8, 16, 16], "in_index": [0, 1, 2, 3]}
LAST_TWO = {"in_channels": [16, 16], "in_index": [2, 3]}
SAME = {"backbone": {"type": "TinyBackbone", "channels": (16, 16, 16, 16)}}
OHEM = {"type": "OhemCrossEntropy", "thres": 0.9, "min_kept": 100}

# By name: the decode head, or the stages of a cascade, and what else of the segmentor it asks for.
HEADS = {
    "FCN": (head("FCNHead", num_convs=1), {}),
    "PSP": (head("PSPHead", pool_scales=(1, 2)), {}),
    "ASPP": (head("ASPPHead", dilations=(1, 2)), {}),
    "SepASPP": (head("DepthwiseSeparableASPPHead", dilations=(1, 2), c1_in_channels=8, c1_channels=4), {}),
    "SepFCN": (head("DepthwiseSeparableFCNHead", num_convs=1), {}),
    "UPer": (head("UPerHead", pool_scales=(1, 2), **ALL), {}),
    "SegFormer": (head("SegformerHead", **ALL), {}),
    "OCR": (
        [head("FCNHead", num_convs=1), head("OCRHead", ocr_channels=8)],
        {"type": "CascadeEncoderDecoder", "num_stages": 2},
    ),
    "LRASPP": (
        head(
            "LRASPPHead",
            branch_channels=(4, 4),
            in_channels=[8, 16, 16],
            in_index=[1, 2, 3],
            input_transform="multiple_select",
        ),
        {"backbone": {"type": "TinyBackbone", "strides": (1, 1, 1, 1)}},
    ),
    "FPN": (
        head("FPNHead", in_channels=[16] * 4, in_index=[0, 1, 2, 3], feature_strides=[2, 4, 8, 16]),
        SAME,
    ),
    "ANN": (head("ANNHead", project_channels=8, query_scales=(1,), key_pool_scales=(1, 3), **LAST_TWO), {}),
    "DNL": (head("DNLHead", reduction=2, use_scale=True, mode="embedded_gaussian"), {}),
    "NL": (head("NLHead", reduction=2, use_scale=True, mode="embedded_gaussian"), {}),
    "GC": (head("GCHead", ratio=1 / 4, pooling_type="att", fusion_types=("channel_add",)), {}),
    "EMA": (head("EMAHead", ema_channels=8, num_bases=4, num_stages=2, momentum=0.1), {}),
    "Enc": (
        head(
            "EncHead",
            num_codes=4,
            use_se_loss=True,
            add_lateral=False,
            in_channels=[16, 16],
            in_index=[2, 3],
            loss_se_decode={"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 0.2},
        ),
        {},
    ),
    "DA": (head("DAHead", pam_channels=4), {}),
    "ISA": (head("ISAHead", isa_channels=4, down_factor=(2, 2)), {}),
    "DDR": (
        head("DDRHead", loss_decode=[OHEM, OHEM]),
        {"neck": {"type": "LastFeature", "in_training": (1, 3)}},
    ),
    "STDC": (
        head(
            "STDCHead",
            num_convs=1,
            concat_input=False,
            num_classes=2,
            loss_decode=[{"type": "CrossEntropyLoss", "loss_name": "loss_ce"}],
        ),
        {},
    ),
    "SETR-UP": (head("SETRUPHead", num_convs=1, norm_cfg=NORM), {}),
    "SETR-MLA": (
        head("SETRMLAHead", mla_channels=8, channels=32, in_channels=[16] * 4, in_index=[0, 1, 2, 3]),
        {"backbone": {"type": "TinyBackbone", "channels": (16, 16, 16, 16), "strides": (8, 1, 1, 1)}},
    ),
    "DPT": (
        head(
            "DPTHead",
            in_channels=[8] * 4,
            in_index=[0, 1, 2, 3],
            embed_dims=8,
            post_process_channels=[8, 8, 8, 8],
            input_transform="multiple_select",
        ),
        {
            "backbone": {
                "type": "VisionTransformer",
                "img_size": (HEIGHT, WIDTH),
                "patch_size": 8,
                "embed_dims": 8,
                "num_layers": 4,
                "num_heads": 2,
                "out_indices": (0, 1, 2, 3),
                "final_norm": False,
                "output_cls_token": True,
            }
        },
    ),
    "Ham": (
        head(
            "LightHamHead",
            in_channels=[8, 16, 16],
            in_index=[1, 2, 3],
            ham_channels=8,
            ham_kwargs={"MD_R": 4, "train_steps": 1, "eval_steps": 1, "rand_init": False},
        ),
        {},
    ),
    "DM": (head("DMHead", filter_sizes=(1, 3)), {}),
    "APC": (head("APCHead", pool_scales=(1, 2)), {}),
    "PID": (
        head(
            "PIDHead",
            in_channels=16,
            in_index=3,
            loss_decode=[{"type": "CrossEntropyLoss"}, OHEM, {"type": "BoundaryLoss"}, OHEM],
        ),
        {
            "backbone": {"type": "TinyBackbone", "channels": (8, 8, 8, 16)},
            "neck": {"type": "LastFeature", "in_training": (1, 3, 0)},
        },
    ),
}

# options of `segmentor_config`
SLIDE = {"mode": "slide", "crop_size": (32, 40), "stride": (16, 24)}
BINARY = {
    "decode_head": head(
        "FCNHead",
        num_classes=2,
        out_channels=1,
        threshold=0.4,
        loss_decode={"type": "CrossEntropyLoss", "use_sigmoid": True},
    )
}


def segmentor_config(name="FCN", **options):
    """The plain segmentor with a decode head of HEADS, with batch norm; `options` replace or add keys."""
    decode_head, others = HEADS[name]
    config = {
        "type": "EncoderDecoder",
        "data_preprocessor": {
            "type": "SegDataPreProcessor",
            "mean": [127.5] * 3,
            "std": [60.0] * 3,
            "size": (HEIGHT, WIDTH),
        },
        "backbone": {"type": "TinyBackbone"},
        "decode_head": decode_head,
        "train_cfg": {},
        "test_cfg": {"mode": "whole"},
    }
    return ConfigDict(copy.deepcopy({**config, **others, **options}))


def student_config(name="FCN", **options):
    """The same with an uncertainty head."""
    config = segmentor_config(name)
    return ConfigDict({**config, "type": f"DUDES{config['type']}", **copy.deepcopy(options)})


def build(config, seed=0):
    """A segmentor with random weights, the same for the same names, and none of them zero; in eval mode."""
    model = MODELS.build(config)
    for name, values in sorted(model.state_dict().items()):
        if values.is_floating_point():
            generator = torch.Generator().manual_seed(derive_seed(seed, name))
            spread = values[0].numel() ** -0.5 if values.dim() > 1 else 0.3
            noise = torch.randn(values.shape, generator=generator) * spread
            is_scale = values.dim() == 1 and name.endswith(("weight", "running_var"))
            values.copy_(noise.abs() + 0.5 if is_scale else noise)
    return model.eval()


def images(count=2, size=(HEIGHT, WIDTH), seed=0):
    """Normalised inputs (count, 3, *size): textures of several scales."""
    generator = torch.Generator().manual_seed(seed)
    scales = [torch.randn(count, 3, cells, cells, generator=generator) for cells in (2, 5, 16)]
    return sum(nn.functional.interpolate(scale, size) for scale in scales)


def samples(count=2, size=(HEIGHT, WIDTH), num_classes=NUM_CLASSES, target=1, seed=0, **metainfo):
    """Data samples of `images`, with labels, some of them void, and uncertainty targets of `target` maps (0: none)."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number in range(count):
        basics = {"img_path": f"folder/{number}.png", "ori_shape": size, "img_shape": size, "pad_shape": size}
        sample = SegDataSample(metainfo=basics | metainfo)
        labels = torch.randint(0, num_classes, (1, *size), generator=generator)
        sample.gt_sem_seg = PixelData(data=labels.masked_fill(torch.rand(size, generator=generator) < 0.2, 255))
        sample.gt_edge_map = PixelData(data=torch.randint(0, 2, (1, *size), generator=generator))
        if target:
            sample.gt_uncertainty = PixelData(data=torch.rand(target, *size, generator=generator) / 2)
        made.append(sample)
    return made


def write_members(folder, count=3, name="FCN", classes=tuple("abcd"), **options):
    """Checkpoints of segmentors with different weights, as mmengine writes them after a training; their paths."""
    history = HistoryBuffer()
    history.update(0.5)
    paths = []
    for seed in range(count):
        content = {
            "meta": {"iter": 7, "dataset_meta": {"classes": classes, "palette": [[0, 0, 0]]}},
            "state_dict": build(segmentor_config(name, **options), seed).state_dict(),
            "message_hub": {"log_scalars": {"train/loss": history}, "runtime_info": {"iter": np.int64(7)}},
            "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]},
        }
        paths.append(str(Path(folder) / f"member_{seed}" / "iter_7.pth"))
        Path(paths[-1]).parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(content, paths[-1])
    return paths


def write_small_streets(path, name):
    """A config as configs/dudes/quick/`name`, trained on crops of 32 x 32; run it with `small_street_options`."""
    path.write_text(
        f"_base_ = {str(ROOT / f'configs/dudes/quick/{name}.py')!r}\n"
        "train_pipeline = _base_.train_pipeline\n"
        "for transform in train_pipeline:\n"
        "    if transform['type'] == 'RandomResize':\n"
        "        transform['scale'] = (64, 32)\n"
        "    if transform['type'] == 'RandomCrop':\n"
        "        transform['crop_size'] = (32, 32)\n"
        "train_dataloader = dict(dataset=dict(pipeline=train_pipeline))\n"
    )


def small_street_options(iterations):
    """Values for --cfg-options: three streets of each split, a checkpoint after each iteration, no validation."""
    return (
        f"train_cfg.max_iters={iterations}",
        f"train_cfg.val_begin={iterations + 1}",  # never
        "default_hooks.checkpoint.interval=1",
        "model.data_preprocessor.size=(32,32)",
        *(f"{split}_dataloader.dataset.num_images=3" for split in ("train", "val", "test")),
        *(f"{split}_dataloader.dataset.size=(64,32)" for split in ("train", "val", "test")),
        "log_level=ERROR",
    )
