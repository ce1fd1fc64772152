"""Heads that give each class a probability of its own, as for LVIS; with the federated loss or without it."""

import copy

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from tiny_detectors import ddn_model, fields, images, labelled, losses_of, pooling, same, tiny_config

from ddn_detectron2.config import ConfigError
from ddn_detectron2.convert import to_plain
from ddn_detectron2.engine.export import export_plain
from uncertainty_core import derive_seed
from uncertainty_core.recalibration import ClassTemperature, Temperature, save
from uncertainty_core.sampling import mc_dropout

pytestmark = pytest.mark.skipif(
    "USE_SIGMOID_CE" not in get_cfg().MODEL.ROI_BOX_HEAD, reason="this Detectron2 has no heads with a sigmoid per class"
)
SIGMOID = ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True, "MODEL.DDN.TARGETS.AVERAGE", "probs")
EVERY = (*SIGMOID, "MODEL.DDN.TARGETS.MATCH", "per_proposal", "MODEL.DDN.LOSS", "kl", "MODEL.DDN.DD_WEIGHT", 1.0)


@pytest.mark.parametrize("name", ["FPN", "Cascade"])
def test_a_student_is_plain_detectron2s_detector(name, tmp_path):
    cfg, student = tiny_config(name, SIGMOID), ddn_model(name, *SIGMOID)
    weights, _ = export_plain(cfg, student, tmp_path)
    plain = build_model(to_plain(cfg)).eval()
    plain.load_state_dict(torch.load(weights, weights_only=True)["model"])
    with torch.no_grad():
        one, other = ([found["instances"] for found in model(images())] for model in (student, plain))
    assert sum(map(len, one)) > 0
    assert all(map(same, one, other))


@pytest.mark.parametrize("name", ["FPN", "Cascade"])
@torch.no_grad()
def test_monte_carlo_averages_the_sigmoids_of_each_class(name):
    options = ("MODEL.DDN.TEST.MC_SAMPLES", 3, "MODEL.DDN.TEST.SEED", 5, "MODEL.DDN.TEST.CLASS_PROBS", True)
    model = ddn_model(name, *SIGMOID, *options)
    prepared, features, proposals = pooling(model, images(1))
    heads = model.roi_heads
    branches, passes, deltas = heads.box_branches(features, proposals), [], []
    for draw in range(3):
        outputs = []
        for number, branch in enumerate(branches):
            with mc_dropout(branch.layers, seeds=[derive_seed(5, 0, draw, number)], counts=[len(proposals[0])]):
                outputs.append(branch.predict())
        passes.append(sum(logits.sigmoid() for logits, _ in outputs) / len(outputs))
        deltas.append(outputs[-1][1])
    last = branches[-1]
    boxes = last.predictor.predict_boxes((passes[0], torch.stack(deltas).mean(0)), last.proposals)
    mean, limits = torch.stack(passes).mean(0), heads.last_predictor
    [expected], [kept] = fast_rcnn_inference(
        boxes, [mean], [(64, 96)], limits.test_score_thresh, limits.test_nms_thresh, limits.test_topk_per_image
    )
    [found], _ = heads(prepared, features, proposals)
    assert len(found) > 0
    torch.testing.assert_close(found.scores, expected.scores)
    torch.testing.assert_close(found.class_probs, mean[kept, :-1])
    deviation = torch.stack(passes).std(0, correction=0)[kept, expected.pred_classes]
    torch.testing.assert_close(found.score_std, deviation, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["FPN", "Cascade"])
def test_the_loss_is_the_divergence_from_the_mean_of_the_passes(name):
    model, passes, given = ddn_model(name, *EVERY, teacher=True), [], []
    sampled = model.roi_heads.teacher.passes

    def record(*args):
        passes.append([])
        for branches, outputs in sampled(*args):
            passes[-1].append(outputs[0][0].sigmoid())
            yield branches, outputs

    model.roi_heads.teacher.passes = record
    predictors = model.roi_heads.box_predictor
    for predictor in predictors if name == "Cascade" else [predictors]:
        compute = predictor.distillation_loss
        predictor.distillation_loss = lambda logits, of, compute=compute: given.append(logits) or compute(logits, of)
    losses = losses_of(model, labelled(name))
    distances = [loss for key, loss in losses.items() if "loss_ddn" in key]
    assert len(distances) == len(passes) == len(given) == (3 if name == "Cascade" else 1)
    for distance, of_passes, logits in zip(distances, passes, given, strict=True):
        p, q = torch.stack(of_passes).mean(0)[:, :-1].double(), logits.double().sigmoid()[:, :-1]
        expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(1).mean()
        torch.testing.assert_close(distance.double(), expected, rtol=1e-4, atol=1e-6)
    sum(losses.values()).backward()
    scores = predictors[-1] if name == "Cascade" else predictors
    assert scores.cls_score.weight.grad[:-1].abs().sum(1).min() > 0
    assert not scores.cls_score.weight.grad[-1].any()  # the last logit means nothing


def test_the_federated_loss_is_detectron2s():
    model = copy.deepcopy(ddn_model("FPN", *EVERY, teacher=True))
    predictor = model.roi_heads.box_predictor
    predictor.use_fed_loss, predictor.fed_loss_num_classes = True, 2
    predictor.register_buffer("fed_loss_cls_weights", torch.tensor([0.1, 0.2, 0.3, 0.4]))
    assert {"loss_cls", "loss_ddn"} <= losses_of(model, labelled("FPN")).keys()


def test_paper_targets_of_sigmoid_heads():
    model = ddn_model("FPN", *SIGMOID, teacher=True)
    losses = losses_of(model, labelled("FPN"))
    assert losses["loss_ddn"].isfinite()
    assert losses["loss_ddn"] > 0


def test_calibrators_of_distributions_are_refused(tmp_path):
    file = str(tmp_path / "calibrator.json")
    options = (*SIGMOID, "MODEL.DDN.TEST.CALIBRATOR", file)
    save(ClassTemperature(2.0), file)
    with pytest.raises(ConfigError, match="each class a probability of its own: fit one for scores"):
        ddn_model("FPN", *options, "MODEL.DDN.TEST.CLASS_PROBS", True)
    save(Temperature(2.0), file)
    with torch.no_grad():
        found = ddn_model("FPN", *options)(images())[0]["instances"]
    assert "score_before" in fields(found)
