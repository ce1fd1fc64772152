"""Keys of MODEL.DDN: their defaults, what is refused, and where dropout comes to sit."""

import copy
import inspect
import re

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import build_box_head
from tiny_detectors import CONFIGS, HEADS, ddn_model, fields, images, plain_model, tiny_config
from torch import nn

from ddn_detectron2.config import (
    ConfigError,
    add_ddn_config,
    all_settings,
    box_head_layers,
    check_ddn_config,
    dropout_positions,
    proposal_share,
)
from ddn_detectron2.convert import to_ddn
from ddn_detectron2.modeling import (
    DDNRCNN,
    DDNCascadeROIHeads,
    DDNOutputLayers,
    DDNRes5ROIHeads,
    DDNStandardROIHeads,
    DropoutFastRCNNConvFCHead,
)
from ddn_detectron2.modeling.dropout import dropout_in_blocks
from ddn_detectron2.modeling.roi_heads import InferenceSettings, TargetSettings
from ddn_detectron2.teaching.teacher import MCDropoutTeacher
from uncertainty_core import dropout_modules
from uncertainty_core.recalibration import ClassWise, ConformalBoxes, Temperature, VectorScaling, save
from uncertainty_core.sampling import mc_dropout


def checked(name, *options):
    """The config with options of MODEL.DDN, checked."""
    cfg = tiny_config(name, [f"MODEL.DDN.{word}" if k % 2 == 0 else word for k, word in enumerate(options)])
    check_ddn_config(cfg)
    return cfg


def box_head(num_conv, num_fc, positions=()):
    """The config of an FPN model with such a box head."""
    options = {"MODEL.ROI_BOX_HEAD.NUM_CONV": num_conv, "MODEL.ROI_BOX_HEAD.NUM_FC": num_fc}
    options |= {"MODEL.DDN.DROPOUT.POSITIONS": positions, "MODEL.DDN.DROPOUT.RATE": 0.3}
    return tiny_config("FPN", [word for pair in options.items() for word in pair])


# --- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_the_defaults_are_sound(name):
    cfg = to_ddn(tiny_config(name, ddn=False))
    check_ddn_config(cfg)
    assert cfg.MODEL.DDN.DROPOUT.POSITIONS == ()


@pytest.mark.parametrize(
    "kind",
    [
        *(DDNRCNN, DDNRes5ROIHeads, DDNStandardROIHeads, DDNCascadeROIHeads, DDNOutputLayers),
        *(DropoutFastRCNNConvFCHead, TargetSettings, InferenceSettings, MCDropoutTeacher),
    ],
)
def test_the_config_is_the_only_place_of_defaults(kind):
    parameters = inspect.signature(kind.__init__).parameters.values()
    assert [str(p) for p in parameters if p.default is not p.empty] == []


def test_adding_keys_touches_nothing_else():
    cfg, plain = get_cfg(), get_cfg()
    add_ddn_config(cfg)
    del cfg.MODEL["DDN"]
    assert cfg == plain


def test_configs_do_not_share_their_keys():
    one, other = get_cfg(), get_cfg()
    add_ddn_config(one)
    add_ddn_config(other)
    one.MODEL.DDN.TARGETS.IOU = 0.9
    assert other.MODEL.DDN.TARGETS.IOU == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("TARGETS.SOURCE", "disk"), "MODEL.DDN.TARGETS.SOURCE must be one of ('online', 'store', 'none'), got 'disk'"),
        (("TARGETS.MATCH", "iou"), "MODEL.DDN.TARGETS.MATCH must be one of ('gt_iou', 'per_proposal'), got 'iou'"),
        (("TARGETS.AVERAGE", "mean"), "MODEL.DDN.TARGETS.AVERAGE must be one of ('logits', 'probs'), got 'mean'"),
        (("TARGETS.MISSING", "skip"), "MODEL.DDN.TARGETS.MISSING must be one of ('error', 'ground_truth'), got 'skip'"),
        (("LOSS", "l2"), "MODEL.DDN.LOSS must be one of ('logits', 'kl'), got 'l2'"),
        (("LOSS", "kl"), "MODEL.DDN.LOSS 'kl' learns mean probabilities: set MODEL.DDN.TARGETS.AVERAGE to 'probs'"),
        (("FREEZE", ("rpn",)), "MODEL.DDN.FREEZE must name some of ('mask_head', 'keypoint_head', 'box_regression')"),
        (("DROPOUT.RATE", 0.0), "MODEL.DDN.DROPOUT.RATE must lie between 0 and 1, got 0.0"),
        (("DROPOUT.RATE", 1.0), "MODEL.DDN.DROPOUT.RATE must lie between 0 and 1, got 1.0"),
        (("DROPOUT.RATE", float("nan")), "MODEL.DDN.DROPOUT.RATE must lie between 0 and 1, got nan"),
        (("DROPOUT.POSITIONS", ("fc3",)), "must be among ('fc1', 'predictor') for this box head, got 'fc3'"),
        (("DROPOUT.POSITIONS", ("fc2",)), "after 'fc2' comes the predictor: use 'predictor'"),
        (("DROPOUT.POSITIONS", ("block1",)), "must be among ('fc1', 'predictor') for this box head, got 'block1'"),
        (
            ("DROPOUT.POSITIONS", ("predictor",), "TARGETS.AVERAGE", "logits"),
            "an empty lesson: the predictor is linear",
        ),
        (("TARGETS.SHARE", 1.5), "MODEL.DDN.TARGETS.SHARE must lie between 0 and 1, got 1.5"),
        (("TARGETS.SHARE", float("nan")), "MODEL.DDN.TARGETS.SHARE must lie between 0 and 1, got nan"),
        (("TARGETS.MC_SAMPLES", 0), "MODEL.DDN.TARGETS.MC_SAMPLES must be at least 1"),
        (("TEST.MC_SAMPLES", -1), "MODEL.DDN.TEST.MC_SAMPLES at least 0"),
        (
            ("TEST.ENSEMBLE", True),
            "MODEL.DDN.TEST.ENSEMBLE averages the members in MODEL.DDN.TEACHER.WEIGHTS: name them",
        ),
        (
            ("TEST.ENSEMBLE", True, "TEACHER.WEIGHTS", ("a.pth",), "TEST.MC_SAMPLES", 2),
            "and leave MODEL.DDN.TEST.MC_SAMPLES at 0",
        ),
        (("TEST.CALIBRATOR", "none.json"), "MODEL.DDN.TEST.CALIBRATOR: none.json cannot be read: No such file"),
        (("TARGETS.SOURCE", "store"), "MODEL.DDN.TARGETS.STORE must name the folder"),
        (
            ("TARGETS.SOURCE", "store", "TARGETS.STORE", "x", "TARGETS.MATCH", "per_proposal"),
            "MODEL.DDN.TARGETS.SOURCE 'store' goes with MATCH 'gt_iou'",
        ),
    ],
    ids=str,
)
def test_values_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        checked("FPN", *options)
    assert "\n" not in str(caught.value)


def test_folders_that_are_older_than_a_key_stay_valid():
    cfg = tiny_config("FPN")
    assert not all_settings(cfg).keys() & {
        "MODEL.DDN.LOSS",
        "MODEL.DDN.FRESH_HEAD",
        "MODEL.DDN.BOX_STD",
        "MODEL.DDN.TEST.ENSEMBLE",
    }
    assert all_settings(cfg)["MODEL.DDN.DD_WEIGHT"] == 0.5
    cfg.MODEL.DDN.LOSS = "kl"
    assert all_settings(cfg)["MODEL.DDN.LOSS"] == "kl"


@pytest.mark.parametrize(
    "options",
    [
        ("DROPOUT.POSITIONS", ("predictor",), "TARGETS.AVERAGE", "probs"),
        ("LOSS", "kl", "TARGETS.AVERAGE", "probs"),
        ("DROPOUT.POSITIONS", ("fc1", "predictor"), "TARGETS.AVERAGE", "logits"),
        # an ensemble needs no dropout
        ("DROPOUT.POSITIONS", ("predictor",), "TARGETS.AVERAGE", "logits", "TEACHER.WEIGHTS", ("a.pth", "b.pth")),
        ("TARGETS.SOURCE", "store", "TARGETS.STORE", "folder"),
        ("FREEZE", ()),
    ],
    ids=str,
)
def test_values_that_work(options):
    checked("FPN", *options)


def test_calibrators_must_be_for_the_model(tmp_path):
    # the tiny model has four classes, and background
    file = str(tmp_path / "calibrator.json")
    five = VectorScaling((1.0,) * 5, (0.0,) * 5)
    for calibrator, options, sentence in (
        (ClassWise((Temperature(),) * 3, ("a", "b", "c"), (1, 1, 1), 1), (), "for 3 classes, and here are 4"),
        (VectorScaling((1.0,) * 4, (0.0,) * 4), ("TEST.CLASS_PROBS", True), "for 4 classes, and here are 5"),
        (five, (), "is for class probabilities: set MODEL.DDN.TEST.CLASS_PROBS to True"),
    ):
        save(calibrator, file)
        with pytest.raises(ConfigError, match=f"MODEL.DDN.TEST.CALIBRATOR.* {sentence}"):
            checked("FPN", "TEST.CALIBRATOR", file, *options)
    save(Temperature(2.0), file)
    checked("FPN", "TEST.CALIBRATOR", file)


def test_calibrators_of_boxes_scale_deviations_alone(tmp_path):
    file = str(tmp_path / "box_calibrator.json")
    save(ConformalBoxes(3.0, 0.9), file)
    with pytest.raises(ConfigError, match=r"deviations of boxes: name it in MODEL.DDN.TEST.BOX_CALIBRATOR"):
        checked("FPN", "TEST.CALIBRATOR", file)
    with pytest.raises(ConfigError, match=r"BOX_CALIBRATOR scales deviations of boxes, which come from"):
        checked("FPN", "TEST.BOX_CALIBRATOR", file)
    checked("FPN", "TEST.BOX_CALIBRATOR", file, "TEST.MC_SAMPLES", 3)
    plain, scaled = (
        ddn_model("FPN", "MODEL.DDN.BOX_STD", True, "MODEL.DDN.TEST.BOX_CALIBRATOR", name) for name in ("", file)
    )
    scaled.load_state_dict(plain.state_dict())  # deviations have random weights
    for one, other in zip(plain(images()), scaled(images()), strict=True):
        one, other = fields(one["instances"]), fields(other["instances"])
        torch.testing.assert_close(other.pop("box_std"), 3 * one.pop("box_std"))
        assert all(torch.equal(one[name], other[name]) for name in one)
    save(Temperature(2.0), file)
    with pytest.raises(ConfigError, match=r"is for scores, and one for deviations of boxes is needed"):
        checked("FPN", "TEST.BOX_CALIBRATOR", file, "BOX_STD", True)


def test_the_former_key_names_the_one_of_today():
    with pytest.raises(KeyError, match=r"MODEL.DDN.TEST.TEMPERATURE was renamed to MODEL.DDN.TEST.CALIBRATOR"):
        tiny_config("FPN").merge_from_list(["MODEL.DDN.TEST.TEMPERATURE", 2.0])


# --- where dropout sits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_conv", "num_fc", "layers", "default"),
    [
        (0, 2, ("fc1", "fc2"), ("fc1",)),
        (0, 3, ("fc1", "fc2", "fc3"), ("fc2",)),
        (4, 1, ("conv1", "conv2", "conv3", "conv4", "fc1"), ("conv4",)),
        (2, 0, ("conv1", "conv2"), ("conv1",)),
        (0, 1, ("fc1",), ("predictor",)),
        (1, 0, ("conv1",), ("predictor",)),
    ],
)
def test_the_default_is_before_the_last_hidden_layer(num_conv, num_fc, layers, default):
    cfg = box_head(num_conv, num_fc)
    assert box_head_layers(cfg) == layers
    assert dropout_positions(cfg) == default


def test_positions_come_in_the_order_of_layers_and_once():
    assert dropout_positions(box_head(1, 2, ("predictor", "fc1", "conv1", "fc1"))) == ("conv1", "fc1", "predictor")


@pytest.mark.parametrize(
    ("num_conv", "num_fc", "positions", "expected"),
    [
        # a dropout module, and the layer that stands before it
        (0, 2, ("fc1",), [(nn.Dropout, nn.ReLU)]),
        (2, 1, ("conv1",), [(nn.Dropout2d, nn.Conv2d)]),
        (2, 1, ("conv2",), [(nn.Dropout2d, nn.Conv2d)]),
        (1, 2, ("conv1", "fc1"), [(nn.Dropout2d, nn.Conv2d), (nn.Dropout, nn.ReLU)]),
        (1, 2, ("predictor",), []),
    ],
)
def test_dropout_follows_the_layers_that_are_named(num_conv, num_fc, positions, expected):
    cfg = box_head(num_conv, num_fc, positions)
    head = build_box_head(cfg, ShapeSpec(channels=8, height=7, width=7))
    layers = list(head)
    found = [(type(layer), type(layers[k - 1])) for k, layer in enumerate(layers) if dropout_modules(layer)]
    assert [
        (kind, issubclass(before, expected_before))
        for (kind, before), (_, expected_before) in zip(found, expected, strict=True)
    ] == [(kind, True) for kind, _ in expected]
    assert all(module.p == 0.3 for module in dropout_modules(head))
    # the layers, their names and what they compute are those of the head without dropout
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    plain = build_box_head(cfg, ShapeSpec(channels=8, height=7, width=7))
    assert [name for name, layer in head.named_children() if not dropout_modules(layer)] == [
        name for name, _ in plain.named_children()
    ]
    plain.load_state_dict(head.state_dict())
    x = torch.randn(3, 8, 7, 7)
    assert torch.equal(head.eval()(x), plain.eval()(x))
    assert head.output_shape == plain.output_shape


@pytest.mark.parametrize("name", HEADS)
def test_dropout_of_the_predictor(name):
    options = ["MODEL.DDN.DROPOUT.POSITIONS", ("predictor",), "MODEL.DDN.TARGETS.AVERAGE", "probs"]
    model = ddn_model(name, *options)
    inside = {
        key.rsplit(".", 1)[-1]: module for key, module in model.named_modules() if dropout_modules(module) == [module]
    }
    assert inside.keys() == {"dropout"}
    assert len(dropout_modules(model)) == (3 if name == "Cascade" else 1)


def test_dropout_between_blocks_drops_whole_channels():
    res5 = ddn_model("C4", "MODEL.DDN.DROPOUT.POSITIONS", ("block1", "block2")).roi_heads.res5
    assert [type(layer).__name__ for layer in res5] == ["BottleneckBlock", "Dropout2d"] * 2 + ["BottleneckBlock"]


@pytest.mark.parametrize("number", [0, 2], ids=["with-a-shortcut", "without"])
@torch.no_grad()
def test_dropout_in_a_block_is_after_its_last_convolution(number):
    # Detectron2's own block, whose last convolution has dropout for an activation
    blocks = plain_model("C4").roi_heads.res5[: number + 1]
    mine = dropout_in_blocks(blocks, ("residual",), 0.4).eval()
    assert mine.state_dict().keys() == blocks.state_dict().keys()
    its = copy.deepcopy(blocks).eval()
    its[-1].conv3.activation = nn.Dropout2d(0.4).eval()
    x = torch.randn(5, 32, 6, 6)
    assert torch.equal(mine(x), its(x))
    with mc_dropout(mine, seeds=[1], counts=[5]):
        sampled = mine(x)
    with mc_dropout(its, seeds=[1], counts=[5]):
        torch.testing.assert_close(sampled, its(x))
    assert not torch.equal(sampled, mine(x))


@pytest.mark.parametrize(("name", "expected"), [("C4", 0.5), ("MaskC4", 0.5), ("DC5", 1.0), ("Cascade", 1.0)])
def test_the_share_of_proposals(name, expected):
    assert proposal_share(checked(name)) == expected
    assert proposal_share(checked(name, "TARGETS.SHARE", 0.25)) == 0.25
