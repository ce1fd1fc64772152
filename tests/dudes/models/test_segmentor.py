"""Students: what they are trained on, what they predict, and which weights they take."""

import math
import shutil
import weakref

import pytest
import torch
from mmengine.model import BaseTTAModel
from mmengine.runner.checkpoint import load_checkpoint
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS
from tiny_segmentors import (
    BINARY,
    HEIGHT,
    NUM_CLASSES,
    SLIDE,
    WIDTH,
    build,
    head,
    images,
    samples,
    segmentor_config,
    student_config,
    write_members,
)
from torch.nn import functional as F

from dudes_mmseg.models.consensus import both_classes
from uncertainty_core.errors import UserError
from uncertainty_core.targets.top_k import encode_top_k

KL = {"type": "MeanProbabilityLoss", "loss_weight": 3.0}
OUTPUTS = ("std", "entropy", "mutual_information", "error")
FOUR = {"uncertainty_head": {"outputs": OUTPUTS}}
CLASS_WISE = {"uncertainty_head": {"num_outputs": NUM_CLASSES}}
# as a pipeline leaves them: flipped, and padded by the data preprocessor to the network's size
MOVED = {"flip": True, "flip_direction": "horizontal", "img_padding_size": (0, 8, 0, 6), "ori_shape": (25, 21)}


def rmsle(model, **kwargs):
    return model.loss(images(), samples(**kwargs))["uncertainty.loss_rmsle"]


# --- predictions


@pytest.mark.parametrize("test_cfg", [{"mode": "whole"}, SLIDE])
@pytest.mark.parametrize("metainfo", [{}, MOVED])
@pytest.mark.parametrize("name", ["FCN", "OCR"])
def test_the_branch_changes_no_bit_of_a_prediction(test_cfg, metainfo, name):
    plain, student = build(segmentor_config(name, test_cfg=test_cfg)), build(student_config(name, test_cfg=test_cfg))
    plain_said, said = (model.predict(images(), samples(**metainfo)) for model in (plain, student))
    for one, other in zip(plain_said, said, strict=True):
        assert torch.equal(one.seg_logits.data, other.seg_logits.data)
        assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)
        uncertainty = other.pred_uncertainty.data
        assert uncertainty.shape == one.pred_sem_seg.data.shape
        assert uncertainty.dtype == torch.float32
        assert 0 < uncertainty.min() < uncertainty.max() < 1


def test_uncertainty_moves_to_the_image_as_logits_do():
    student = build(student_config())
    logits = student.predict(images(), samples())
    maps = torch.stack([sample.pred_uncertainty.data for sample in logits])
    moved = student.predict(images(), samples(**MOVED))
    for one, sample in zip(maps, moved, strict=True):
        cut = one[None, :, : HEIGHT - 6, : WIDTH - 8].flip(3)
        expected = F.interpolate(cut, MOVED["ori_shape"], mode="bilinear")[0]
        torch.testing.assert_close(sample.pred_uncertainty.data, expected, atol=1e-6, rtol=0)


@torch.no_grad()
def test_windows_are_averaged_as_probabilities():
    student = build(student_config(test_cfg=SLIDE))
    inputs, whole = images(1), build(student_config())
    total, count = torch.zeros(HEIGHT, WIDTH), torch.zeros(HEIGHT, WIDTH)
    for top in (0, 16, HEIGHT - 32):
        for left in (0, WIDTH - 40):
            window = inputs[:, :, top : top + 32, left : left + 40]
            total[top : top + 32, left : left + 40] += whole.predict(window)[0].pred_uncertainty.data[0]
            count[top : top + 32, left : left + 40] += 1
    said = student.predict(inputs, samples(1))[0].pred_uncertainty.data[0]
    torch.testing.assert_close(said, total / count, atol=1e-6, rtol=0)


def test_predictions_without_data_samples():
    said = build(student_config()).predict(images())
    assert [tuple(sample.pred_uncertainty.data.shape) for sample in said] == [(1, HEIGHT, WIDTH)] * 2


def test_the_tensor_that_a_pass_gives_is_the_framework_s():
    assert torch.equal(build(segmentor_config())(images()), build(student_config())(images()))


def test_class_wise_map_is_read_at_the_predicted_class():
    said = build(student_config(**CLASS_WISE)).predict(images(), samples(**MOVED))
    for sample in said:
        maps, prediction = sample.pred_class_uncertainty.data, sample.pred_sem_seg.data[0]
        assert maps.shape == (NUM_CLASSES, *MOVED["ori_shape"])
        for row in range(0, 25, 6):
            for column in range(0, 21, 5):
                assert sample.pred_uncertainty.data[0, row, column] == maps[prediction[row, column], row, column]


def test_binary_head():
    student = build(student_config(**BINARY))
    plain = build(segmentor_config(**BINARY))
    one, other = (model.predict(images(), samples())[0] for model in (plain, student))
    assert torch.equal(one.seg_logits.data, other.seg_logits.data)
    assert other.pred_uncertainty.data.shape == (1, HEIGHT, WIDTH)
    losses = student.train().loss(images(), samples(num_classes=2))
    assert losses["uncertainty.loss_rmsle"].isfinite()


def test_features_do_not_outlive_a_pass():
    student, seen = build(student_config()), []
    student.decode_head.conv_seg.register_forward_hook(lambda m, inputs, output: seen.append(weakref.ref(inputs[0])))
    with torch.no_grad():
        student.predict(images(), samples())
    losses = student.loss(images(), samples())
    student.parse_losses(losses)[0].backward()
    del losses
    assert len(seen) == 2
    assert [features() for features in seen] == [None, None]


# --- test-time augmentation


@pytest.mark.parametrize("options", [{}, CLASS_WISE, BINARY])
def test_flips_are_averaged_as_probabilities(options):
    student = build(student_config(data_preprocessor={"type": "SegDataPreProcessor"}, **options))
    inputs = images(1)
    tta = MODELS.build({"type": "DUDESTTAModel", "module": student})
    flipped = {"flip": True, "flip_direction": "horizontal"}
    data = {"inputs": [[inputs[0]], [inputs[0].flip(2)]], "data_samples": [samples(1), samples(1, **flipped)]}
    with torch.no_grad():
        (merged,) = tta.test_step(data)
        one = student.predict(inputs, samples(1))[0]
        other = student.predict(inputs.flip(3), samples(1, **flipped))[0]
    field = "pred_class_uncertainty" if options is CLASS_WISE else "pred_uncertainty"
    torch.testing.assert_close(merged.get(field).data, (one.get(field).data + other.get(field).data) / 2)
    if options is BINARY:
        mean = (one.seg_logits.data + other.seg_logits.data) / 2
        assert torch.equal(merged.seg_logits.data, mean)
        assert torch.equal(merged.pred_sem_seg.data, (mean > 0.4).long())
    else:
        mean = (one.seg_logits.data.softmax(0) + other.seg_logits.data.softmax(0)) / 2
        torch.testing.assert_close(merged.seg_logits.data.softmax(0), mean)
    if options is CLASS_WISE:
        expected = merged.pred_class_uncertainty.data.gather(0, merged.pred_sem_seg.data)
        assert torch.equal(merged.pred_uncertainty.data, expected)
    assert torch.equal(merged.gt_sem_seg.data, samples(1)[0].gt_sem_seg.data)


def test_merged_classes_are_the_framework_s_with_and_without_a_branch():
    inputs, flipped = images(1), {"flip": True, "flip_direction": "horizontal"}
    preprocessor = {"data_preprocessor": {"type": "SegDataPreProcessor"}}
    said = []
    for kind, config in (
        ("SegTTAModel", segmentor_config(**preprocessor)),
        ("DUDESTTAModel", segmentor_config(**preprocessor)),
        ("DUDESTTAModel", student_config(**preprocessor)),
    ):
        tta = MODELS.build({"type": kind, "module": build(config)})
        assert isinstance(tta, BaseTTAModel)
        data = {"inputs": [[inputs[0]], [inputs[0].flip(2)]], "data_samples": [samples(1), samples(1, **flipped)]}
        said.append(tta.test_step(data)[0])
    assert torch.equal(said[0].pred_sem_seg.data, said[1].pred_sem_seg.data)
    assert torch.equal(said[1].pred_sem_seg.data, said[2].pred_sem_seg.data)
    assert torch.equal(said[1].seg_logits.data, said[2].seg_logits.data)
    assert "pred_uncertainty" not in said[1]


# --- losses


def test_loss_is_the_rmsle_of_the_predicted_map():
    student = build(student_config())  # in eval mode dropout is off in the loss, too
    targets = samples()
    loss = rmsle(student)
    per_image = []
    for said, target in zip(student.predict(images(), samples()), targets, strict=True):
        squares = (torch.log1p(said.pred_uncertainty.data) - torch.log1p(target.gt_uncertainty.data)) ** 2
        per_image.append(squares.mean().sqrt())
    torch.testing.assert_close(loss, torch.stack(per_image).mean())


def test_perfect_student_has_no_loss_and_a_zero_gradient():
    student, targets = build(student_config()), samples()
    for said, target in zip(student.predict(images(), samples()), targets, strict=True):
        target.gt_uncertainty.data = said.pred_uncertainty.data.detach()
    loss = student.loss(images(), targets)["uncertainty.loss_rmsle"]
    loss.backward()
    assert loss == 0
    assert not student.uncertainty_head.conv.weight.grad.any()


def test_void_pixels_count():
    student, changed = build(student_config()), samples()
    void = changed[0].gt_sem_seg.data == 255
    changed[0].gt_uncertainty.data = torch.where(void, 0.9, changed[0].gt_uncertainty.data)
    assert student.loss(images(), changed)["uncertainty.loss_rmsle"] != rmsle(student)


def test_an_image_that_is_all_void_is_learned_from():
    student, void = build(student_config()), samples()
    for sample in void:
        sample.gt_sem_seg.data = torch.full_like(sample.gt_sem_seg.data, 255)
    losses = student.train().loss(images(), void)
    student.parse_losses(losses)[0].backward()
    assert losses["decode.loss_ce"] == 0
    assert losses["uncertainty.loss_rmsle"] > 0
    assert all(p.grad.isfinite().all() for p in student.parameters())


@pytest.mark.parametrize("value", [255.0, -1.0, math.nan])
def test_padding_has_no_influence(value):
    """Whether mmseg's Pad or the data preprocessor has padded."""
    student = build(student_config())
    by_transform, by_preprocessor = samples(), samples()
    for padded, smaller in zip(by_transform, by_preprocessor, strict=True):
        real = padded.gt_uncertainty.data[:, :-6, :-8].clone()
        padded.gt_uncertainty.data[:, -6:] = padded.gt_uncertainty.data[:, :, -8:] = value
        smaller.gt_uncertainty = PixelData(data=real)
        smaller.set_metainfo({"padding_size": (0, 8, 0, 6)})
    losses = [student.loss(images(), batch)["uncertainty.loss_rmsle"] for batch in (by_transform, by_preprocessor)]
    assert losses[0] == losses[1]
    whole = torch.stack([sample.pred_uncertainty.data for sample in student.predict(images(), samples())])
    target = torch.stack([sample.gt_uncertainty.data for sample in by_preprocessor])
    squares = (torch.log1p(whole[:, :, :-6, :-8]) - torch.log1p(target)) ** 2
    torch.testing.assert_close(losses[0], squares.flatten(1).mean(1).sqrt().mean())


def test_images_of_mixed_sizes_pass_through_the_data_preprocessor():
    student = build(student_config())
    sizes = [(40, 64), (56, 48)]
    pictures = [(images(1, size) * 60 + 127.5)[0].clamp(0, 255).byte() for size in sizes]
    data = {"inputs": pictures, "data_samples": [samples(1, size)[0] for size in sizes]}
    losses = student.train().forward(**student.data_preprocessor(data, training=True), mode="loss")
    student.parse_losses(losses)[0].backward()
    assert losses["uncertainty.loss_rmsle"] > 0


def test_class_wise_loss_reaches_every_output():
    student = build(student_config(**CLASS_WISE))
    rmsle(student, target=NUM_CLASSES).backward()
    assert student.uncertainty_head.conv.weight.grad.flatten(1).any(1).all()


def test_auxiliary_heads_keep_their_losses():
    auxiliary = head("FCNHead", in_channels=16, in_index=2)
    student = build(student_config(auxiliary_head=auxiliary))
    losses = student.train().loss(images(), samples())
    assert {"decode.loss_ce", "aux.loss_ce", "uncertainty.loss_rmsle"} <= losses.keys()


def test_mixed_precision():
    student = build(student_config()).train()
    exact = rmsle(student.eval())
    with torch.autocast("cpu", torch.bfloat16):  # as mmengine's AmpOptimWrapper does around the forward pass
        loss = rmsle(student)
        said = student.predict(images(), samples())[0].pred_uncertainty.data
        losses = student.train().loss(images(), samples())
    assert loss.dtype == said.dtype == torch.float32
    assert len(said.unique()) > 2**8  # as many values as 8 bits hold in an octave
    torch.testing.assert_close(loss, exact, rtol=0.02, atol=0)
    student.parse_losses(losses)[0].backward()
    assert all(values.grad.isfinite().all() and values.grad.any() for values in student.parameters())


def test_half_precision_overflows_and_recovers():
    # the scale starts so high that gradients overflow; steps are left out until it has come down, as on a GPU
    student = build(student_config()).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_interval=1000)
    start, scales, taken = [v.detach().clone() for v in student.parameters()], [], 0
    while taken < 2 and len(scales) < 50:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = student.parse_losses(student.loss(images(), samples()))[0]
        assert loss.isfinite()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
        skipped = scales[-1] < (scales[-2] if len(scales) > 1 else 2.0**40)
        taken += not skipped
        if not taken:
            assert all(torch.equal(*pair) for pair in zip(student.parameters(), start, strict=True))
    assert taken == 2 and len(scales) > 4
    assert all(values.isfinite().all() for values in student.parameters())
    assert not any(torch.equal(*pair) for pair in zip(student.parameters(), start, strict=True))


# --- targets that are not there


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target": 0}, "folder/0.png has no uncertainty target: put LoadUncertaintyTarget .* or give .* a teacher"),
        ({"target": 3}, "folder/0.png has a target of 3 maps for an uncertainty head with num_outputs=1"),
        ({"size": (HEIGHT, 60)}, "folder/0.png is 64x56 pixels in the batch, but its target 60x56"),
    ],
)
def test_missing_and_wrong_targets(given, message):
    with pytest.raises(UserError, match=message):
        build(student_config()).loss(images(), samples(**given))


def test_numbers_of_outputs_that_make_no_sense():
    with pytest.raises(UserError, match=r"uncertainty_head.num_outputs must be 1, or 4 .*, got 3"):
        MODELS.build(student_config(uncertainty_head={"num_outputs": 3}))


# --- weights


def test_weights_of_a_baseline_fit_and_the_log_says_what_starts_fresh(log, tmp_path):
    (path,) = write_members(tmp_path, 1)
    student = MODELS.build(student_config())
    branch = student.uncertainty_head.conv.weight.clone()
    load_checkpoint(student, path, map_location="cpu")  # as load_from and --resume do
    assert [line for line in log if "uncertainty_head" in line] == [
        "The loaded weights hold no uncertainty_head: it starts fresh, from random weights."
    ]
    assert not any("do not match" in line for line in log)
    plain = build(segmentor_config())
    assert all(torch.equal(student.state_dict()[name], values) for name, values in plain.state_dict().items())
    assert torch.equal(student.uncertainty_head.conv.weight, branch)
    student.load_state_dict(plain.state_dict(), strict=True)


def test_weights_of_a_student_are_loaded_without_a_word(log):
    student, other = build(student_config()), MODELS.build(student_config())
    other.load_state_dict(student.state_dict())
    assert torch.equal(student.uncertainty_head.conv.weight, other.uncertainty_head.conv.weight)
    assert not any("uncertainty_head" in line for line in log)


def test_the_branch_is_fresh_also_where_mmseg_initialises_from_a_file(tmp_path):
    (path,) = write_members(tmp_path, 1)
    student = MODELS.build(student_config(init_cfg={"type": "Pretrained", "checkpoint": path}))
    student.init_weights()
    assert torch.equal(student.backbone.stages[0][0].weight, build(segmentor_config()).backbone.stages[0][0].weight)
    assert 0 < student.uncertainty_head.conv.weight.abs().max() < 0.1
    assert isinstance(student, EncoderDecoder)


# --- a teacher that rides along


@pytest.fixture(params=["DeepEnsembleSegmentor", "MCDropoutSegmentor"])
def teacher(request, tmp_path):
    """The config of a teacher."""
    paths = write_members(tmp_path, 2)
    given = (
        {"checkpoints": paths}
        if request.param == "DeepEnsembleSegmentor"
        else {"checkpoint": paths[0], "num_samples": 2}
    )
    return {"type": request.param, "segmentor": segmentor_config(), **given}


def test_teacher_is_neither_trained_nor_saved_nor_in_training_mode(teacher):
    student, plain = build(student_config(teacher=teacher)), build(student_config())
    student.init_weights()
    student.train()
    members = student.teacher.module
    before = {name: values.clone() for name, values in members.state_dict().items()}
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    student.parse_losses(student.loss(images(), samples(target=0)))[0].backward()
    optimizer.step()
    assert all(values.grad is not None for values in student.parameters())
    assert all(values.grad is None and not values.requires_grad for values in members.parameters())
    assert not any(module.training for module in members.modules())
    assert student.state_dict().keys() == plain.state_dict().keys()
    after = members.state_dict()
    assert all(torch.equal(values, after[name]) for name, values in before.items())


@pytest.mark.parametrize("options", [{}, CLASS_WISE])
def test_online_targets_are_what_the_teacher_says_of_the_very_same_inputs(teacher, options):
    student = build(student_config(teacher=teacher, **options))
    alone = MODELS.build(teacher)
    stored = samples(target=0)
    for sample, maps in zip(stored, alone.targets(images(), stored, class_wise=bool(options)), strict=True):
        sample.gt_uncertainty = PixelData(data=maps)
    expected = build(student_config(**options)).loss(images(), stored)["uncertainty.loss_rmsle"]
    assert rmsle(student, target=0) == expected


def test_padding_is_left_out_of_online_targets(teacher):
    student = build(student_config(teacher=teacher, loss_distillation=KL))
    marked, by_preprocessor = samples(target=0), samples(target=0, padding_size=(0, 8, 0, 6))
    for sample in marked:
        marks = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.uint8)
        marks[:, -6:] = marks[:, :, -8:] = 255
        sample.real_pixels = PixelData(data=marks)
    losses = [student.loss(images(), batch) for batch in (marked, by_preprocessor, samples(target=0))]
    for name in ("uncertainty.loss_rmsle", "distillation.loss_kl"):
        assert losses[0][name] == losses[1][name] != losses[2][name]
    with torch.no_grad():
        expected = kl_of_real_pixels(student, teacher, (slice(None), slice(-6), slice(-8)))
    torch.testing.assert_close(losses[0]["distillation.loss_kl"], expected)


# --- the teacher's mean probabilities


def kl_of_real_pixels(student, teacher, real):
    """3 times the mean over images and `real` pixels, void ones included, of sum_c p_c (log p_c - log q_c)."""
    p, q = (
        torch.stack([sample.seg_logits.data.softmax(0) for sample in model.predict(images(), samples())])
        for model in (MODELS.build(teacher), student)
    )
    return 3 * (p * (p.log() - q.log())).sum(1)[real].mean()


@pytest.mark.parametrize("options", [{}, CLASS_WISE])
def test_loss_of_mean_probabilities(teacher, options):
    student = build(student_config(teacher=teacher, loss_distillation=KL, **options)).eval()
    losses = student.loss(images(), samples(target=0))
    assert set(losses) == {"decode.loss_ce", "decode.acc_seg", "uncertainty.loss_rmsle", "distillation.loss_kl"}
    torch.testing.assert_close(losses["distillation.loss_kl"], kl_of_real_pixels(student, teacher, ...))
    # the others are what they are without it, bit by bit, and labels have no part in it
    without = build(student_config(teacher=teacher, **options)).loss(images(), samples(target=0))
    assert all(torch.equal(values, losses[name]) for name, values in without.items())
    other = student.loss(images(), samples(target=0, seed=1))
    assert other["distillation.loss_kl"] == losses["distillation.loss_kl"]
    losses["distillation.loss_kl"].backward()
    trained = {name for name, values in student.named_parameters() if values.grad is not None and values.grad.any()}
    assert trained == {name for name, _ in student.named_parameters() if "uncertainty_head" not in name}


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_its_probabilities(tmp_path):
    (path,) = write_members(tmp_path, 1)
    paths = [path, str(shutil.copy(path, tmp_path / "copy.pth"))]
    teacher = {"type": "DeepEnsembleSegmentor", "segmentor": segmentor_config(), "checkpoints": paths}
    loss = build(student_config(teacher=teacher, loss_distillation=KL)).loss(images(), samples(target=0))
    assert loss["distillation.loss_kl"].item() == pytest.approx(0, abs=1e-6)


def test_mean_probabilities_of_a_sigmoid(tmp_path):
    paths = write_members(tmp_path, 2, **BINARY)
    teacher = {"type": "DeepEnsembleSegmentor", "segmentor": segmentor_config(**BINARY), "checkpoints": paths}
    student = build(student_config(teacher=teacher, loss_distillation=KL, **BINARY))
    loss = student.loss(images(), samples(target=0, num_classes=2))["distillation.loss_kl"]
    p, q = (
        torch.stack([sample.seg_logits.data for sample in model.predict(images(), samples())])
        for model in (student.teacher.module, student)
    )
    torch.testing.assert_close(loss, 3 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean())


@pytest.mark.parametrize("options", [{}, BINARY])
def test_stored_probabilities_teach_what_a_teacher_at_hand_does(tmp_path, options):
    """With k classes nothing is left to be spread, and 8 bits of a root are off by little."""
    paths = write_members(tmp_path, 2, **options)
    teacher = {"type": "DeepEnsembleSegmentor", "segmentor": segmentor_config(**options), "checkpoints": paths}
    online = build(student_config(teacher=teacher, loss_distillation=KL, **options))
    mean = both_classes(online.teacher.module.judge(images(), samples(target=0)).prediction.probabilities)
    stored = samples(num_classes=mean.shape[1])
    for sample, codes in zip(stored, encode_top_k(mean, mean.shape[1]).int(), strict=True):
        sample.gt_probabilities = PixelData(data=codes)
        for field in ("gt_uncertainty", "gt_probabilities"):
            values = sample.get(field).data
            values[:, -6:] = values[:, :, -8:] = 255
    marked = samples(target=0, padding_size=(0, 8, 0, 6), num_classes=mean.shape[1])
    student = build(student_config(loss_distillation=KL, **options))
    losses = [model.loss(images(), batch) for model, batch in ((online, marked), (student, stored))]
    torch.testing.assert_close(*(loss["distillation.loss_kl"] for loss in losses), atol=1e-3, rtol=0)


def test_mean_probabilities_that_are_not_there():
    with pytest.raises(UserError, match=r"0.png has no mean probabilities .* with --top-k 3"):
        build(student_config(loss_distillation=KL)).loss(images(), samples())


def test_a_teacher_of_other_classes_is_refused(teacher):
    decode_head = head("FCNHead", num_classes=3)
    with pytest.raises(UserError, match="teacher has 4 outputs for 3 of the student"):
        MODELS.build(student_config(teacher=teacher, decode_head=decode_head))


# --- several outputs


def fields(sample):
    return {name: sample.get(f"pred_{'uncertainty' if name == 'std' else name}").data for name in OUTPUTS}


@pytest.mark.parametrize("test_cfg", [{"mode": "whole"}, SLIDE])
def test_each_output_is_the_map_of_a_head_that_has_it_alone(test_cfg):
    student = build(student_config(test_cfg=test_cfg, **FOUR))
    assert sum(p.numel() for p in student.uncertainty_head.parameters()) == 4 * (student.decode_head.channels + 1)
    one, conv = build(student_config(test_cfg=test_cfg)), student.uncertainty_head.conv
    for number, name in enumerate(OUTPUTS):
        with torch.no_grad():
            one.uncertainty_head.conv.weight.copy_(conv.weight[number : number + 1])
            one.uncertainty_head.conv.bias.copy_(conv.bias[number : number + 1])
        said = zip(student.predict(images(), samples(**MOVED)), one.predict(images(), samples(**MOVED)), strict=True)
        for sample, alone in said:
            torch.testing.assert_close(fields(sample)[name], alone.pred_uncertainty.data, atol=1e-6, rtol=0)
            assert torch.equal(sample.seg_logits.data, alone.seg_logits.data)


def test_other_outputs_beside_a_deviation_of_each_class():
    head_config = {"num_outputs": NUM_CLASSES, "outputs": ("std", "entropy")}
    said = build(student_config(uncertainty_head=head_config)).predict(images(), samples())[0]
    assert said.pred_class_uncertainty.data.shape == (NUM_CLASSES, HEIGHT, WIDTH)
    assert said.pred_uncertainty.data.shape == said.pred_entropy.data.shape == (1, HEIGHT, WIDTH)


def test_flips_average_every_output():
    student = build(student_config(data_preprocessor={"type": "SegDataPreProcessor"}, **FOUR))
    inputs, flipped = images(1), {"flip": True, "flip_direction": "horizontal"}
    data = {"inputs": [[inputs[0]], [inputs[0].flip(2)]], "data_samples": [samples(1), samples(1, **flipped)]}
    with torch.no_grad():
        (merged,) = MODELS.build({"type": "DUDESTTAModel", "module": student}).test_step(data)
        views = [student.predict(inputs, samples(1))[0], student.predict(inputs.flip(3), samples(1, **flipped))[0]]
    for name, values in fields(merged).items():
        torch.testing.assert_close(values, sum(fields(view)[name] for view in views) / 2)


def with_stored(batch, teacher, k=NUM_CLASSES):
    """The batch with what a store would give: maps, and coded probabilities."""
    prediction, maps = MODELS.build(teacher).judge(images(), batch, outputs=OUTPUTS[:3])
    codes = encode_top_k(prediction.probabilities, k).int()
    for number, sample in enumerate(batch):
        sample.gt_probabilities = PixelData(data=codes[number])
        for name, values in maps.items():
            field = "gt_uncertainty" if name == "std" else f"gt_{name}"
            sample.set_data({field: PixelData(data=values[number])})
    return batch


def test_losses_of_four_outputs(teacher):
    """Void counts but for the error, padding nowhere; targets from a store teach what those of a teacher at hand do."""
    student = build(student_config(teacher=teacher, **FOUR))
    batch = samples(target=0, padding_size=(0, 8, 0, 6))
    losses = student.loss(images(), batch)
    said = [fields(sample) for sample in student.predict(images(), samples())]
    prediction, maps = student.teacher.module.judge(images(), batch, outputs=OUTPUTS[:3])
    real = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    real[:-6, :-8] = True
    for name in OUTPUTS[:3]:
        per_image = []
        for number, found in enumerate(said):
            squares = (torch.log1p(found[name][0]) - torch.log1p(maps[name][number, 0])) ** 2
            per_image.append(squares[real].mean().sqrt())
        field = "uncertainty" if name == "std" else name
        torch.testing.assert_close(losses[f"{field}.loss_rmsle"], torch.stack(per_image).mean())
    terms = []
    for number, found in enumerate(said):
        label, p = batch[number].gt_sem_seg.data[0], prediction.probabilities[number]
        for k in range(NUM_CLASSES):
            z, q = (1 - p[k])[real & (label == k)], found["error"][0][real & (label == k)]
            terms.append(-(z * q.log() + (1 - z) * (1 - q).log()))
    torch.testing.assert_close(losses["error.loss_bce"], torch.cat(terms).mean())

    stored = with_stored(samples(target=0), teacher)
    for sample in stored:
        for field in ("gt_uncertainty", "gt_entropy", "gt_mutual_information", "gt_probabilities"):
            values = sample.get(field).data
            values[:, -6:] = values[:, :, -8:] = 255
    from_store = build(student_config(**FOUR)).loss(images(), stored)
    for name, value in losses.items():
        torch.testing.assert_close(from_store[name], value, atol=1e-3, rtol=0)


def test_each_output_has_its_loss_and_a_gradient_of_its_own(teacher):
    choice = {"outputs": OUTPUTS, "loss": {"entropy": {"type": "SoftBCELoss", "loss_weight": 2.0}}}
    student = build(student_config(teacher=teacher, uncertainty_head=choice))
    losses = student.loss(images(), samples(target=0))
    names = ("uncertainty.loss_rmsle", "entropy.loss_bce", "mutual_information.loss_rmsle", "error.loss_bce")
    assert {name for name in losses if "decode" not in name} == set(names)
    for number, name in enumerate(names):
        student.zero_grad()
        losses[name].backward(retain_graph=True)
        trained = student.uncertainty_head.conv.weight.grad.flatten(1).any(1)
        assert trained.tolist() == [row == number for row in range(4)]
        assert all(p.grad.isfinite().all() for p in student.parameters() if p.grad is not None)


def test_an_image_that_is_all_void_has_no_error_to_learn(teacher):
    void = samples(target=0)
    for sample in void:
        sample.gt_sem_seg.data = torch.full_like(sample.gt_sem_seg.data, 255)
    student = build(student_config(teacher=teacher, **FOUR)).train()
    losses = student.loss(images(), void)
    student.parse_losses(losses)[0].backward()
    assert losses["error.loss_bce"] == 0 < losses["entropy.loss_rmsle"]
    assert all(p.grad.isfinite().all() for p in student.parameters())


def test_error_of_a_sigmoid(tmp_path):
    teacher = {"type": "DeepEnsembleSegmentor", "segmentor": segmentor_config(**BINARY)}
    teacher["checkpoints"] = write_members(tmp_path, 2, **BINARY)
    student = build(student_config(teacher=teacher, uncertainty_head={"outputs": ("std", "error")}, **BINARY))
    batch = samples(target=0, num_classes=2)
    second = student.teacher.module.judge(images(), batch).prediction.probabilities
    labels = torch.stack([sample.gt_sem_seg.data for sample in batch])
    targets = student._targets(images(), batch)
    counts = targets.masks["error"]
    assert torch.equal(counts, labels[:, 0] != 255) and targets.masks["std"].all()
    expected = torch.where(labels == 1, 1 - second, second)
    torch.testing.assert_close(targets.maps["error"][:, 0][counts], expected[:, 0][counts])


def test_own_error_is_that_of_the_student_alone():
    """Of its own probabilities where there is a label, and without a teacher: the loss is that of a slow sum."""
    student = build(student_config(uncertainty_head={"outputs": ("std", "own_error")}))
    batch = samples()
    for sample in batch:
        sample.gt_uncertainty.data[:, -6:] = sample.gt_uncertainty.data[:, :, -8:] = 255  # padding
    losses = student.loss(images(), batch)
    terms = []
    for said, truth in zip(student.predict(images(), samples()), batch, strict=True):
        label, p, q = truth.gt_sem_seg.data[0], said.seg_logits.data.softmax(0), said.pred_own_error.data[0]
        for k in range(NUM_CLASSES):
            here = label[:-6, :-8] == k
            z, of_k = 1 - p[k, :-6, :-8][here], q[:-6, :-8][here]
            terms.append(-(z * of_k.log() + (1 - z) * (1 - of_k).log()))
    torch.testing.assert_close(losses["own_error.loss_bce"], torch.cat(terms).mean())
    plain = build(student_config()).loss(images(), batch)
    assert torch.equal(losses["decode.loss_ce"], plain["decode.loss_ce"])


def reached(student, loss):
    """Modules with a parameter that the gradient of a loss reaches."""
    student.zero_grad()
    loss.backward(retain_graph=True)
    named = student.named_parameters()
    return {name.partition(".")[0] for name, values in named if values.grad is not None and values.grad.any()}


@pytest.mark.parametrize("hidden", [None, 6])
def test_own_error_changes_nothing_but_the_head(hidden):
    choice = {"num_outputs": NUM_CLASSES, "outputs": ("std", "own_error"), "hidden": hidden}
    student = build(student_config(uncertainty_head=choice))
    losses = student.loss(images(), samples(target=NUM_CLASSES))
    assert reached(student, losses["own_error.loss_bce"]) == {"uncertainty_head"}
    of_rows = student.uncertainty_head.conv.weight.grad.flatten(1).any(1).tolist()
    assert of_rows == [False] * NUM_CLASSES + [True]
    assert hidden is None or student.uncertainty_head.hidden.weight.grad.any()
    assert reached(student, losses["uncertainty.loss_rmsle"]) == {"backbone", "decode_head", "uncertainty_head"}
    assert student.decode_head.conv_seg.weight.grad is None


def test_own_error_that_changes_the_features():
    """Where it is asked for; its target stays a constant, so the layer that makes the logits is never reached."""
    student = build(student_config(uncertainty_head={"outputs": ("std", "own_error"), "detached": ()}))
    loss = student.loss(images(), samples())["own_error.loss_bce"]
    assert reached(student, loss) == {"backbone", "decode_head", "uncertainty_head"}
    assert student.decode_head.conv_seg.weight.grad is None


@torch.no_grad()
def test_hidden_layer():
    student = build(student_config(uncertainty_head={"outputs": ("std", "own_error"), "hidden": 6}))
    branch = student.uncertainty_head
    features = torch.randn(1, student.decode_head.channels, 2, 3)
    for row, column in ((0, 0), (1, 2)):
        hidden = (branch.hidden.weight[:, :, 0, 0] @ features[0, :, row, column] + branch.hidden.bias).clamp(min=0)
        expected = branch.conv.weight[:, :, 0, 0] @ hidden + branch.conv.bias
        torch.testing.assert_close(branch(features)[0, :, row, column], expected)
    assert sum(values.numel() for values in branch.parameters()) == 6 * (8 + 1) + 2 * (6 + 1)  # of 8 features


@pytest.mark.parametrize(
    ("choice", "message"), [({"detached": ["doubt"]}, "names of outputs"), ({"hidden": 0}, "hidden")]
)
def test_heads_that_make_no_sense(choice, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(student_config(uncertainty_head=choice))


def test_outputs_under_mixed_precision(teacher):
    student = build(student_config(teacher=teacher, loss_distillation=KL, **FOUR)).train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = student.loss(images(), samples(target=0))
    assert all(values.dtype == torch.float32 for name, values in losses.items() if "decode" not in name)
    student.parse_losses(losses)[0].backward()
    assert all(values.grad.isfinite().all() and values.grad.any() for values in student.parameters())


@pytest.mark.parametrize("outputs", [("entropy", "std"), ("std", "std"), ("std", "doubt")])
def test_outputs_that_make_no_sense(outputs):
    with pytest.raises(UserError, match='outputs must begin with "std", and may go on with entropy, '):
        MODELS.build(student_config(uncertainty_head={"outputs": outputs}))


def test_outputs_whose_targets_are_not_there():
    head_config = {"outputs": ("std", "entropy")}
    with pytest.raises(UserError, match=r"0.png has no target of entropy: generate the targets with --outputs "):
        build(student_config(uncertainty_head=head_config)).loss(images(), samples())
