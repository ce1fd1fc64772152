"""Calibrators in segmentors: what they map, what they leave as it is, and which are refused."""

import json

import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.registry import MODELS
from tiny_segmentors import (
    BINARY,
    NUM_CLASSES,
    SLIDE,
    build,
    images,
    samples,
    segmentor_config,
    student_config,
    write_members,
)

from dudes_mmseg.models.calibration import by_content, half_of
from uncertainty_core import file_sha256
from uncertainty_core.errors import UserError
from uncertainty_core.recalibration import (
    ClassTemperature,
    ClassWise,
    Isotonic,
    IsotonicClasses,
    MatrixScaling,
    Platt,
    VectorScaling,
    save,
)

HOT = ClassTemperature(2.5)
PLATT = Platt(0.7, 0.4)
VECTOR = VectorScaling((0.5, 1.0, 1.5, 2.0), (0.3, 0.0, -0.2, 0.1))
KINDS = {
    "temperature": HOT,
    "vector": VECTOR,
    "matrix": MatrixScaling(tuple(tuple(0.1 * (3 * i + j) for j in range(4)) for i in range(4)), (0.0, 0.1, 0.2, 0.3)),
    "isotonic": IsotonicClasses(tuple(Isotonic((0.0, 0.4, 1.0), (0.1 * k, 0.2 * k, 0.3 * k)) for k in range(4))),
}
MOVED = {"flip": True, "flip_direction": "horizontal", "img_padding_size": (0, 8, 0, 6), "ori_shape": (25, 21)}
CLASS_WISE = {"uncertainty_head": {"num_outputs": NUM_CLASSES}}


def inline(calibrator):
    return ConfigDict(json.loads(calibrator.to_json()))


def calibrated_config(name="FCN", **options):
    config = segmentor_config(name)
    return ConfigDict({**config, "type": f"Calibrated{config['type']}", **options})


def ensemble_config(folder, **options):
    return {
        "type": "DeepEnsembleSegmentor",
        "segmentor": segmentor_config(),
        "checkpoints": write_members(folder, 2),
        **options,
    }


@torch.no_grad()
def predict(model, **metainfo):
    return model.predict(images(), samples(**metainfo))


@pytest.mark.parametrize("name", ["FCN", "OCR"])
def test_without_a_calibrator_no_bit_changes(name):
    for one, other in zip(*(predict(build(f(name))) for f in (segmentor_config, calibrated_config)), strict=True):
        assert torch.equal(one.seg_logits.data, other.seg_logits.data)
        assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)
    assert build(calibrated_config()).state_dict().keys() == build(segmentor_config()).state_dict().keys()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", [calibrated_config, student_config])
@pytest.mark.parametrize("options", [({"mode": "whole"}, MOVED), (SLIDE, {})])
def test_logits_are_calibrated_where_the_framework_ends(kind, config, options):
    test_cfg, metainfo = options
    plain = predict(build(config("OCR", test_cfg=test_cfg)), **metainfo)
    found = predict(build(config("OCR", test_cfg=test_cfg, calibrator=inline(KINDS[kind]))), **metainfo)
    for before, after in zip(plain, found, strict=True):
        expected = KINDS[kind].on_logits(before.seg_logits.data[None])[0]
        assert torch.equal(after.seg_logits.data, expected)
        assert torch.equal(after.pred_sem_seg.data, expected.argmax(0, keepdim=True))
        assert after.pred_sem_seg.data.dtype == before.pred_sem_seg.data.dtype
        changed = not torch.equal(after.pred_sem_seg.data, before.pred_sem_seg.data)
        assert changed == (kind != "temperature")
        if config is student_config:
            assert torch.equal(after.pred_uncertainty.data, before.pred_uncertainty.data)


def test_teacher_calibrates_its_consensus_and_no_target(tmp_path):
    plain = MODELS.build(ensemble_config(tmp_path, class_wise=True))
    path = tmp_path / "calibrator.json"
    save(KINDS["matrix"], path)
    both = {"calibrator": str(path), "uncertainty_calibrator": inline(PLATT)}
    teacher = MODELS.build(ensemble_config(tmp_path, class_wise=True, **both))
    for before, after in zip(predict(plain), predict(teacher), strict=True):
        expected = KINDS["matrix"].on_logits(before.seg_logits.data[None])[0]
        assert torch.equal(after.seg_logits.data, expected)
        assert torch.equal(after.pred_sem_seg.data, expected.argmax(0, keepdim=True))
        assert torch.equal(after.pred_uncertainty.data, PLATT(before.pred_uncertainty.data))
        assert torch.equal(after.pred_class_uncertainty.data, PLATT(before.pred_class_uncertainty.data))
    assert torch.equal(teacher.targets(images()), plain.targets(images()))
    with pytest.raises(UserError, match="members are averaged as they are: give calibrators to the teacher"):
        MODELS.build(ensemble_config(tmp_path) | {"segmentor": segmentor_config(calibrator="c.json")})


def test_binary_head():
    two = VectorScaling((0.5, 0.8), (0.0, 0.4))
    plain, student = (predict(build(student_config(**BINARY, **more))) for more in ({}, {"calibrator": inline(two)}))
    for before, after in zip(plain, student, strict=True):
        second = before.seg_logits.data[0]  # a probability
        expected = two(torch.stack((1 - second, second))[None])[0, 1]
        assert torch.equal(after.seg_logits.data[0], expected)
        assert torch.equal(after.pred_sem_seg.data[0], (expected > 0.4).to(before.pred_sem_seg.data))
    with pytest.raises(UserError, match="fitted for 4 classes, and here are 2"):
        build(student_config(**BINARY, calibrator=inline(VECTOR)))


@pytest.mark.parametrize("options", [{}, CLASS_WISE])
def test_uncertainty_has_a_calibrator_of_its_own(options):
    of_classes = ClassWise(tuple(Platt(0.5 + k, 0.1) for k in range(4)), tuple("abcd"), (30,) * 4, 20)
    plain = predict(build(student_config(**options)))
    student = build(student_config(**options, uncertainty_calibrator=inline(of_classes)))
    for before, after in zip(plain, predict(student), strict=True):
        classes = before.pred_sem_seg.data
        assert torch.equal(after.seg_logits.data, before.seg_logits.data)
        expected = of_classes(before.pred_uncertainty.data, classes)
        assert torch.equal(after.pred_uncertainty.data, expected)
        if options:  # what test-time augmentation averages and reads at the predicted class
            assert torch.equal(after.pred_class_uncertainty.data.gather(0, classes), expected)


def test_views_are_calibrated_one_by_one():
    config = student_config(data_preprocessor={"type": "SegDataPreProcessor"}, calibrator=inline(HOT))
    student, inputs = build(config), images(1)
    flipped = {"flip": True, "flip_direction": "horizontal"}
    data = {"inputs": [[inputs[0]], [inputs[0].flip(2)]], "data_samples": [samples(1), samples(1, **flipped)]}
    with torch.no_grad():
        (merged,) = MODELS.build({"type": "DUDESTTAModel", "module": student}).test_step(data)
        views = student.predict(inputs, samples(1)) + student.predict(inputs.flip(3), samples(1, **flipped))
    mean = sum(view.seg_logits.data.softmax(0) for view in views) / 2
    torch.testing.assert_close(merged.seg_logits.data.softmax(0), mean)


def test_of_two_calibrators_each_half_has_that_of_the_other():
    names = [f"city/{number}.png" for number in range(200)]
    halves = [half_of(name) for name in names]
    assert 80 < sum(halves) < 120  # five deviations of 200 coins are 35
    model = build(calibrated_config(calibrator=[inline(HOT), inline(VECTOR)]))
    for half, other in ((0, VECTOR), (1, HOT)):
        path = f"anywhere/{names[halves.index(half)]}"
        before, after = (predict(m, img_path=path)[0].seg_logits.data for m in (build(segmentor_config()), model))
        assert torch.equal(after, other.on_logits(before[None])[0])


def test_calibrators_of_something_else_are_refused(tmp_path):
    for options, message in (
        ({"calibrator": inline(VectorScaling((1.0,) * 3, (0.0,) * 3))}, "calibrator: .* for 3 classes, and here are 4"),
        ({"calibrator": inline(PLATT)}, "model.calibrator: .* is for scores, and one for class probabilities"),
        ({"calibrator": {"kind": "platt"}}, "model.calibrator: the calibrator has format None"),
        ({"calibrator": str(tmp_path / "none.json")}, "model.calibrator: .*none.json cannot be read"),
        ({"calibrator": [inline(HOT)] * 3}, "one of each half of the images, got 3"),
        ({"uncertainty_calibrator": inline(HOT)}, "model.uncertainty_calibrator: .* and one for scores is needed"),
    ):
        with pytest.raises(UserError, match=message):
            build(student_config(**options))


def test_a_file_counts_by_its_content(tmp_path):
    path = tmp_path / "calibrator.json"
    save(HOT, path)
    model = student_config(calibrator=[str(path), inline(HOT)])
    assert by_content(model) == {**model, "calibrator": [file_sha256(path), inline(HOT)]}
    assert by_content(student_config()) == student_config()
