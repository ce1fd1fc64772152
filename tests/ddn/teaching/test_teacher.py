"""Teachers against naive passes, what there is to learn from them, and what they refuse."""

import copy

import pytest
import torch
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import Boxes
from tiny_detectors import (
    ddn_model,
    every_head,
    give_moderate_weights,
    images,
    labelled,
    losses_of,
    pooling,
    tiny_config,
)

from ddn_detectron2.teaching.sampling import joint_logits, mc_predictions
from ddn_detectron2.teaching.store import attach_teacher
from ddn_detectron2.teaching.target_matching import TEACHER_LOGITS, average_logits, gt_targets
from ddn_detectron2.teaching.teacher import EnsembleTeacher, detect

every_average = pytest.mark.parametrize("average", ["logits", "probs"])


def entropy(logits):
    return torch.distributions.Categorical(logits=logits).entropy()


def taught(name, *options):
    return ddn_model(name, *options, teacher=True)


def other_members(name, count):
    """Detectors of other random weights."""
    return [give_moderate_weights(ddn_model(name), images(), seed=k) for k in range(1, count + 1)]


# --- targets of proposals ----------------------------------------------------------------------------------------


@every_head
@every_average
def test_targets_of_proposals_are_means_of_naive_passes(name, average):
    model = taught(name, "MODEL.DDN.TARGETS.MC_SAMPLES", 4)
    prepared, features, proposals = pooling(model, images())
    for stage in range(3) if name == "Cascade" else [0]:
        torch.manual_seed(stage)
        targets = model.roi_heads.teacher.on_proposals(prepared, features, proposals, stage, average)
        torch.manual_seed(stage)
        with torch.no_grad():
            [branch] = model.roi_heads.box_branches(features, proposals, stage)
            logits = torch.stack([out[0][0] for out in mc_predictions([branch], 4)])
        counts = [len(p) for p in proposals]
        assert [len(rows) for rows in targets] == counts
        if average == "logits":
            torch.testing.assert_close(torch.cat(targets), logits.mean(0))
        else:
            torch.testing.assert_close(torch.cat(targets).softmax(1), logits.softmax(2).mean(0))


def test_each_cascade_stage_is_taught_by_its_own():
    model = taught("Cascade")
    prepared, features, proposals = pooling(model, images())
    # without noise a stage's target is that stage's own word on the boxes
    for module in model.roi_heads.teacher.module.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for stage in range(3):
        with torch.no_grad():
            [branch] = model.roi_heads.box_branches(features, proposals, stage)
            targets = model.roi_heads.teacher.on_proposals(prepared, features, proposals, stage, "logits")
            torch.testing.assert_close(torch.cat(targets), branch.predict()[0])


# --- targets of ground truth -------------------------------------------------------------------------------------


@every_head
@every_average
def test_targets_of_ground_truth_by_detectron2s_own_inference(name, average):
    # Each pass is decoded image by image with Detectron2's threshold and NMS, and matched.
    model = taught(name, "MODEL.DDN.TARGETS.MC_SAMPLES", 3)
    inputs = labelled(name)
    prepared, features, proposals = pooling(model, inputs)
    gt = [item["instances"].gt_boxes.tensor for item in inputs]
    settings = {"iou_threshold": 0.5, "score_threshold": 0.1, "average": average}
    targets = model.roi_heads.teacher.on_ground_truth(prepared, features, proposals, gt, keys=[4, 5], **settings)

    with torch.no_grad():
        branches = model.roi_heads.box_branches(features, proposals)
    last = branches[-1]
    passes = [[], []]
    for outputs in mc_predictions(branches, 3, seed=0, keys=[4, 5]):
        logits = joint_logits([z for z, _ in outputs])
        boxes = last.predictor.predict_boxes((logits, outputs[-1][1]), last.proposals)
        for number, (of_image, z) in enumerate(zip(boxes, logits.split([len(p) for p in last.proposals]), strict=True)):
            [found], [rows] = fast_rcnn_inference([of_image], [z.softmax(1)], [(64, 96)], 0.1, 0.5, 100)
            passes[number].append((found.pred_boxes.tensor, z[rows]))
    for (logits, found), boxes, of_image in zip(targets, gt, passes, strict=True):
        expected, times = gt_targets(boxes, of_image, 5, 0.5, average)
        assert torch.equal(logits, expected)
        assert torch.equal(found, times)
        assert found.max() >= 2


def test_boxes_that_no_pass_finds_are_uniform():
    model = taught("FPN")
    prepared, features, proposals = pooling(model, images(1))
    nowhere = torch.tensor([[1.0, 1.0, 2.0, 2.0]])
    settings = {"iou_threshold": 0.5, "score_threshold": 0.05, "average": "logits"}
    [(logits, found)] = model.roi_heads.teacher.on_ground_truth(prepared, features, proposals, [nowhere], **settings)
    assert logits.tolist() == [[0] * 5]
    assert found.tolist() == [0]
    # and so are all where no detection reaches the score
    settings["score_threshold"] = 1.0
    boxes = [labelled("FPN")[0]["instances"].gt_boxes.tensor]
    [(logits, found)] = model.roi_heads.teacher.on_ground_truth(prepared, features, proposals, boxes, **settings)
    assert not logits.any()
    assert not found.any()


@every_head
def test_detections_are_sorted_and_reach_the_threshold(name):
    model = ddn_model(name)
    _, features, proposals = pooling(model, images())
    with torch.no_grad():
        branches = model.roi_heads.box_branches(features, proposals)
        found = detect(branches, [b.predict() for b in branches], 0.2)
    for boxes, logits in found:
        assert len(boxes) == len(logits) > 0
        # what a row is sure of reaches the threshold; with class-wise NMS a row may stand there more than once
        assert (logits.softmax(1)[:, :-1].amax(1) > 0.2).all()
        assert Boxes(boxes).nonempty().all()


# --- what there is to learn --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["C4", "DC5", "FPN", "Cascade"])
@torch.no_grad()
def test_the_default_placement_has_something_to_teach(name):
    # Over several random networks, all proposals and all stages. Of a single network less is true: noise before a
    # rectifier makes its mean output larger, and with it perhaps the logits.
    passes = 120
    softer, shift, error = [], [], []
    for seed in range(4):
        model = give_moderate_weights(ddn_model(name), images(), seed)
        _, features, proposals = pooling(model, images())
        for stage in range(3) if name == "Cascade" else [0]:
            [branch] = model.roi_heads.box_branches(features, proposals, stage)
            baseline = branch.predict()[0]
            logits = torch.stack([outputs[0][0] for outputs in mc_predictions([branch], passes, seed)])
            found = torch.ones(logits.shape[:2], dtype=torch.bool)
            probs = average_logits(logits, found, "probs")
            # entropy is concave: this holds of every proposal
            assert (entropy(probs) >= entropy(logits).mean(0) - 1e-4).all()
            softer.append((entropy(probs) - entropy(baseline)).mean())
            shift.append((average_logits(logits, found, "logits") - baseline).square().mean())
            error.append(logits.var(0).mean() / passes)
    assert sum(softer) > 0
    # Mean logits are another lesson than the baseline's own word, by more than a mean of so few passes is wrong.
    assert sum(shift) > 2 * sum(error)


@pytest.mark.parametrize("name", ["C4", "FPN"])
def test_mean_logits_of_dropout_before_the_predictor_are_an_empty_lesson(name):
    # The predictor is linear; the config refuses this pair, and this is why.
    options = ["MODEL.DDN.DROPOUT.POSITIONS", ("predictor",), "MODEL.DDN.TARGETS.AVERAGE", "probs"]
    model = taught(name, *options, "MODEL.DDN.TARGETS.MC_SAMPLES", 400)
    prepared, features, proposals = pooling(model, images(1))
    with torch.no_grad():
        [branch] = model.roi_heads.box_branches(features, proposals, 0)
        baseline = branch.predict()[0]
    logits, probs = (
        model.roi_heads.teacher.on_proposals(prepared, features, proposals, 0, average)[0]
        for average in ("logits", "probs")
    )
    # 400 passes: the error of the mean is a twentieth of a pass's deviation
    assert (logits - baseline).abs().mean() < 0.1
    assert abs((entropy(logits) - entropy(baseline)).mean()) < 0.02
    assert (entropy(probs) - entropy(baseline)).mean() > 0.02


# --- the copy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MaskC4", "MaskFPN", "Keypoint", "Cascade"])
def test_the_teacher_is_a_frozen_copy_of_what_speaks_about_boxes(name):
    model = taught(name)
    teacher = model.roi_heads.teacher.module
    mine = model.roi_heads.state_dict()
    assert teacher.state_dict().keys() == {k for k in mine if not k.startswith(("mask_head", "keypoint_head"))}
    assert all(torch.equal(value, mine[key]) for key, value in teacher.state_dict().items())
    own = {value.data_ptr() for value in model.parameters()}
    assert own.isdisjoint(value.data_ptr() for value in teacher.parameters())
    # the student still has its heads, and they work
    losses_of(model, labelled(name))


@every_head
def test_the_teacher_says_the_same_however_the_student_learns(name):
    model = taught(name)
    prepared, features, proposals = pooling(model, images())

    def word():
        torch.manual_seed(0)
        return torch.cat(model.roi_heads.teacher.on_proposals(prepared, features, proposals, 0, "logits"))

    before = word()
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(1)
    model.train()
    assert torch.equal(word(), before)


def test_the_teacher_follows_to_another_precision():
    model = taught("FPN").double()
    assert {value.dtype for value in model.roi_heads.teacher.module.parameters()} == {torch.float64}


# --- ensembles ---------------------------------------------------------------------------------------------------


@every_head
def test_an_ensembles_targets_are_the_mean_of_its_members(name):
    model, members = ddn_model(name), other_members(name, 2)
    attach_teacher(tiny_config(name), model, members)
    prepared, features, proposals = pooling(model, images())
    expected = []
    for member in members:
        with torch.no_grad():
            # a member looks at the student's boxes with its own trunk
            [branch] = member.roi_heads.box_branches(member.backbone(prepared.tensor), proposals, 0)
            expected.append(branch.predict()[0])
    targets = torch.cat(model.roi_heads.teacher.on_proposals(prepared, features, proposals, 0, "logits"))
    torch.testing.assert_close(targets, sum(expected) / 2)
    assert not torch.equal(expected[0], expected[1])


@torch.no_grad()
def test_out_of_fold_an_image_is_judged_by_those_who_never_saw_it():
    model, members = ddn_model("FPN"), other_members("FPN", 3)
    inputs = [image | {"file_name": f"/data/train/{number}.png"} for number, image in enumerate(images())]
    prepared, features, proposals = pooling(model, inputs)
    count = len(proposals[0])
    for held_out, judges in (({}, ((0, 1, 2), (0, 1, 2))), ({"train/0.png": [0, 2]}, ((0, 2), (0, 1, 2)))):
        teacher = EnsembleTeacher(members, model.backbone, held_out)
        logits = [outputs[0][0] for _, outputs in teacher.passes(prepared, features, proposals, None)]
        expected = [
            torch.stack([logits[k][rows] for k in asked]).mean(0)
            for rows, asked in zip((slice(count), slice(count, None)), judges, strict=True)
        ]
        found = teacher.on_proposals(prepared, features, proposals, 0, "logits")
        torch.testing.assert_close(found, expected)
        boxes = [proposed.proposal_boxes.tensor[:3] for proposed in proposals]
        settings = {"iou_threshold": 0.1, "score_threshold": 0.05, "average": "logits"}
        targets = teacher.on_ground_truth(prepared, features, proposals, boxes, **settings)
        for image, (target, asked) in enumerate(zip(targets, judges, strict=True)):
            alone = EnsembleTeacher([members[k] for k in asked], model.backbone)
            torch.testing.assert_close(
                target, alone.on_ground_truth(prepared, features, proposals, boxes, **settings)[image]
            )


@every_head
@pytest.mark.parametrize("match", ["gt_iou", "per_proposal"])
def test_an_ensemble_teaches(name, match):
    cfg = tiny_config(name, ["MODEL.DDN.TARGETS.MATCH", match])
    model, members = ddn_model(name, "MODEL.DDN.TARGETS.MATCH", match), other_members(name, 2)
    before = [copy.deepcopy(member.state_dict()) for member in members]
    keys = model.state_dict().keys()
    attach_teacher(cfg, model, members)
    assert model.state_dict().keys() == keys
    losses = losses_of(model, labelled(name))
    assert all(loss.isfinite() for loss in losses.values())
    assert sum(loss for key, loss in losses.items() if "loss_ddn" in key) > 0
    sum(losses.values()).backward()
    for member, weights in zip(members, before, strict=True):
        assert all(value.grad is None for value in member.parameters())
        assert all(torch.equal(value, weights[key]) for key, value in member.state_dict().items())
        assert not any(module.training for module in member.modules())


def test_an_ensemble_of_the_student_itself_teaches_what_it_knows():
    # No noise, no difference: targets are the student's own logits.
    model = ddn_model("FPN")
    attach_teacher(tiny_config("FPN"), model, [ddn_model("FPN")])
    prepared, features, proposals = pooling(model, images())
    with torch.no_grad():
        [branch] = model.roi_heads.box_branches(features, proposals)
        expected = branch.predict()[0]
    targets = model.roi_heads.teacher.on_proposals(prepared, features, proposals, 0, "logits")
    torch.testing.assert_close(torch.cat(targets), expected)


@every_head
@torch.no_grad()
def test_members_on_the_students_trunk_let_it_run_once(name):
    # A box head of its own on the same trunk: what it says is what it says with a trunk of its own, bit for bit.
    model, [member] = ddn_model(name), other_members(name, 1)
    member.backbone.load_state_dict(model.backbone.state_dict())
    prepared, features, proposals = pooling(model, images())
    branches = member.roi_heads.box_branches(member.backbone(prepared.tensor), proposals)
    expected = [branch.predict() for branch in branches]
    attach_teacher(tiny_config(name), model, [member])
    member.backbone.forward = None  # must not run
    [(_, outputs)] = model.roi_heads.teacher.passes(prepared, features, proposals, None)
    for mine, its in zip(outputs, expected, strict=True):
        assert torch.equal(mine[0], its[0]) and torch.equal(mine[1], its[1])


def naive_ensemble(members, prepared, proposals):
    """Boxes, classes, scores and deviations (D, ...) for each image: means of what each member predicts by itself."""
    probs, boxes = [], []
    for member in members:
        branches = member.roi_heads.box_branches(member.backbone(prepared.tensor), proposals)
        of_stages = [branch.predict() for branch in branches]
        probs.append(sum(logits.softmax(1) for logits, _ in of_stages) / len(branches))
        last = branches[-1]
        boxes.append(torch.cat(last.predictor.predict_boxes(of_stages[-1], last.proposals)))
    counts = [len(p) for p in proposals]
    mean, std = sum(probs) / len(probs), torch.stack(probs).std(0, correction=0)
    found, kept = fast_rcnn_inference(
        (sum(boxes) / len(boxes)).split(counts), mean.split(counts), [p.image_size for p in proposals], 0.05, 0.5, 100
    )
    for image, (instances, index) in enumerate(zip(found, kept, strict=True)):
        instances.score_std = std.split(counts)[image][index, instances.pred_classes]
    return found


@pytest.mark.parametrize("name", ["C4", "FPN", "Cascade", "MaskFPN"])
@torch.no_grad()
def test_an_ensembles_detections_are_of_the_mean_of_its_members(name):
    paths = ("a.pth", "b.pth")
    options = ("MODEL.DDN.TEST.ENSEMBLE", True, "MODEL.DDN.TEACHER.WEIGHTS", paths)
    model, members = ddn_model(name, *options), other_members(name, 2)
    attach_teacher(tiny_config(name), model, members)
    prepared, _, proposals = pooling(model, images())
    expected = naive_ensemble(members, prepared, proposals)
    found = [output["instances"] for output in model(images())]
    assert sum(map(len, found)) > 4
    for mine, its in zip(found, expected, strict=True):
        assert torch.equal(mine.pred_classes, its.pred_classes)
        for field in ("scores", "score_std"):
            torch.testing.assert_close(mine.get(field), its.get(field), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mine.pred_boxes.tensor, its.pred_boxes.tensor, rtol=1e-4, atol=1e-3)
        assert mine.score_std.max() > 1e-3
        assert mine.has("pred_masks") == (name in ("MaskFPN", "Cascade"))


@torch.no_grad()
def test_an_ensemble_of_two_of_the_same_detects_what_it_does(name="FPN"):
    options = ("MODEL.DDN.TEST.ENSEMBLE", True, "MODEL.DDN.TEACHER.WEIGHTS", ("a.pth", "b.pth"))
    model, plain = ddn_model(name, *options), ddn_model(name)
    attach_teacher(tiny_config(name), model, [ddn_model(name), ddn_model(name)])
    for mine, its in zip(model(images()), plain(images()), strict=True):
        mine, its = mine["instances"], its["instances"]
        assert torch.equal(mine.scores, its.scores) and torch.equal(mine.pred_boxes.tensor, its.pred_boxes.tensor)
        assert not mine.score_std.any()


# --- faults ------------------------------------------------------------------------------------------------------


@every_head
@pytest.mark.parametrize("match", ["gt_iou", "per_proposal"])
def test_a_teacher_that_is_not_a_number_stops_the_training(name, match):
    model = taught(name, "MODEL.DDN.TARGETS.MATCH", match)
    with torch.no_grad():
        for key, value in model.roi_heads.teacher.module.named_parameters():
            if "cls_score.bias" in key:
                value[0] = torch.nan
    with pytest.raises(FloatingPointError, match="the teacher's logits are not finite"):
        losses_of(model, labelled(name))
    # and nothing is left behind that a later step would stumble over
    model.roi_heads.teacher = None
    assert TEACHER_LOGITS not in labelled(name)[0]["instances"].get_fields()
    losses_of(model, labelled(name))
