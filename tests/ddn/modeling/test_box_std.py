"""Deviations of boxes: what they are in pixels, what they learn, and that nothing else changes for them."""

import math

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, Instances
from tiny_detectors import ddn_model, every_head, fields, images, labelled, losses_of, plain_model

from ddn_detectron2.boxes import corner_std, of_class
from ddn_detectron2.modeling.output_layers import Predictions

ON = ("MODEL.DDN.BOX_STD", True)
NUM_CLASSES = 4


@pytest.mark.parametrize("name", ["C4", "FPN", "Cascade", "Keypoint"])
@torch.no_grad()
def test_boxes_and_scores_are_those_of_plain_detectron2_bit_for_bit(name):
    inputs = images()
    for image in inputs:  # 64 x 96 are seen
        image["height"], image["width"] = 128, 288
    at_size, plain = ddn_model(name, *ON)(inputs), plain_model(name)(inputs)
    as_seen = ddn_model(name, *ON).inference(inputs, do_postprocess=False)
    for output, its, seen in zip(at_size, plain, as_seen, strict=True):
        found, expected = fields(output["instances"]), fields(its["instances"])
        std = found.pop("box_std")
        assert found.keys() == expected.keys() and len(std) > 4
        assert all(torch.equal(found[key], expected[key]) for key in found)
        assert std.shape == (len(std), 4) and (std > 0).all()
        torch.testing.assert_close(std, seen.box_std * torch.tensor([3.0, 2, 3, 2]))


@torch.no_grad()
def test_many_passes_give_the_deviation_of_their_boxes():
    [found, _] = (output["instances"] for output in ddn_model("FPN", "MODEL.DDN.TEST.MC_SAMPLES", 5)(images()))
    assert found.box_std.shape == (len(found), 4) and (found.box_std > 0).any()


def test_corners_by_hand():
    # A proposal of 10 x 20 leads to a box of 30 x 8; weights 10, 10, 5, 5. The centre in x: 0.3 · 10 / 10 = 0.3; half
    # of the width: 30 / 2 · 0.1 / 5 = 0.3; together 0.3 · sqrt 2. In y: 0.5 · 20 / 10 = 1, and 8 / 2 · 0 = 0.
    std, box = torch.tensor([[0.3, 0.5, 0.1, 0.0]]), torch.tensor([[0.0, 0, 30, 8]])
    found = corner_std(std, box, torch.tensor([[5.0, 5, 15, 25]]), Box2BoxTransform((10, 10, 5, 5)))
    assert found.tolist()[0] == pytest.approx([0.3 * math.sqrt(2), 1, 0.3 * math.sqrt(2), 1])


def test_corners_against_drawn_deltas():
    transform, proposals = Box2BoxTransform((10, 10, 5, 5)), torch.tensor([[10.0, 20, 40, 90]])
    mean, std = torch.tensor([[1.0, -2, 0.7, 0.3] * 2]), torch.tensor([[0.2, 0.1, 0.05, 0.3] * 2])
    drawn = transform.apply_deltas(mean + std * torch.randn(20_000, 8), proposals.expand(20_000, 4))
    found = corner_std(std, transform.apply_deltas(mean, proposals), proposals, transform)
    torch.testing.assert_close(found[0], drawn.std(0), rtol=0.03, atol=0)


def test_the_four_of_a_class():
    values = torch.arange(16.0).view(2, 8)
    assert of_class(values, torch.tensor([1, 0])).tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert of_class(values[:, :4], torch.tensor([1, 0])).equal(values[:, :4])


def proposals_of(classes):
    proposals = Instances((64, 96))
    proposals.gt_classes = torch.tensor(classes)
    proposals.proposal_boxes = Boxes(torch.tensor([[0.0, 0, 10, 10]]).repeat(len(classes), 1))
    proposals.gt_boxes = Boxes(torch.tensor([[1.0, 0, 11, 10]]).repeat(len(classes), 1))
    return proposals


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("beta_nll", (math.exp(-1) / 8 + 0.5) * math.exp(0.5)),
        # with e = 0 std · (2 phi(0) - 1 / sqrt pi) = 0.385298 for each of three; std = 1.648721, z = 0.606531, and with
        # e = 1 std · (z erf(z / sqrt 2) + 2 phi(z) - 1 / sqrt pi) = 0.620115
        ("crps", (3 * 0.385298 + 0.620115) / 4),
    ],
)
def test_the_loss_by_hand(name, expected):
    # The true delta in x is 1 / 10 · weight 10 = 1, the others are 0; all predicted ones are 0. With log std = l the
    # mean over the four of beta-NLL is (exp(-2 l) / 2 / 4 + l) · exp(l), of the class 2 of the first box; the second is
    # background.
    predictor = ddn_model("FPN", *ON, "MODEL.DDN.BOX_STD_LOSS", name).roi_heads.box_predictor
    log_std = torch.zeros(2, 16)
    log_std[0, 8:12] = 0.5
    log_std.requires_grad_()
    deltas = torch.zeros(2, 16, requires_grad=True)
    loss = predictor.box_std_loss(Predictions(torch.zeros(2, 5), deltas, log_std), [proposals_of([2, NUM_CLASSES])])
    loss.backward()
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert deltas.grad is None
    assert log_std.grad.nonzero().tolist() == [[0, 8], [0, 9], [0, 10], [0, 11]]


@pytest.mark.parametrize("proposals", [[], [proposals_of([NUM_CLASSES])]], ids=["none", "background"])
def test_nothing_to_learn_is_0_with_a_gradient(proposals):
    count = sum(map(len, proposals))
    log_std = torch.zeros(count, 16, requires_grad=True)
    predictions = Predictions(torch.zeros(count, 5), torch.zeros(count, 16), log_std)
    loss = ddn_model("FPN", *ON).roi_heads.box_predictor.box_std_loss(predictions, proposals)
    loss.backward()
    assert loss.item() == 0 and not log_std.grad.any()


@every_head
def test_all_other_losses_and_gradients_stay_bit_for_bit(name):
    steps = []
    for options in ((), ON):
        model = ddn_model(name, *options, teacher=True)
        torch.manual_seed(0)  # sampled proposals and dropout
        losses = losses_of(model, labelled(name))
        sum(losses.values()).backward()
        steps.append((losses, {key: weight.grad for key, weight in model.named_parameters()}))
    (before, without), (after, within) = steps
    assert all(torch.equal(after[key], loss) for key, loss in before.items())
    new = within.keys() - without.keys()
    assert new and all(".box_std." in key and within[key].any() for key in new)
    for key, gradient in without.items():
        assert within[key] is None if gradient is None else torch.equal(within[key], gradient), key
