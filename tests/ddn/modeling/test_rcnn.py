"""Whole detectors: what stays Detectron2's, what is frozen, what learns, and inputs that hold little or nothing."""

import copy

import pytest
import torch
from detectron2.modeling import build_model
from tiny_detectors import (
    HEIGHT,
    WIDTH,
    ddn_model,
    every_head,
    every_model,
    ground_truth,
    images,
    labelled,
    losses_of,
    plain_model,
    pooling,
    same,
    tiny_config,
)
from torch.nn.modules.batchnorm import _BatchNorm

from ddn_detectron2.config import ConfigError
from ddn_detectron2.teaching.store import attach_teacher
from uncertainty_core import dropout_modules

every_match = pytest.mark.parametrize("match", ["gt_iou", "per_proposal"])
NO_PROPOSALS = ("MODEL.RPN.POST_NMS_TOPK_TEST", 0)


def distilled(name, match="gt_iou", *options):
    return ddn_model(name, "MODEL.DDN.TARGETS.MATCH", match, *options, teacher=True)


def take_steps(model, inputs, steps=3, lr=0.02):
    """A few steps of SGD with momentum, as Detectron2 trains."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=1e-4)
    for _ in range(steps):
        losses = losses_of(model, inputs)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()


def assert_trains(model, inputs):
    """Finite losses, and backward; returns the losses."""
    losses = losses_of(model, inputs)
    assert all(loss.isfinite() for loss in losses.values()), losses
    assert any("loss_ddn" in name for name in losses)
    sum(losses.values()).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    return losses


# --- what stays Detectron2's -------------------------------------------------------------------------------------


@every_model
@torch.no_grad()
def test_detections_are_those_of_plain_detectron2(name):
    plain, model = plain_model(name), ddn_model(name)
    assert model.state_dict().keys() == plain.state_dict().keys()
    for found, expected in zip(model(images()), plain(images()), strict=True):
        assert same(found["instances"], expected["instances"])
        assert (found["instances"].scores > 0.05).sum() >= 3


@every_head
@torch.no_grad()
def test_a_teacher_changes_neither_detections_nor_checkpoints(name):
    model, taught = ddn_model(name), distilled(name)
    assert taught.state_dict().keys() == model.state_dict().keys()
    assert {n for n, _ in taught.named_parameters()} == {n for n, _ in model.named_parameters()}
    for found, expected in zip(taught(images()), model(images()), strict=True):
        assert same(found["instances"], expected["instances"])


@every_head
@torch.no_grad()
def test_detections_after_training_are_those_of_plain_detectron2_with_these_weights(name):
    model, plain = distilled(name), copy.deepcopy(plain_model(name))
    with torch.enable_grad():
        take_steps(model, labelled(name), steps=1)
    plain.load_state_dict(model.state_dict())
    for found, expected in zip(model.eval()(images()), plain(images()), strict=True):
        assert same(found["instances"], expected["instances"])


# --- what is frozen, and what learns -----------------------------------------------------------------------------


@every_model
def test_proposals_stay_and_nothing_frozen_changes(name):
    model = distilled(name)
    before = {key: value.clone() for key, value in model.named_parameters()}
    buffers = {key: value.clone() for key, value in model.named_buffers()}
    _, _, proposals = pooling(model, images())
    take_steps(model, labelled(name))
    _, _, after = pooling(model.eval(), images())
    assert all(map(same, after, proposals))
    for key, value in model.named_parameters():
        assert torch.equal(value, before[key]) != value.requires_grad, key
    assert all(torch.equal(value, buffers[key]) for key, value in model.named_buffers())


@every_head
def test_student_and_teacher_look_at_the_same_proposals(name):
    # The student in training is shown what both propose at test time, whatever Detectron2 proposes in training.
    model = distilled(name, "gt_iou", "MODEL.RPN.POST_NMS_TOPK_TRAIN", 3)
    _, _, expected = pooling(model, images())
    seen = []
    model.roi_heads.register_forward_pre_hook(lambda _, inputs: seen.append(copy.deepcopy(inputs[2])))
    losses_of(model, labelled(name))
    assert all(map(same, seen[0], expected))


@every_model
@every_match
def test_every_trainable_weight_gets_a_gradient_and_no_other(name, match):
    model = distilled(name, match)
    assert_trains(model, labelled(name))
    for key, value in model.named_parameters():
        if value.requires_grad:
            assert value.grad is not None, key
            assert value.grad.abs().max() > 0, key
        else:
            assert value.grad is None, key
    teacher = model.roi_heads.teacher.module
    assert all(value.grad is None and not value.requires_grad for value in teacher.parameters())


@pytest.mark.parametrize(
    ("name", "freeze", "trained"),
    [
        ("MaskFPN", ("mask_head",), {"box_head", "box_predictor"}),
        ("MaskFPN", (), {"box_head", "box_predictor", "mask_head"}),
        ("Keypoint", (), {"box_head", "box_predictor", "keypoint_head"}),
        ("MaskC4", (), {"res5", "box_predictor", "mask_head"}),
        ("C4", ("box_regression",), {"res5", "box_predictor"}),
        ("Cascade", ("mask_head", "box_regression"), {"box_head", "box_predictor"}),
    ],
)
def test_parts_can_be_frozen(name, freeze, trained):
    model = distilled(name, "gt_iou", "MODEL.DDN.FREEZE", freeze)
    losses = assert_trains(model, labelled(name))
    learning = {key for key, value in model.named_parameters() if value.requires_grad}
    assert {key.split(".")[1] for key in learning} == trained
    assert all(key.startswith("roi_heads.") for key in learning)
    assert any("bbox_pred" in key for key in learning) != ("box_regression" in freeze)
    # what trains nothing is not computed
    assert ("loss_mask" in losses) == ("mask_head" in trained)
    assert ("loss_keypoint" in losses) == ("keypoint_head" in trained)
    assert not any("rpn" in loss for loss in losses)


@every_model
def test_train_leaves_in_eval_mode_what_must_not_move(name):
    model = distilled(name).train()
    assert model.training
    assert model.roi_heads.training
    still = [model.backbone, model.proposal_generator, model.roi_heads.teacher.module]
    assert not any(module.training for part in still for module in part.modules())
    assert not any(module.training for module in dropout_modules(model))
    model.eval()
    assert not any(module.training for module in model.modules())
    model.train(False)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("norm", ["BN", "SyncBN", "GN"])
@every_match
def test_normalisation_keeps_its_statistics(norm, match):
    options = ["MODEL.RESNETS.NORM", norm.replace("GN", "BN"), "MODEL.FPN.NORM", norm, "MODEL.ROI_BOX_HEAD.NORM", norm]
    options += ["MODEL.ROI_BOX_HEAD.NUM_CONV", 1]
    if norm == "GN":  # 32 groups
        options += ["MODEL.FPN.OUT_CHANNELS", 32, "MODEL.ROI_BOX_HEAD.CONV_DIM", 32]
    cfg = tiny_config("FPN", [*options, "MODEL.DDN.TARGETS.MATCH", match])
    model = build_model(cfg)
    attach_teacher(cfg, model)
    buffers = {key: value.clone() for key, value in model.named_buffers()}
    assert_trains(model, labelled("FPN"))
    assert not any(module.training for module in model.modules() if isinstance(module, _BatchNorm))
    assert all(torch.equal(value, buffers[key]) for key, value in model.named_buffers())


# --- inputs that hold little or nothing --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MaskC4", "MaskFPN", "Keypoint", "Cascade"])
@every_match
@pytest.mark.parametrize("counts", [(0, 0), (0, 2)], ids=str)
def test_images_without_ground_truth(name, match, counts):
    losses = assert_trains(distilled(name, match), labelled(name, counts))
    if match == "gt_iou":
        taught = sum(loss.item() for key, loss in losses.items() if "loss_ddn" in key)
        assert (taught > 0) == any(counts)


@pytest.mark.parametrize("name", ["MaskC4", "MaskFPN", "Keypoint", "Cascade"])
@every_match
@pytest.mark.parametrize("append", [True, False])
@pytest.mark.parametrize("counts", [(2, 0), (0, 0)], ids=str)
def test_no_proposals(name, match, append, counts):
    # With PROPOSAL_APPEND_GT the ground truth is all there is to look at, without there is nothing.
    options = [*NO_PROPOSALS, "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT", append]
    assert_trains(distilled(name, match, *options), labelled(name, counts))


@every_model
@torch.no_grad()
def test_no_proposals_no_detections(name):
    for options in ((), ("MODEL.DDN.TEST.MC_SAMPLES", 2, "MODEL.DDN.TEST.CLASS_PROBS", True)):
        [found, _] = ddn_model(name, *NO_PROPOSALS, *options)(images())
        assert len(found["instances"]) == 0
        if options:
            assert found["instances"].class_probs.shape == (0, 5)
            assert found["instances"].score_std.shape == (0,)


@every_head
@every_match
def test_ground_truth_outside_of_everything(name, match):
    corner = torch.tensor([[WIDTH - 2.0, HEIGHT - 2.0, WIDTH, HEIGHT]])
    inputs = [item | {"instances": ground_truth(corner, torch.tensor([0]))} for item in images()]
    assert_trains(distilled(name, match), inputs)


@every_head
def test_one_image_is_a_batch(name):
    assert_trains(distilled(name), labelled(name, (2,)))


# --- configs -----------------------------------------------------------------------------------------------------


def test_a_contradiction_is_said_when_the_model_is_built():
    with pytest.raises(ConfigError, match="an empty lesson"):
        ddn_model("FPN", "MODEL.DDN.DROPOUT.POSITIONS", ("predictor",), "MODEL.DDN.TARGETS.AVERAGE", "logits")


def test_without_a_teacher_the_student_trains_on_labels_alone():
    losses = assert_trains(ddn_model("FPN"), labelled("FPN"))
    assert losses["loss_ddn"] == 0
    assert losses["loss_cls"] > 0
