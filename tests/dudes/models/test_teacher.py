"""Teachers: what several predictors say together, and how little memory and work it takes."""

import math
import weakref

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import MODELS
from PIL import Image
from tiny_segmentors import (
    BINARY,
    HEADS,
    HEIGHT,
    NUM_CLASSES,
    SLIDE,
    WIDTH,
    TinyBackbone,
    build,
    head,
    images,
    samples,
    segmentor_config,
    write_members,
)

from dudes_mmseg.models.consensus import probabilities
from dudes_mmseg.models.teacher import features_from
from uncertainty_core import derive_seed
from uncertainty_core.errors import UserError
from uncertainty_core.io.strict_json import strict_json
from uncertainty_core.sampling import mc_dropout

MOVED = {"flip": True, "flip_direction": "vertical", "img_padding_size": (0, 8, 0, 6), "ori_shape": (25, 21)}


def ensemble(paths, segmentor=None, **options):
    config = {"type": "DeepEnsembleSegmentor", "segmentor": segmentor or segmentor_config(), "checkpoints": paths}
    return MODELS.build(config | options)


def dropout(path, num_samples=3, segmentor=None, **options):
    config = {"type": "MCDropoutSegmentor", "segmentor": segmentor or segmentor_config(), "checkpoint": path}
    return MODELS.build(config | {"num_samples": num_samples} | options)


@pytest.fixture
def paths(tmp_path):
    """Checkpoints of three members, the weights of `build(segmentor_config(), seed)`."""
    return write_members(tmp_path, 3)


def stacked(options, metainfo):
    """Probabilities (3, 2, C, H, W) that the three members give on their own, as the framework post-processes them."""
    said = [build(segmentor_config(**options), seed).predict(images(), samples(**metainfo)) for seed in range(3)]
    return torch.stack([torch.stack([s.seg_logits.data.softmax(0) for s in one]) for one in said]).detach()


# --- ensembles


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize(("options", "metainfo"), [({}, {}), ({"test_cfg": SLIDE}, MOVED)])
def test_ensemble_against_stacked_members(paths, resident, ddof, options, metainfo):
    members = stacked(options, metainfo)
    teacher = ensemble(paths, segmentor_config(**options), resident=resident, ddof=ddof, class_wise=True)
    mean, class_std = members.mean(0), members.std(0, correction=ddof)
    for number, said in enumerate(teacher.predict(images(), samples(**metainfo))):
        torch.testing.assert_close(said.seg_logits.data.softmax(0), mean[number])
        torch.testing.assert_close(said.pred_class_uncertainty.data, class_std[number], atol=1e-6, rtol=1e-4)
        prediction = said.pred_sem_seg.data
        assert torch.equal(prediction[0], mean[number].argmax(0))
        expected = class_std[number].gather(0, prediction)
        torch.testing.assert_close(said.pred_uncertainty.data, expected, atol=1e-6, rtol=1e-4)


def test_binary_members(tmp_path):
    paths = write_members(tmp_path, 3, **BINARY)
    config = segmentor_config(**BINARY)
    alone = [build(config, seed).predict(images(), samples())[0].seg_logits.data for seed in range(3)]
    said = ensemble(paths, config).predict(images(), samples())[0]
    torch.testing.assert_close(said.seg_logits.data, torch.stack(alone).mean(0))
    assert torch.equal(said.pred_sem_seg.data, (said.seg_logits.data > 0.4).long())
    torch.testing.assert_close(said.pred_uncertainty.data, torch.stack(alone).std(0), atol=1e-6, rtol=1e-4)


def test_targets_at_the_size_of_the_input(paths):
    members = stacked({}, {})
    teacher, inputs = ensemble(paths), images()
    class_std = members.std(0)
    of_predicted = class_std.gather(1, members.mean(0).argmax(1, keepdim=True))
    moved = samples(**MOVED)  # what happened to the images does not matter: a target belongs to the input
    torch.testing.assert_close(teacher.targets(inputs, moved), of_predicted, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(teacher.targets(inputs, moved, class_wise=True), class_std, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(teacher(inputs).softmax(1), members.mean(0))


OUTPUTS = ["std", "entropy", "mutual_information"]


@pytest.mark.parametrize("kind", ["ensemble", "dropout", "binary"])
def test_entropy_and_mutual_information_against_stacked_members(paths, tmp_path, kind):
    options = BINARY if kind == "binary" else {}
    paths = write_members(tmp_path / "binary", 3, **BINARY) if options else paths
    given = {"segmentor": segmentor_config(**options), "outputs": OUTPUTS}
    teacher = dropout(paths[0], rate=0.5, **given) if kind == "dropout" else ensemble(paths, **given)
    metainfo = [dict(sample.metainfo) for sample in samples()]
    members = torch.stack([probabilities(logits) for logits in teacher.passes(images(), metainfo)]).detach()
    if options:
        members = torch.cat((1 - members, members), dim=2)

    def entropy(p):
        return -(p * p.log()).sum(-3, keepdim=True) / math.log(p.shape[-3])

    expected = {"entropy": entropy(members.mean(0))}
    expected["mutual_information"] = expected["entropy"] - entropy(members).mean(0)
    assert expected["mutual_information"].min() > -1e-6 and expected["mutual_information"].max() > 0.01
    prediction, maps = teacher.judge(images(), samples(), outputs=OUTPUTS)
    assert list(maps) == OUTPUTS
    torch.testing.assert_close(maps["std"], teacher.targets(images(), samples()), rtol=0, atol=0)
    for number, said in enumerate(teacher.predict(images(), samples())):
        for name, values in expected.items():
            torch.testing.assert_close(maps[name], values, atol=2e-6, rtol=1e-4)
            torch.testing.assert_close(said.get(f"pred_{name}").data, values[number], atol=2e-6, rtol=1e-4)
        assert torch.equal(said.pred_sem_seg.data, prediction.classes[number])


def test_an_image_is_judged_by_members_that_never_saw_it(tmp_path):
    paths = write_members(tmp_path, 4)
    for number in range(4):  # of three images the third is in no training
        content = strict_json({"images": [f"folder/{number % 2}.png"]})
        (tmp_path / f"member_{number}" / "held_out.json").write_text(content)
    options = {"outputs": OUTPUTS, "resident": True}
    teacher, everyone = ensemble(paths, out_of_fold=True, **options), ensemble(paths, **options)
    halves = [ensemble(paths[part::2], **options) for part in range(2)]
    judged = teacher.judge(images(3), samples(3), outputs=OUTPUTS)
    said = teacher.predict(images(3), samples(3))
    for image, asked in enumerate((*halves, everyone)):
        expected = asked.judge(images(3), samples(3), outputs=OUTPUTS)
        torch.testing.assert_close(judged.prediction.probabilities[image], expected.prediction.probabilities[image])
        for name in OUTPUTS:
            torch.testing.assert_close(judged.maps[name][image], expected.maps[name][image])
        alone = asked.predict(images(3), samples(3))[image]
        assert torch.equal(said[image].pred_sem_seg.data, alone.pred_sem_seg.data)
        torch.testing.assert_close(said[image].pred_uncertainty.data, alone.pred_uncertainty.data)
    assert not torch.allclose(judged.maps["std"][0], everyone.targets(images(3), samples(3))[0], atol=1e-3)


@pytest.mark.parametrize("outputs", [["entropy"], ["std", "std"], ["std", "variance"], ["std", "error"], []])
def test_outputs_that_a_teacher_has_not(paths, outputs):
    with pytest.raises(UserError, match=r'outputs must begin with "std"|leave "error" out of its outputs'):
        ensemble(paths, outputs=outputs)


def test_images_of_a_batch_may_differ_in_size(paths):
    teacher = ensemble(paths)
    together = teacher.predict(images(), samples(1) + samples(1, **MOVED))
    for said, image, sample in zip(together, images().split(1), (samples(1), samples(1, **MOVED)), strict=True):
        torch.testing.assert_close(said.pred_uncertainty.data, teacher.predict(image, sample)[0].pred_uncertainty.data)


def test_members_take_turns_also_under_mixed_precision(paths):
    """Autocast keeps its copies of weights, which are another member's in the next turn."""
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        one, other = (ensemble(paths, resident=resident).targets(images()) for resident in (False, True))
    assert torch.equal(one, other)


def test_only_residents_stay_in_memory(paths):
    def weights(teacher):
        return sum(values.numel() for values in teacher.parameters())

    single = sum(values.numel() for values in build(segmentor_config()).parameters())
    assert weights(ensemble(paths)) == single
    assert weights(ensemble(paths, resident=True)) == 3 * single


@pytest.mark.parametrize("resident", [False, True])
def test_nothing_of_a_pass_is_kept(paths, resident):
    teacher, passes = ensemble(paths, resident=resident), []
    with torch.no_grad():
        for logits in teacher.passes(images(), [dict(sample.metainfo) for sample in samples()]):
            passes.append(weakref.ref(logits))
            del logits
            assert sum(one() is not None for one in passes) <= 1


@pytest.mark.parametrize("count", [0, 1])
def test_one_member_is_no_ensemble(paths, count):
    with pytest.raises(UserError, match=f"an ensemble needs two members to differ, .* names {count}"):
        ensemble(paths[:count])


def test_members_that_do_not_fit_are_named(paths, tmp_path):
    (other,) = write_members(tmp_path / "other", 1, decode_head=head("FCNHead", num_classes=3))
    with pytest.raises(
        UserError, match=r"other/member_0/iter_7.pth does not fit the model: .*another number of classes"
    ):
        ensemble([*paths, other])
    (renamed,) = write_members(tmp_path / "renamed", 1, classes=("a", "b", "c", "x"))
    with pytest.raises(UserError, match=r"renamed/member_0/iter_7.pth was trained on other classes"):
        ensemble([*paths, renamed])
    with pytest.raises(UserError, match=r"missing.pth does not exist"):
        ensemble([*paths, str(tmp_path / "missing.pth")])


# --- Monte-Carlo dropout


def test_passes_against_plain_sampling(paths):
    teacher, model = dropout(paths[0], num_samples=4, rate=0.5), build(segmentor_config())
    passes = []
    for draw in range(4):
        with mc_dropout(model, 0.5, [derive_seed(0, f"{k}.png", draw) for k in range(2)]), torch.no_grad():
            passes.append(model.encode_decode(images(), [{"img_shape": torch.Size((HEIGHT, WIDTH))}]).softmax(1))
    passes = torch.stack(passes)
    assert passes.std(0).max() > 0.01
    torch.testing.assert_close(
        teacher.targets(images(), samples(), class_wise=True), passes.std(0), atol=1e-6, rtol=1e-4
    )


def test_masks_depend_on_seed_and_name_alone(paths):
    teacher, batch = dropout(paths[0]), samples()
    together = teacher.targets(images(), batch)
    torch.manual_seed(5)
    alone = teacher.targets(images()[1:], batch[1:])
    torch.testing.assert_close(together[1:], alone)
    assert not torch.equal(teacher.targets(images()[1:], samples(1)), alone)
    assert not torch.equal(dropout(paths[0], seed=1).targets(images(), batch), together)


class CountingBackbone(TinyBackbone):
    """Counts how often it is run."""

    runs = 0

    def forward(self, inputs):
        CountingBackbone.runs += 1
        return super().forward(inputs)


MODELS.register_module(module=CountingBackbone)


@pytest.mark.parametrize(
    ("test_cfg", "backbone", "rate", "runs"),
    [
        ({"mode": "whole"}, {}, None, 1),
        (SLIDE, {}, None, 6),  # 3 x 2 windows
        ({"mode": "whole"}, {"dropout": 0.2}, None, 3),
        ({"mode": "whole"}, {}, 0.2, 3),  # a rate for all dropout wakes that of rate 0, too
    ],
)
def test_features_are_computed_once_where_no_dropout_is_before_them(paths, test_cfg, backbone, rate, runs):
    config = segmentor_config(test_cfg=test_cfg, backbone={"type": "CountingBackbone", **backbone})
    teacher = dropout(paths[0], segmentor=config, rate=rate)
    CountingBackbone.runs = 0
    teacher.predict(images(), samples())
    assert CountingBackbone.runs == runs
    assert "extract_feat" not in vars(teacher.members[0])


def test_windows_share_no_features(paths):
    teacher = dropout(paths[0], segmentor=segmentor_config(test_cfg=SLIDE))
    member, passes = build(segmentor_config(test_cfg=SLIDE)), []
    for draw in range(3):
        with mc_dropout(member, None, [derive_seed(0, f"{k}.png", draw) for k in range(2)]), torch.no_grad():
            passes.append(member.inference(images(), [dict(s.metainfo) for s in samples()]).softmax(1))
    expected = torch.stack(passes).std(0)
    torch.testing.assert_close(teacher.targets(images(), samples(), class_wise=True), expected, atol=1e-6, rtol=1e-4)


def flat(features):
    return [features] if torch.is_tensor(features) else [tensor for part in features for tensor in flat(part)]


@pytest.mark.parametrize("name", HEADS)
@torch.no_grad()
def test_decode_heads_leave_shared_features_as_they_are(name):
    segmentor, windows = build(segmentor_config(name)), []
    with features_from(windows, segmentor):
        segmentor.inference(images(), [dict(sample.metainfo) for sample in samples()])
    (kept,) = windows
    for one, other in zip(flat(kept), flat(segmentor.extract_feat(images())), strict=True):
        assert torch.equal(one, other)


def test_settings_under_which_passes_do_not_differ(paths):
    config = segmentor_config(decode_head=head("FCNHead", num_convs=1, dropout_ratio=0.0))
    with pytest.raises(UserError, match="nothing is dropped in FCNHead"):
        dropout(paths[0], segmentor=config)
    assert dropout(paths[0], segmentor=config, rate=0.3).targets(images()).any()  # the backbone has dropout, of rate 0
    with pytest.raises(UserError, match="num_samples must be at least 2 for passes to differ, got 1"):
        dropout(paths[0], num_samples=1)
    for rate in (0, 1, -0.1):
        with pytest.raises(UserError, match=f"rate must lie between 0 and 1, got {rate}"):
            dropout(paths[0], rate=rate)


# --- as a segmentor


@pytest.fixture(params=[ensemble, dropout])
def teacher(request, paths):
    """A teacher of either kind."""
    return request.param(paths if request.param is ensemble else paths[0])


def test_a_teacher_is_not_trained(teacher):
    with pytest.raises(UserError, match="Segmentor is not trained: train its members, and give it as a student's"):
        teacher(images(), samples(), mode="loss")


def test_nothing_disturbs_a_teacher(teacher):
    before = {name: values.clone() for name, values in teacher.state_dict().items()}
    teacher.train()
    teacher.init_weights()
    assert not any(module.training for module in teacher.modules())
    assert all(torch.equal(values, before[name]) for name, values in teacher.state_dict().items())


def test_flips_of_a_teacher(paths):
    teacher = ensemble(paths, data_preprocessor={"type": "SegDataPreProcessor"})
    inputs, flipped = images(1), {"flip": True, "flip_direction": "horizontal"}
    data = {"inputs": [[inputs[0]], [inputs[0].flip(2)]], "data_samples": [samples(1), samples(1, **flipped)]}
    (merged,) = MODELS.build({"type": "DUDESTTAModel", "module": teacher}).test_step(data)
    one = teacher.predict(inputs, samples(1))[0]
    other = teacher.predict(inputs.flip(3), samples(1, **flipped))[0]
    torch.testing.assert_close(
        merged.pred_uncertainty.data, (one.pred_uncertainty.data + other.pred_uncertainty.data) / 2
    )
    mean = (one.seg_logits.data.softmax(0) + other.seg_logits.data.softmax(0)) / 2
    torch.testing.assert_close(merged.seg_logits.data.softmax(0), mean)
    assert torch.equal(merged.pred_sem_seg.data[0], mean.argmax(0))


def test_the_runner_tests_a_teacher(paths, tmp_path):
    """With mmseg's own metric, and no checkpoint but the members'."""
    generator = np.random.default_rng(0)
    for folder, values, shape in (("images", 256, (HEIGHT, WIDTH, 3)), ("labels", NUM_CLASSES, (HEIGHT, WIDTH))):
        (tmp_path / folder).mkdir()
        for number in range(3):
            picture = generator.integers(0, values, shape, dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / folder / f"{number}.png")
    dataset = {
        "type": "BaseSegDataset",
        "data_root": str(tmp_path),
        "data_prefix": {"img_path": "images", "seg_map_path": "labels"},
        "img_suffix": ".png",
        "metainfo": {"classes": tuple("abcd"), "palette": [[k, k, k] for k in range(4)]},
        "pipeline": [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}],
    }
    loader = {"batch_size": 1, "sampler": {"type": "DefaultSampler", "shuffle": False}, "dataset": dataset}
    config = {
        "default_scope": "mmseg",
        "model": {"type": "DeepEnsembleSegmentor", "segmentor": segmentor_config(), "checkpoints": paths},
        "work_dir": str(tmp_path / "work"),
        "experiment_name": "teacher",
        "test_dataloader": loader,
        "test_cfg": {"type": "TestLoop"},
        "test_evaluator": {"type": "IoUMetric", "iou_metrics": ["mIoU"]},
    }
    assert 0 < Runner.from_cfg(Config(config)).test()["mIoU"] < 100
