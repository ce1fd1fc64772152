"""Real detectors of the model zoo, made tiny: on random weights, scaled so that they find something."""

import copy
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.structures import Keypoints as KeypointsOf
from detectron2.utils.events import EventStorage
from torch import nn

from ddn_detectron2.config import add_ddn_config
from ddn_detectron2.convert import to_ddn
from ddn_detectron2.teaching.store import attach_teacher

NUM_CLASSES, NUM_KEYPOINTS = 4, 3
HEIGHT, WIDTH = 64, 96
CONFIGS = {
    "C4": "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml",
    "DC5": "COCO-Detection/faster_rcnn_R_50_DC5_1x.yaml",
    "FPN": "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
    "MaskC4": "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml",
    "MaskFPN": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    "Keypoint": "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
    "Cascade": "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml",
}
# One of each kind of box head.
HEADS = ("C4", "FPN", "Cascade")
every_model = pytest.mark.parametrize("name", CONFIGS)
every_head = pytest.mark.parametrize("name", HEADS)


def shrink(cfg):
    """A few channels, a few proposals, and anchors that fit images of HEIGHT x WIDTH; in place."""
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    cfg.MODEL.RESNETS.NUM_GROUPS = 1
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 8
    cfg.MODEL.FPN.OUT_CHANNELS = 8
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 16
    cfg.MODEL.ROI_BOX_HEAD.CONV_DIM = cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 8
    cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS = (8,)
    cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = NUM_KEYPOINTS
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = NUM_CLASSES
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 16
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 20
    levels = len(cfg.MODEL.ANCHOR_GENERATOR.SIZES)
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16], [24], [32], [48]] if levels > 1 else [[16, 32, 48]]
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (HEIGHT,), HEIGHT
    return cfg


@functools.cache
def _config(name, ddn):
    cfg = shrink(model_zoo.get_config(CONFIGS[name]))
    if ddn:
        cfg = to_ddn(cfg)
        cfg.MODEL.DDN.TARGETS.MATCH, cfg.MODEL.DDN.TARGETS.AVERAGE = "gt_iou", "logits"
    return cfg


def tiny_config(name, options=(), ddn=True):
    """The plain or distilled config of one of CONFIGS, with the paper's targets, and `options` as on a command line."""
    cfg = _config(name, ddn).clone()
    cfg.merge_from_list(list(options))
    return cfg


def images(count=2):
    """Model inputs: textures of several scales, every time the same."""
    generator = torch.Generator().manual_seed(7)
    inputs = []
    for number in range(count):
        picture = sum(
            nn.functional.interpolate(torch.rand(1, 3, size, size, generator=generator), (HEIGHT, WIDTH))
            for size in (2, 5, 16)
        )[0]
        inputs.append({"image": picture * 85, "height": HEIGHT, "width": WIDTH, "image_id": number})
    return inputs


@torch.no_grad()
def give_moderate_weights(model, inputs, seed=0):
    """Random weights under which every layer's output is of unit size on `inputs`, logits a little larger."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {"cls_score": 2.0, "bbox_pred": 1.0, "anchor_deltas": 0.3}
    hooks = []

    def rescale(name):
        def hook(module, _, output):
            size = output.square().mean().sqrt() if output.numel() else output.new_tensor(0.0)
            if size == 0:
                return output
            factor = sizes.get(name.rsplit(".", 1)[-1], 1.0) / size
            module.weight.mul_(factor)
            return output * factor

        return hook

    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.ConvTranspose2d)):
            module.weight.normal_(generator=generator).mul_(module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                module.bias.zero_()
            hooks.append(module.register_forward_hook(rescale(name)))
    model.eval()(inputs)
    for hook in hooks:
        hook.remove()
    return model


@functools.cache
def _plain(name):
    return give_moderate_weights(build_model(tiny_config(name, ddn=False)), images())


def plain_model(name):
    """A plain detector of Detectron2; the same weights each time. Not to be changed."""
    return _plain(name).eval()


_students = {}  # by name and options, to be copied: that takes a tenth of the time of building one


def ddn_model(name, *options, teacher=False):
    """The distilled form with the same weights in eval mode; `options` are as on a command line."""
    key = repr((name, options))
    if key not in _students:
        with torch.random.fork_rng(devices=()):  # what a test draws must not depend on those before it
            _students[key] = build_model(tiny_config(name, options))
        # with what plain detectors do not have, if there is such
        _students[key].load_state_dict(_students[key].state_dict() | plain_model(name).state_dict())
    model = copy.deepcopy(_students[key])
    if teacher:
        attach_teacher(tiny_config(name, options), model)
    return model.eval()


@torch.no_grad()
def pooling(model, inputs):
    """Images, feature maps and proposals as the ROI heads see them."""
    prepared = model.preprocess_image(inputs)
    features = model.backbone(prepared.tensor)
    return prepared, features, model.proposal_generator(prepared, features, None)[0]


@functools.cache
def _detected(name):
    with torch.no_grad():
        return [found["instances"] for found in plain_model(name)(images())]


def labelled(name, counts=(3, 2)):
    """`images` with ground truth: boxes where the plain model sees something, of classes that it may not see there."""
    inputs = copy.deepcopy(images(len(counts)))
    for number, (item, count) in enumerate(zip(inputs, counts, strict=True)):
        found = _detected(name)[number]
        assert len(found) > count
        item["instances"] = ground_truth(found.pred_boxes.tensor[:count].clone(), (torch.arange(count) + 1) % 4)
    return inputs


def ground_truth(boxes, classes):
    """Instances with boxes (G, 4) and classes (G,), masks of half a box and keypoints on its diagonal."""
    instances = Instances((HEIGHT, WIDTH))
    instances.gt_boxes, instances.gt_classes = Boxes(boxes), classes
    corners = [[np.array([x1, y1, x2, y1, x2, y2], dtype=np.float64)] for x1, y1, x2, y2 in boxes.tolist()]
    instances.gt_masks = PolygonMasks(corners)
    share = torch.linspace(0.1, 0.9, NUM_KEYPOINTS)[None, :, None]
    points = boxes[:, None, :2] + share * (boxes[:, None, 2:] - boxes[:, None, :2])
    instances.gt_keypoints = KeypointsOf(torch.cat([points, torch.full_like(points[..., :1], 2)], dim=2))
    return instances


def losses_of(model, inputs):
    """The losses of one training step; `model` is left in training mode."""
    model.train()
    with EventStorage():
        return model(inputs)


def fields(instances):
    """All fields as tensors, by name."""
    values = {name: getattr(value, "tensor", value) for name, value in instances.get_fields().items()}
    return values | {"image_size": torch.tensor(instances.image_size)}


def same(one, other):
    """Whether two Instances hold the same fields, bit for bit."""
    one, other = fields(one), fields(other)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- on the small backbone, for whole trainings

QUICK = Path(__file__).resolve().parents[1] / "configs" / "ddn" / "quick"
SMALL = {
    "MODEL": {
        "RESNETS": {"RES2_OUT_CHANNELS": 16},
        "ANCHOR_GENERATOR": {"SIZES": [[12, 24, 40]]},
        "RPN": {"POST_NMS_TOPK_TRAIN": 20, "POST_NMS_TOPK_TEST": 20},
        "ROI_HEADS": {"BATCH_SIZE_PER_IMAGE": 16},
        "ROI_BOX_HEAD": {"FC_DIM": 16},
    },
    "INPUT": {"MIN_SIZE_TRAIN": [64], "MIN_SIZE_TEST": 64},
    "SOLVER": {"IMS_PER_BATCH": 2, "MAX_ITER": 4, "STEPS": [], "CHECKPOINT_PERIOD": 2, "WARMUP_ITERS": 0},
    "TEST": {"DETECTIONS_PER_IMAGE": 20, "EXPECTED_RESULTS": []},
}


def write_small_config(folder, kind, train, test):
    """A file with the quick "baseline" or "ddn" config, made tinier, on these data sets; its path."""
    content = {"_BASE_": str(QUICK / f"{kind}_small.yaml"), "DATASETS": {"TRAIN": [train], "TEST": [test]}} | SMALL
    if kind == "ddn":  # the quick config's own values are found by experiments, and may change
        content = content | {"MODEL": SMALL["MODEL"] | {"DDN": {"TARGETS": {"MATCH": "gt_iou", "AVERAGE": "logits"}}}}
    path = folder / f"{kind}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def small_config(path, *options):
    """The config of a file, with options as on a command line."""
    cfg = get_cfg()
    add_ddn_config(cfg)
    cfg.merge_from_file(str(path))
    cfg.MODEL.DEVICE = "cpu"
    cfg.merge_from_list([str(option) if isinstance(option, Path) else option for option in options])
    return cfg
