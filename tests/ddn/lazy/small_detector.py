"""The LazyConfig of the detector that the fixture `small` has as YAML."""

import detectron2.data.transforms as T
import torch
from detectron2.config import LazyCall as L
from detectron2.data import (
    DatasetMapper,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.evaluation import COCOEvaluator
from detectron2.layers import ShapeSpec
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import FastRCNNConvFCHead, FastRCNNOutputLayers, StandardROIHeads
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import MultiStepParamScheduler

from ddn_detectron2.modeling.small_backbone import SmallBackbone

model = L(GeneralizedRCNN)(
    backbone=L(SmallBackbone)(channels=16, norm="BN"),
    proposal_generator=L(RPN)(
        in_features=["small"],
        head=L(StandardRPNHead)(in_channels=16, num_anchors=3),
        anchor_generator=L(DefaultAnchorGenerator)(sizes=[[12, 24, 40]], aspect_ratios=[1.0], strides=[4], offset=0.0),
        anchor_matcher=L(Matcher)(thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_topk=(300, 200),
        post_nms_topk=(20, 20),
        nms_thresh=0.7,
    ),
    roi_heads=L(StandardROIHeads)(
        num_classes=6,
        batch_size_per_image=16,
        positive_fraction=0.5,
        proposal_matcher=L(Matcher)(thresholds=[0.5], labels=[0, 1], allow_low_quality_matches=False),
        box_in_features=["small"],
        box_pooler=L(ROIPooler)(output_size=7, scales=(0.25,), sampling_ratio=0, pooler_type="ROIAlignV2"),
        box_head=L(FastRCNNConvFCHead)(
            input_shape=L(ShapeSpec)(channels=16, height=7, width=7), conv_dims=[], fc_dims=[16, 16]
        ),
        box_predictor=L(FastRCNNOutputLayers)(
            input_shape=L(ShapeSpec)(channels=16),
            test_score_thresh=0.05,
            test_topk_per_image=20,
            box2box_transform=L(Box2BoxTransform)(weights=(10, 10, 5, 5)),
            num_classes="${..num_classes}",
        ),
    ),
    pixel_mean=[103.53, 116.28, 123.675],
    pixel_std=[57.4, 57.1, 58.4],
    input_format="BGR",
)
dataloader = {
    "train": L(build_detection_train_loader)(
        dataset=L(get_detection_dataset_dicts)(names="tiny_train"),
        mapper=L(DatasetMapper)(
            is_train=True,
            augmentations=[
                L(T.ResizeShortestEdge)(short_edge_length=(64,), sample_style="choice", max_size=1333),
                L(T.RandomFlip)(horizontal=True),
            ],
            image_format="BGR",
        ),
        total_batch_size=2,
    ),
    "test": L(build_detection_test_loader)(
        dataset=L(get_detection_dataset_dicts)(names="tiny_val", filter_empty=False),
        mapper=L(DatasetMapper)(
            is_train=False,
            augmentations=[L(T.ResizeShortestEdge)(short_edge_length=64, max_size=1333)],
            image_format="BGR",
        ),
    ),
    "evaluator": L(COCOEvaluator)(dataset_name="${..test.dataset.names}"),
}
optimizer = L(torch.optim.SGD)(params=L(get_default_optimizer_params)(weight_decay_norm=0.0), lr=0.02, momentum=0.9)
lr_multiplier = L(MultiStepParamScheduler)(values=[1.0, 0.1], milestones=[3], num_updates=4)
train = {
    "output_dir": "output",
    "init_checkpoint": "",
    "max_iter": 4,
    "amp": {"enabled": False},
    "checkpointer": {"period": 2},
    "eval_period": 0,
    "log_period": 20,
    "device": "cpu",
    "seed": 0,
}
