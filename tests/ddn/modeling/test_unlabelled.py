"""Unlabelled images: they teach what the teacher thinks of them, and neither objects nor background."""

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from tiny_detectors import ddn_model, every_head, images, labelled, losses_of

from ddn_detectron2.teaching.target_matching import TEACHER_LOGITS
from ddn_detectron2.teaching.unlabelled import UNLABELLED

PER_PROPOSAL = ("MODEL.DDN.TARGETS.MATCH", "per_proposal", "MODEL.DDN.TARGETS.AVERAGE", "probs")
# Labels count for nothing, not even for which proposals are sampled.
NO_LABELS = (
    *("MODEL.DDN.GT_WEIGHT", 0.0, "MODEL.DDN.FREEZE", ("mask_head", "box_regression")),
    *("MODEL.ROI_HEADS.PROPOSAL_APPEND_GT", False, "MODEL.ROI_HEADS.IOU_THRESHOLDS", [0.999]),
    *("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", (0.999, 0.999, 0.999)),
)


def gradients_of(name, inputs):
    model = ddn_model(name, *PER_PROPOSAL, *NO_LABELS, teacher=True)
    torch.manual_seed(0)  # sampled proposals and dropout
    losses = losses_of(model, inputs)
    sum(losses.values()).backward()
    return {key: weight.grad for key, weight in model.named_parameters() if weight.requires_grad}


@every_head
def test_with_labels_of_no_weight_labelled_and_unlabelled_images_are_equal_bit_by_bit(name):
    with_labels = labelled(name)
    first, last = gradients_of(name, with_labels), gradients_of(name, images())
    mixed = gradients_of(name, [with_labels[0], images()[1]])
    assert first.keys() == last.keys() and all(gradient.any() for gradient in first.values())
    assert all(torch.equal(first[key], last[key]) and torch.equal(first[key], mixed[key]) for key in first)


def proposals_of(classes, *, unlabelled=False):
    proposals = Instances((64, 96))
    proposals.gt_classes = torch.tensor(classes, dtype=torch.int64)
    proposals.proposal_boxes = proposals.gt_boxes = Boxes(torch.tensor([[0.0, 0, 10, 10]]).repeat(len(classes), 1))
    proposals.set(TEACHER_LOGITS, torch.tensor([[2.0, 0, 0, 0, 0]]).repeat(len(classes), 1))
    if unlabelled:
        proposals.set(UNLABELLED, torch.zeros(len(classes)))
    return proposals


def test_their_proposals_are_not_background():
    # Uniform logits of 5: log 5 of cross-entropy each, whose gradient is (1/5 - [it is the class]) / 2 for the two
    # labelled ones. The distance to (2, 0, 0, 0, 0) is 4 for each of four, times DD_WEIGHT 0.5: gradient -0.5.
    predictor = ddn_model("FPN", *PER_PROPOSAL).roi_heads.box_predictor
    logits, deltas = torch.zeros(4, 5, requires_grad=True), torch.zeros(4, 16, requires_grad=True)
    with EventStorage():
        losses = predictor.losses((logits, deltas), [proposals_of([4, 4], unlabelled=True), proposals_of([1, 4])])
        nothing = predictor.losses((logits, deltas), [proposals_of([4, 4, 4, 4], unlabelled=True)])
    assert losses["loss_cls"].item() == pytest.approx(torch.tensor(5.0).log().item())
    assert losses["loss_ddn"].item() == nothing["loss_ddn"].item() == 2
    [gradient] = torch.autograd.grad(losses["loss_cls"], logits)
    assert not gradient[:2].any()
    torch.testing.assert_close(gradient[2:], torch.tensor([[0.1, -0.4, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1, -0.4]]))
    [gradient] = torch.autograd.grad(losses["loss_ddn"], logits)
    assert gradient[:, 0].tolist() == [-0.5] * 4
    assert nothing["loss_cls"].item() == nothing["loss_box_reg"].item() == 0
    (nothing["loss_cls"] + nothing["loss_box_reg"]).backward()
    assert not logits.grad.any() and not deltas.grad.any()


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value encountered")  # of Detectron2's logs
@pytest.mark.parametrize("name", ["MaskC4", "Keypoint", "Cascade"])
def test_alone_they_teach_what_the_teacher_knows_and_nothing_else(name):
    model = ddn_model(name, *PER_PROPOSAL, "MODEL.DDN.FREEZE", (), teacher=True)
    for inputs, others_teach in (([labelled(name)[0], images()[1]], True), (images(), False)):
        losses = losses_of(model, inputs)
        assert all(loss.isfinite() for loss in losses.values())
        for key, loss in losses.items():
            assert (loss > 0) == (others_teach or "loss_ddn" in key), key
        sum(losses.values()).backward()
