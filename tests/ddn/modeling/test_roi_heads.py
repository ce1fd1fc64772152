"""What reaches the losses, and what the options at test time add to the detections."""

import copy
import itertools
import math

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from tiny_detectors import (
    ddn_model,
    every_head,
    every_model,
    fields,
    ground_truth,
    images,
    labelled,
    losses_of,
    plain_model,
    pooling,
    same,
)

from ddn_detectron2.modeling.roi_heads import calibrated
from ddn_detectron2.teaching.target_matching import TEACHER_LOGITS
from uncertainty_core import ddn_loss
from uncertainty_core.recalibration import ClassTemperature, ClassWise, Temperature, save

NAN = float("nan")
BACKGROUND = 4


@torch.no_grad()
def detections(name, *options, inputs=None):
    words = [f"MODEL.DDN.TEST.{word}" if k % 2 == 0 else word for k, word in enumerate(options)]
    return [found["instances"] for found in ddn_model(name, *words)(inputs or images())]


# --- the distillation loss ---------------------------------------------------------------------------------------


def taught(classes, logits=None):
    """Proposals of these classes, with these target logits."""
    proposals = Instances((64, 96))
    proposals.gt_classes = torch.tensor(classes, dtype=torch.int64)
    if logits is not None:
        proposals.set(TEACHER_LOGITS, torch.tensor(logits))
    return proposals


LOGITS = torch.tensor([[1.0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [2, 0, 0, 0, 0]])


@pytest.mark.parametrize(
    ("proposals", "expected"),
    [
        # Distances 1, 0 and 4 to zeros, over the three boxes of both images.
        ([taught([0, 1], [[0.0] * 5] * 2), taught([2], [[0.0] * 5])], 5 / 3),
        # Background has no distance, but counts among the boxes, as in Detectron2's losses of boxes.
        ([taught([BACKGROUND, 1], [[0.0] * 5] * 2), taught([2], [[0.0] * 5])], 4 / 3),
        # So it is with what Detectron2 ignores.
        ([taught([-1, 1], [[0.0] * 5] * 2), taught([2], [[0.0] * 5])], 4 / 3),
        # A row of NaN is no target, and an image without the field has none.
        ([taught([0, 1], [[0.0] * 5, [NAN] * 5]), taught([2])], 1 / 3),
        ([taught([0, 1]), taught([2])], 0),
        ([taught([BACKGROUND] * 2, [[7.0] * 5] * 2), taught([BACKGROUND], [[7.0] * 5])], 0),
        # The third's target is (0, 0, 0, 0, 3): 4 + 9.
        ([taught([0, 1], [[NAN] * 5] * 2), taught([2], [[0.0, 0, 0, 0, 3]])], 13 / 3),
    ],
    ids=["all", "background", "ignored", "nan", "no-field", "only-background", "one"],
)
def test_the_distance_by_hand(proposals, expected):
    predictor = ddn_model("FPN").roi_heads.box_predictor
    logits = LOGITS.clone().requires_grad_()
    loss = predictor.distillation_loss(logits, proposals)
    loss.backward()
    assert loss.item() == pytest.approx(expected)
    assert logits.grad.isfinite().all()


def test_with_targets_per_proposal_background_counts():
    predictor = ddn_model("FPN", "MODEL.DDN.TARGETS.MATCH", "per_proposal").roi_heads.box_predictor
    proposals = [taught([0, BACKGROUND], [[0.0] * 5] * 2), taught([BACKGROUND], [[0.0] * 5])]
    assert predictor.distillation_loss(LOGITS, proposals).item() == pytest.approx(5 / 3)


def test_with_targets_per_proposal_those_that_are_taught_stand_for_all():
    # Distances 1, 0, 4, 9: whichever two of the four are asked about, on average it is the mean of all.
    predictor = ddn_model("FPN", "MODEL.DDN.TARGETS.MATCH", "per_proposal").roi_heads.box_predictor
    logits = torch.tensor([[1.0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [2, 0, 0, 0, 0], [0, 0, 0, 3, 0]])
    losses = []
    for pair in itertools.combinations(range(4), 2):
        targets = [[0.0] * 5 if number in pair else [NAN] * 5 for number in range(4)]
        losses.append(predictor.distillation_loss(logits, [taught([0, BACKGROUND, 1, 2], targets)]).item())
    assert losses == [0.5, 2.5, 5, 2, 4.5, 6.5]
    assert sum(losses) / 6 == 14 / 4


@every_head
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_teacher_is_asked_about_a_share_of_the_proposals(name, share):
    options = ("MODEL.DDN.TARGETS.MATCH", "per_proposal", "MODEL.DDN.TARGETS.SHARE", share)
    model = ddn_model(name, *options, teacher=True)
    asked, answer = [], model.roi_heads.teacher.on_proposals

    def on_proposals(images, features, proposals, *rest):
        words = answer(images, features, proposals, *rest)
        asked.extend((p.proposal_boxes.tensor, w) for p, w in zip(proposals, words, strict=True))
        return words

    model.roi_heads.teacher.on_proposals = on_proposals
    given = [of_image for proposals in predictions_and_proposals(model, labelled(name)) for of_image in proposals]
    assert len(given) == len(asked) == (6 if name == "Cascade" else 2)
    for proposals, (boxes, words) in zip(given, asked, strict=True):
        rows = proposals.get(TEACHER_LOGITS)
        has = ~rows.isnan().any(1)
        assert has.sum() == len(boxes) == math.ceil(share * len(proposals))
        # each word lies with its box
        said = {tuple(box): word for box, word in zip(boxes.tolist(), words.tolist(), strict=True)}
        pairs = zip(proposals.proposal_boxes.tensor[has].tolist(), rows[has].tolist(), strict=True)
        assert all(said[tuple(box)] == word for box, word in pairs)


# What the mean of the passes' probabilities is in the tests below, and its logarithm.
HALVES, AN_EIGHTH = [0.5, 0.5, 0, 0, 0], [0.125, 0.125, 0.25, 0.25, 0.25]
KL = ("MODEL.DDN.LOSS", "kl", "MODEL.DDN.TARGETS.AVERAGE", "probs")


def kl_predictor(match):
    return ddn_model("FPN", *KL, "MODEL.DDN.TARGETS.MATCH", match).roi_heads.box_predictor


@pytest.mark.parametrize(
    ("match", "classes", "taught_rows", "expected"),
    [
        # KL of AN_EIGHTH from the uniform student: 2/8 log(5/8) + 3/4 log(5/4); of the uniform target: 0.
        ("per_proposal", [0, BACKGROUND], [AN_EIGHTH, [0.2] * 5], (0.25 * math.log(5 / 8) + 0.75 * math.log(1.25)) / 2),
        # HALVES: log(5/2), though the student gives three classes more than the teacher does
        ("per_proposal", [BACKGROUND, BACKGROUND], [HALVES, HALVES], math.log(2.5)),
        # without a target, over those that have one
        ("per_proposal", [0, 1], [HALVES, [NAN] * 5], math.log(2.5)),
        # for ground-truth boxes background is left out, but counts among the boxes, and so do boxes without a target
        ("gt_iou", [0, BACKGROUND], [HALVES, HALVES], math.log(2.5) / 2),
        ("gt_iou", [0, 1, -1, BACKGROUND], [HALVES, [NAN] * 5, HALVES, HALVES], math.log(2.5) / 4),
        ("gt_iou", [BACKGROUND], [HALVES], 0),
    ],
)
def test_the_divergence_by_hand(match, classes, taught_rows, expected):
    # targets are logits: their constant does not matter
    targets = [[math.log(p) + 3 if p else -math.inf for p in row] for row in taught_rows]
    targets = [[NAN] * 5 if math.isnan(row[0]) else row for row in targets]
    logits = torch.full((len(classes), 5), 7.0, requires_grad=True)
    loss = kl_predictor(match).distillation_loss(logits, [taught(classes, targets)])
    loss.backward()
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert logits.grad.isfinite().all()


def test_the_gradient_of_the_divergence_is_the_difference_of_probabilities():
    probs = torch.tensor([AN_EIGHTH, [0.6, 0.1, 0.1, 0.1, 0.1], [NAN] * 5])
    logits = torch.randn(3, 5, requires_grad=True)
    proposals = [taught([0], probs[:1].log().tolist()), taught([BACKGROUND, 1], probs[1:].log().tolist())]
    kl_predictor("per_proposal").distillation_loss(logits, proposals).backward()
    expected = (logits.detach().softmax(1) - probs)[:2] / 2
    torch.testing.assert_close(logits.grad[:2], expected)
    assert not logits.grad[2].any()


@every_head
def test_the_loss_on_probabilities_is_of_the_mean_of_the_passes(name):
    # With every proposal taught, by a teacher whose passes are counted here.
    options = (*KL, "MODEL.DDN.TARGETS.MATCH", "per_proposal", "MODEL.DDN.TARGETS.SHARE", 1.0)
    model, passes = ddn_model(name, *options, "MODEL.DDN.DD_WEIGHT", 1.0, teacher=True), []
    sampled = model.roi_heads.teacher.passes

    def record(*args):
        passes.append([])
        for branches, outputs in sampled(*args):
            passes[-1].append(outputs[0][0].softmax(1))
            yield branches, outputs

    model.roi_heads.teacher.passes = record
    given, losses = [], {}
    predictors = model.roi_heads.box_predictor
    for predictor in predictors if name == "Cascade" else [predictors]:
        compute = predictor.distillation_loss
        predictor.distillation_loss = lambda logits, of, compute=compute: given.append(logits) or compute(logits, of)
    losses = losses_of(model, labelled(name))
    distances = [loss for key, loss in losses.items() if "loss_ddn" in key]
    assert len(distances) == len(passes) == len(given) == (3 if name == "Cascade" else 1)
    for distance, of_passes, logits in zip(distances, passes, given, strict=True):
        mean = torch.stack(of_passes).mean(0)
        expected = (mean * (mean.log() - logits.log_softmax(1))).sum(1).mean()
        torch.testing.assert_close(distance, expected, rtol=1e-4, atol=1e-6)


def test_with_detectron2s_cross_entropy_it_is_the_loss_of_the_core():
    weights = ("MODEL.DDN.DD_WEIGHT", 0.7, "MODEL.DDN.GT_WEIGHT", 1.3)
    predictor = ddn_model("FPN", "MODEL.DDN.TARGETS.MATCH", "per_proposal", *weights).roi_heads.box_predictor
    proposals = taught([0, BACKGROUND, 1], [[0.0, 0, 0, 0, 3], [1, 0, 0, 0, 2], [0, 0, 0, 0, 0]])
    proposals.proposal_boxes = proposals.gt_boxes = Boxes(torch.tensor([[0.0, 0, 8, 8]]).repeat(3, 1))
    with EventStorage():
        losses = predictor.losses((LOGITS, torch.zeros(3, 16)), [proposals])
    expected = ddn_loss(LOGITS, proposals.get(TEACHER_LOGITS), proposals.gt_classes, dd_weight=0.7, gt_weight=1.3)
    torch.testing.assert_close(losses["loss_cls"] + losses["loss_ddn"], expected)


@pytest.mark.parametrize("proposals", [[], [taught([]), taught([])], [taught([], [])]], ids=["none", "empty", "taught"])
def test_nothing_to_compare_is_0_with_a_gradient(proposals):
    predictor = ddn_model("FPN").roi_heads.box_predictor
    if proposals and proposals[0].has(TEACHER_LOGITS):
        proposals[0].set(TEACHER_LOGITS, torch.zeros(0, 5))
    logits = torch.zeros(0, 5, requires_grad=True)
    loss = predictor.distillation_loss(logits, proposals)
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize(("dd_weight", "gt_weight"), [(0.5, 1.0), (2.0, 1.0), (0.5, 3.0), (0.0, 0.0)])
@every_head
def test_weights_scale_their_terms_alone(name, dd_weight, gt_weight):
    def losses(*options):
        torch.manual_seed(0)  # which proposals are sampled
        # without noise, since the masks would differ with whatever was drawn before
        model = ddn_model(name, *options, teacher=True)
        torch.manual_seed(0)
        return losses_of(model, labelled(name))

    once = losses("MODEL.DDN.DD_WEIGHT", 1.0, "MODEL.DDN.GT_WEIGHT", 1.0)
    weighted = losses("MODEL.DDN.DD_WEIGHT", dd_weight, "MODEL.DDN.GT_WEIGHT", gt_weight)
    assert weighted.keys() == once.keys()
    for key, loss in weighted.items():
        factor = dd_weight if "loss_ddn" in key else gt_weight if "loss_cls" in key else 1.0
        assert loss.item() == pytest.approx(factor * once[key].item(), rel=1e-5), key


@every_head
def test_the_classification_and_box_losses_are_detectron2s(name):
    # The same proposals, drawn with the same numbers, in a plain model whose trunk is in eval mode, too.
    model = ddn_model(name).train()
    plain = copy.deepcopy(plain_model(name)).train()
    plain.backbone.eval()
    plain.proposal_generator.eval()
    losses = []
    for either in (model, plain):
        torch.manual_seed(0)
        with EventStorage():
            losses.append(either(labelled(name)))
    mine, its = losses
    boxes = {key for key in its if "loss_cls" in key or "loss_box_reg" in key}
    assert len(boxes) == (6 if name == "Cascade" else 2)
    assert all(torch.equal(mine[key], its[key]) for key in boxes)


# --- from ground truth to proposals ------------------------------------------------------------------------------


def predictions_and_proposals(model, inputs):
    """What each predictor's `losses` is given in one training step."""
    given = []
    heads = model.roi_heads
    for predictor in (
        heads.box_predictor if isinstance(heads.box_predictor, torch.nn.ModuleList) else [heads.box_predictor]
    ):
        original = predictor.losses

        def losses(predictions, proposals, original=original):
            given.append(copy.copy(proposals))
            return original(predictions, proposals)

        predictor.losses = losses
    losses_of(model, inputs)
    return given


@every_head
def test_a_foreground_proposal_learns_the_target_of_its_ground_truth(name):
    # Targets that come with the data, and encode the box: NaN for the second one of the first image. No proposal of
    # the 20, and none of the ground truth, is left out: a quarter of so many may be foreground.
    model, inputs = ddn_model(name, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 100), labelled(name)
    for number, item in enumerate(inputs):
        rows = torch.arange(len(item["instances"]), dtype=torch.float32) + 10 * number
        item["instances"].set(TEACHER_LOGITS, rows[:, None].repeat(1, 5))
        item["instances"].gt_classes = torch.arange(len(rows))
    inputs[0]["instances"].get(TEACHER_LOGITS)[1] = NAN
    seen = set()
    for proposals in predictions_and_proposals(model, inputs):
        for number, of_image in enumerate(proposals):
            rows = of_image.get(TEACHER_LOGITS)
            assert rows.shape == (len(of_image), 5)
            for label, row in zip(of_image.gt_classes.tolist(), rows, strict=True):
                if label == BACKGROUND:
                    continue
                seen.add((number, label))
                if (number, label) == (0, 1):
                    assert row.isnan().all()
                else:
                    assert row.tolist() == [10 * number + label] * 5
    assert seen == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)}


@every_head
def test_images_with_and_without_targets_share_a_batch(name):
    model, inputs = ddn_model(name), labelled(name)
    inputs[0]["instances"].set(TEACHER_LOGITS, torch.ones(3, 5))
    losses = losses_of(model, inputs)
    assert sum(loss for key, loss in losses.items() if "loss_ddn" in key) > 0
    assert all(loss.isfinite() for loss in losses.values())


@every_head
def test_nothing_of_a_step_is_kept(name):
    # Feature maps of a batch, kept, would fill a GPU.
    model = ddn_model(name, "MODEL.DDN.TARGETS.MATCH", "per_proposal", teacher=True)
    losses_of(model, labelled(name))
    assert model.roi_heads._seen is None


# --- options at test time ----------------------------------------------------------------------------------------


@every_model
def test_class_probabilities_go_with_the_detections(name):
    for plain, found in zip(detections(name), detections(name, "CLASS_PROBS", True), strict=True):
        assert found.class_probs.shape == (len(found), 5)
        torch.testing.assert_close(found.class_probs.sum(1), torch.ones(len(found)))
        rows = torch.arange(len(found))
        assert torch.equal(found.class_probs[rows, found.pred_classes], found.scores)
        assert not found.has("score_std")
        # and the detections are what they are without
        for key, value in fields(plain).items():
            if name == "Cascade":  # a mean of probabilities by way of its logarithm
                torch.testing.assert_close(fields(found)[key], value, rtol=1e-4, atol=1e-4)
            else:
                assert torch.equal(fields(found)[key], value), key


@every_model
def test_many_passes_give_a_deviation(name):
    for found in detections(name, "MC_SAMPLES", 5, "CLASS_PROBS", True):
        assert found.score_std.shape == found.scores.shape
        assert (found.score_std >= 0).all()
        assert found.score_std.max() > 1e-3
        rows = torch.arange(len(found))
        torch.testing.assert_close(found.class_probs[rows, found.pred_classes], found.scores)
        torch.testing.assert_close(found.class_probs.sum(1), torch.ones(len(found)))
        # scores are means of M values in [0, 1]: their deviation is at most that of a coin
        assert (found.score_std <= (found.scores * (1 - found.scores)).sqrt() + 1e-5).all()
        assert found.has("pred_masks") == ("Mask" in name or name == "Cascade")


@every_head
def test_sampled_detections_depend_on_the_seed_alone(name):
    first = detections(name, "MC_SAMPLES", 3)
    torch.manual_seed(77)
    assert all(map(same, first, detections(name, "MC_SAMPLES", 3)))
    assert not all(map(same, first, detections(name, "MC_SAMPLES", 3, "SEED", 1)))
    # not on the other images of the batch (but for the last bit of a convolution)
    [alone] = detections(name, "MC_SAMPLES", 3, inputs=images()[1:])
    assert len(alone) == len(first[1])
    torch.testing.assert_close(fields(alone), fields(first[1]), rtol=1e-3, atol=1e-3)


@every_head
@pytest.mark.parametrize("options", [(), ("MC_SAMPLES", 3)], ids=["one-pass", "mc"])
def test_a_calibrator_maps_scores_and_leaves_the_rest(name, options, tmp_path):
    save(Temperature(3.0), tmp_path / "calibrator.json")
    mapped = detections(name, *options, "CALIBRATOR", str(tmp_path / "calibrator.json"))
    for before, after in zip(detections(name, *options), mapped, strict=True):
        expected = (before.scores.double().logit() / 3).sigmoid().float()
        torch.testing.assert_close(after.scores, expected)
        assert (after.scores.diff() <= 0).all()
        assert torch.equal(after.score_before, before.scores)
        changed = {"scores", "score_before"}
        rest = [{key: v for key, v in fields(found).items() if key not in changed} for found in (before, after)]
        assert rest[0].keys() == rest[1].keys()
        assert all(torch.equal(rest[0][key], rest[1][key]) for key in rest[0])


def test_class_wise_calibrator_by_hand():
    # 0.8 are odds of 4; at T = 2 odds of 2: 2/3. The other class stays as it is.
    found = Instances((64, 96), scores=torch.tensor([0.8, 0.8]), pred_classes=torch.tensor([1, 0]))
    calibrator = ClassWise((Temperature(1.0), Temperature(2.0)), ("a", "b"), (20, 20), 20)
    torch.testing.assert_close(calibrated(found, calibrator).scores, torch.tensor([2 / 3, 0.8]))


def test_calibrated_class_probabilities_hold_the_scores(tmp_path):
    save(ClassTemperature(2.0), tmp_path / "calibrator.json")
    options = "CLASS_PROBS", True
    mapped = detections("FPN", *options, "CALIBRATOR", str(tmp_path / "calibrator.json"))
    for before, after in zip(detections("FPN", *options), mapped, strict=True):
        roots = before.class_probs.sqrt()
        torch.testing.assert_close(after.class_probs, roots / roots.sum(1, keepdim=True), rtol=1e-4, atol=1e-5)
        assert torch.equal(after.scores, after.class_probs[torch.arange(len(after)), after.pred_classes])
        assert torch.equal(after.score_before, before.scores)


@pytest.mark.parametrize("options", [(), ("MC_SAMPLES", 2)], ids=["one-pass", "mc"])
@torch.no_grad()
def test_boxes_that_are_not_finite_are_dropped_and_the_rest_stays_aligned(options):
    # The regression of one class is broken, which Detectron2 takes for a broken proposal, unless all of them are.
    model = ddn_model(
        "FPN",
        "MODEL.DDN.TEST.CLASS_PROBS",
        True,
        *(f"MODEL.DDN.TEST.{w}" if k == 0 else w for k, w in enumerate(options)),
    )
    predictor = model.roi_heads.box_predictor
    original = predictor.predict_boxes

    def broken(predictions, proposals):
        first, *rest = original(predictions, proposals)
        first[::3, 5] = torch.inf
        return [first, *rest]

    prepared, features, proposals = pooling(model, images(1))
    [whole], _ = model.roi_heads(prepared, features, proposals)
    predictor.predict_boxes = broken
    [found], _ = model.roi_heads(prepared, features, proposals)
    assert 0 < len(found) < len(whole)
    rows = torch.arange(len(found))
    torch.testing.assert_close(found.class_probs[rows, found.pred_classes], found.scores)
    # deviations, too, are still those of their boxes
    for field in ("score_std",) if options else ():
        pairs = set(zip(whole.scores.tolist(), whole.get(field).tolist(), strict=True))
        assert set(zip(found.scores.tolist(), found.get(field).tolist(), strict=True)) <= pairs


@torch.no_grad()
def test_given_boxes_get_masks_as_ever():
    model, plain = ddn_model("MaskFPN"), plain_model("MaskFPN")
    _, features, _ = pooling(plain, images(1))
    given_boxes = Instances((64, 96))
    given_boxes.pred_boxes, given_boxes.pred_classes = Boxes(torch.tensor([[5.0, 5, 40, 40]])), torch.tensor([2])
    [mine], [its] = (
        either.roi_heads.forward_with_given_boxes(features, [copy.deepcopy(given_boxes)]) for either in (model, plain)
    )
    assert same(mine, its)


def test_ground_truth_is_not_changed_by_a_step():
    inputs = labelled("FPN")
    before = [fields(item["instances"]).keys() for item in inputs]
    boxes = [item["instances"].gt_boxes.tensor.clone() for item in inputs]
    losses_of(ddn_model("FPN", teacher=True), inputs)
    assert [fields(item["instances"]).keys() for item in inputs] == before
    assert all(torch.equal(item["instances"].gt_boxes.tensor, b) for item, b in zip(inputs, boxes, strict=True))
    assert ground_truth(boxes[0], torch.tensor([0, 1, 2])).gt_boxes.tensor.equal(boxes[0])
