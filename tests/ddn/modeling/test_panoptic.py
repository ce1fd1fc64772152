"""PanopticFPN: its box head is distilled, and the rest of it is as it was."""

import pytest
import torch
from detectron2 import model_zoo
from detectron2.modeling import build_model
from tiny_detectors import give_moderate_weights, images, labelled, losses_of, same, shrink

from ddn_detectron2.config import ConfigError
from ddn_detectron2.convert import is_ddn, to_ddn, to_plain
from ddn_detectron2.engine.export import export_plain
from ddn_detectron2.teaching.store import attach_teacher


@pytest.fixture(scope="module")
def plain():
    """A tiny config and detector of the zoo. Not to be changed."""
    cfg = shrink(model_zoo.get_config("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"))
    cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = 32  # its normalisation has 32 groups
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 3
    return cfg, give_moderate_weights(build_model(cfg), images()).eval()


def student(plain, *options):
    cfg = to_ddn(plain[0])
    cfg.merge_from_list(list(options))
    model = build_model(cfg)
    model.load_state_dict(plain[1].state_dict())
    return cfg, model.eval()


def same_results(ours, theirs):
    """Boxes, masks, semantic and panoptic maps of every image, bit for bit."""
    return all(
        same(one["instances"], other["instances"])
        and torch.equal(one["sem_seg"], other["sem_seg"])
        and torch.equal(one["panoptic_seg"][0], other["panoptic_seg"][0])
        and one["panoptic_seg"][1] == other["panoptic_seg"][1]
        for one, other in zip(ours, theirs, strict=True)
    )


@torch.no_grad()
def test_conversion_changes_no_result(plain, tmp_path):
    cfg, model = student(plain)
    assert is_ddn(cfg)
    assert to_plain(cfg) == plain[0]
    expected = plain[1](images())
    assert any(len(result["instances"]) for result in expected)
    assert same_results(model(images()), expected)
    weights, _ = export_plain(cfg, model, tmp_path)
    exported = build_model(to_plain(cfg)).eval()
    exported.load_state_dict(torch.load(weights, weights_only=True)["model"])
    assert same_results(exported(images()), expected)


def test_a_step_trains_the_box_head_alone(plain):
    cfg, model = student(plain)
    attach_teacher(cfg, model)
    losses = losses_of(model, labelled("MaskFPN"))  # no "sem_seg" is needed
    assert losses.keys() == {"loss_cls", "loss_box_reg", "loss_ddn"}
    sum(losses.values()).backward()
    trained = {name for name, value in model.named_parameters() if value.grad is not None}
    parts = ("roi_heads.box_head.", "roi_heads.box_predictor.")
    assert trained == {name for name, _ in model.named_parameters() if name.startswith(parts)}


@torch.no_grad()
def test_monte_carlo_changes_boxes_and_leaves_the_semantic_map(plain):
    _, model = student(plain, "MODEL.DDN.TEST.MC_SAMPLES", 3)
    for result, expected in zip(model(images()), plain[1](images()), strict=True):
        assert torch.equal(result["sem_seg"], expected["sem_seg"])
        assert not same(result["instances"], expected["instances"])
        assert result["instances"].has("score_std")
        assert result["panoptic_seg"][0].shape == expected["panoptic_seg"][0].shape


@torch.no_grad()
def test_deviations_over_passes_are_in_pixels_of_the_original_image(plain):
    _, model = student(plain, "MODEL.DDN.TEST.MC_SAMPLES", 3)
    twice = [
        image | {"height": 2 * image["image"].shape[1], "width": 2 * image["image"].shape[2]} for image in images()
    ]
    once = [image | {"height": image["image"].shape[1], "width": image["image"].shape[2]} for image in images()]
    for large, small in zip(model(twice), model(once), strict=True):
        large, small = large["instances"], small["instances"]
        torch.testing.assert_close(large.pred_boxes.tensor, 2 * small.pred_boxes.tensor)
        torch.testing.assert_close(large.box_std, 2 * small.box_std)


def test_deviations_of_boxes_are_refused(plain):
    with pytest.raises(ConfigError, match="BOX_STD is not for PanopticFPN"):
        student(plain, "MODEL.DDN.BOX_STD", True)
