"""Several heads on one backbone: the same as as many networks whose backbones have the same weights."""

import pytest
import torch
from mmseg.registry import MODELS
from mmseg.utils import add_prefix
from tiny_segmentors import BINARY, SLIDE, build, images, samples, segmentor_config, student_config

from uncertainty_core.errors import UserError

HEADS = 3
MOVED = {"flip": True, "flip_direction": "vertical", "img_padding_size": (0, 8, 0, 6), "ori_shape": (25, 21)}


def network_config(**options):
    return segmentor_config(type="HeadEnsembleEncoderDecoder", num_heads=HEADS, **options)


def alone(network, number, **options):
    """The plain segmentor with one of the heads."""
    model, start = build(segmentor_config(**options)), f"decode_head.{number}."
    weights = {name.replace(start, "decode_head."): values for name, values in network.state_dict().items()}
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    return model


def write(network, path):
    torch.save({"state_dict": network.state_dict()}, path)
    return str(path)


@pytest.mark.parametrize(("options", "metainfo"), [({}, {}), ({"test_cfg": SLIDE}, MOVED), (BINARY, {})])
def test_teacher_is_the_ensemble_of_its_heads_and_computes_features_once(tmp_path, options, metainfo):
    network = build(network_config(**options))
    assert len({str(head.conv_seg.weight) for head in network.decode_head}) == HEADS
    teacher = {"segmentor": network_config(**options), "checkpoint": write(network, tmp_path / "heads.pth")}
    teacher = MODELS.build({"type": "HeadEnsembleSegmentor", **teacher})
    paths = [write(alone(network, number, **options), tmp_path / f"{number}.pth") for number in range(HEADS)]
    several = {"type": "DeepEnsembleSegmentor", "segmentor": segmentor_config(**options), "checkpoints": paths}
    several, called = MODELS.build(several), []
    teacher.members[0].backbone.register_forward_hook(lambda *_: called.append(1))
    for one, other in zip(*(t.predict(images(), samples(**metainfo)) for t in (teacher, several)), strict=True):
        for field in ("seg_logits", "pred_sem_seg", "pred_uncertainty"):
            assert torch.equal(one.get(field).data, other.get(field).data)
    assert len(called) == (6 if "test_cfg" in options else 1)  # windows
    assert torch.equal(teacher.targets(images(), samples()), several.targets(images(), samples()))
    assert teacher.num_samples == HEADS


@pytest.mark.parametrize("options", [{}, BINARY])
def test_the_network_predicts_the_mean_of_its_heads(options):
    network = build(network_config(**options))
    said = network.predict(images(), samples())
    each = [alone(network, number, **options).predict(images(), samples()) for number in range(HEADS)]
    for number, sample in enumerate(said):
        values = [one[number].seg_logits.data for one in each]
        mean = sum(values if options else [logits.softmax(0) for logits in values]) / HEADS
        found = sample.seg_logits.data
        torch.testing.assert_close(found if options else found.softmax(0), mean, atol=1e-6, rtol=1e-5)
        assert torch.equal(sample.pred_sem_seg.data[0], mean[0] > 0.4 if options else mean.argmax(0))


def test_the_loss_of_each_head_is_its_own(tmp_path):
    network = build(network_config())
    losses = network.loss(images(), samples())
    expected = {}
    for number in range(HEADS):
        of_one = alone(network, number).loss(images(), samples())
        expected |= add_prefix({name.removeprefix("decode."): v for name, v in of_one.items()}, f"decode_{number}")
    assert losses.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in losses.items())
    losses["decode_1.loss_ce"].backward()
    reached = [all(p.grad is not None for p in head.parameters()) for head in network.decode_head]
    assert reached == [False, True, False] and network.backbone.stages[0][0].weight.grad.any()


def test_heads_start_from_weights_of_their_own_as_mmseg_initialises_them():
    network = MODELS.build(network_config())
    network.init_weights()
    weights = [head.conv_seg.weight for head in network.decode_head]
    assert not torch.equal(weights[0], weights[1])
    assert all(0.005 < values.std() < 0.02 for values in weights)  # Normal, std 0.01: their init_cfg is heeded


def test_a_student_of_heads(tmp_path):
    checkpoint = write(build(network_config()), tmp_path / "heads.pth")
    teacher = {"type": "HeadEnsembleSegmentor", "segmentor": network_config(), "checkpoint": checkpoint}
    student = build(student_config(teacher=teacher)).train()
    student.parse_losses(student.loss(images(), samples(target=0)))[0].backward()
    assert student.uncertainty_head.conv.weight.grad.any()


def test_heads_that_make_no_sense(tmp_path):
    with pytest.raises(UserError, match="num_heads must be at least 2 for heads to differ, got 1"):
        MODELS.build(network_config() | {"num_heads": 1})
    checkpoint = write(build(segmentor_config()), tmp_path / "one.pth")
    with pytest.raises(UserError, match="segmentor is a EncoderDecoder, which has a single head"):
        MODELS.build({"type": "HeadEnsembleSegmentor", "segmentor": segmentor_config(), "checkpoint": checkpoint})
