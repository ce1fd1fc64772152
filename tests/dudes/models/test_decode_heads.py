"""The uncertainty head on the decode heads of mmseg's model zoo, and those that cannot have one."""

import pytest
import torch
from mmengine.config import Config
from mmseg.models import FCNHead
from mmseg.registry import MODELS
from tiny_segmentors import HEADS, HEIGHT, WIDTH, build, head, images, samples, segmentor_config, student_config
from torch import nn
from torch.nn import functional as F

from dudes_mmseg.engine.evaluation import run_test
from dudes_mmseg.engine.rehearsal import rehearse
from dudes_mmseg.models.uncertainty_head import UncertaintyHead
from uncertainty_core.errors import UserError


def last_head(model):
    return model.decode_head[-1] if isinstance(model.decode_head, nn.ModuleList) else model.decode_head


@pytest.fixture(params=HEADS)
def pair(request):
    """A plain segmentor, and the student with the same weights."""
    return build(segmentor_config(request.param)), build(student_config(request.param))


def test_logits_and_losses_are_the_same_bits_as_without_the_branch(pair):
    plain, student = pair
    inputs, predictions = images(), []
    for model in (plain, student):
        torch.manual_seed(0)  # of heads that draw
        predictions.append(model.predict(inputs, samples()))
    for one, other in zip(*predictions, strict=True):
        assert torch.equal(one.seg_logits.data, other.seg_logits.data)
        assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)
    losses = []
    for model in (plain, student):
        torch.manual_seed(0)  # of the dropout
        losses.append(model.train().loss(inputs, samples(num_classes=model.num_classes)))
    of_branch = losses[1].pop("uncertainty.loss_rmsle")
    assert of_branch > 0
    assert losses[0].keys() == losses[1].keys()
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])


def test_every_parameter_has_a_gradient_and_uncertainty_is_that_of_a_plain_convolution(pair):
    plain, student = pair
    added = {name for name, _ in student.named_parameters()} - {name for name, _ in plain.named_parameters()}
    assert added == {"uncertainty_head.conv.weight", "uncertainty_head.conv.bias"}

    features = []
    handle = last_head(plain).conv_seg.register_forward_hook(lambda module, inputs, output: features.append(inputs[0]))
    with torch.no_grad():
        torch.manual_seed(0)
        plain.predict(images(), samples())
        torch.manual_seed(0)
        said = student.predict(images(), samples())
    handle.remove()
    conv = student.uncertainty_head.conv
    expected = F.interpolate(F.conv2d(features[0], conv.weight, conv.bias), images().shape[2:], mode="bilinear")
    for sample, maps in zip(said, expected.sigmoid(), strict=True):
        torch.testing.assert_close(sample.pred_uncertainty.data, maps, atol=1e-6, rtol=0)
    # what a distillation compares with the teacher's probabilities is what the head predicts
    torch.manual_seed(0)
    with torch.no_grad(), student._one_pass() as passes:
        seg_logits = student.encode_decode(images(), [{"img_shape": (HEIGHT, WIDTH)}])
    same = F.interpolate(passes[0].segmentation, images().shape[2:], mode="bilinear")
    torch.testing.assert_close(same, seg_logits)

    loss, _ = student.parse_losses(student.train().loss(images(), samples(num_classes=student.num_classes)))
    loss.backward()
    without = [n for n, p in student.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert without == []


def of_labels(losses):
    return {name: value for name, value in losses.items() if name.startswith("decode.")}


def test_images_without_labels_have_no_part_in_the_losses_of_labels(pair):
    _, student = pair
    batch, alone = (samples(2, num_classes=student.num_classes) for _ in range(2))
    batch[1].set_metainfo({"unlabelled": True})
    batch[1].gt_sem_seg.data = torch.full_like(batch[1].gt_sem_seg.data, 255)
    # in eval mode an image is predicted alike in any batch, but some heads give what they learn from in training alone
    last_head(student).training = True
    if student.with_neck:
        student.neck.training = True
    torch.manual_seed(0)
    mixed = student.loss(images(), batch)
    torch.manual_seed(0)
    expected = student.loss(images()[:1], alone[:1])
    assert of_labels(mixed).keys() == of_labels(expected).keys()
    for name, value in of_labels(mixed).items():
        torch.testing.assert_close(value, expected[name])

    # of a batch without any label the branch alone is taught, though every parameter has a gradient
    losses = student.train().loss(images(), [batch[1], batch[1].clone()])
    assert losses["uncertainty.loss_rmsle"] > 0 and not any(of_labels(losses).values())
    student.parse_losses(losses)[0].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters() if p.requires_grad)
    last = last_head(student)
    assert not last.conv_seg.weight.grad.any() and student.uncertainty_head.conv.weight.grad.any()
    assert "loss_by_feat" not in vars(last)


def test_a_decoder_of_256_channels_gains_257_parameters():
    options = {"decode_head": head("FCNHead", channels=256, num_convs=1)}
    counts = [
        sum(values.numel() for values in MODELS.build(config).parameters())
        for config in (segmentor_config(**options), student_config(**options))
    ]
    assert counts[1] - counts[0] == 257


def test_the_branch_starts_as_mmseg_starts_its_last_layer():
    torch.manual_seed(0)
    branch = UncertaintyHead(4096)
    assert branch.conv.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not branch.conv.bias.any()


REFUSED = {
    "SegmenterMaskTransformerHead": {
        key: value
        for key, value in head("SegmenterMaskTransformerHead", num_layers=1, num_heads=2, embed_dims=8).items()
        if key != "norm_cfg"
    },
    "IterativeDecodeHead": {
        "type": "IterativeDecodeHead",
        "num_stages": 0,
        "kernel_generate_head": head("FCNHead"),
        "kernel_update_head": [],
    },
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_head_that_does_not_end_in_cls_seg_is_refused_when_it_is_built(kind):
    with pytest.raises(UserError, match=f"^{kind} has no conv_seg .*: choose .* such as FCNHead, ASPPHead, UPerH"):
        MODELS.build(student_config(decode_head=REFUSED[kind]))


# none of them can be built here: they need mmdet, CLIP's weights, or a diffusion model
NO_LOGITS = {
    "MaskFormerHead": ("EncoderDecoder", "sums of masks"),
    "Mask2FormerHead": ("EncoderDecoder", "sums of masks"),
    "SideAdapterCLIPHead": ("MultimodalEncoderDecoder", "sums of masks"),
    "VPDDepthHead": ("DepthEstimator", "depths"),
}


@pytest.mark.parametrize("kind", NO_LOGITS)
def test_a_head_that_gives_no_logits_is_refused_before_it_is_built(kind):
    segmentor, outputs = NO_LOGITS[kind]
    plain = segmentor_config(type=segmentor, decode_head={"type": kind}, text_encoder={"type": "CLIPTextEncoder"})
    teacher = {"type": "DeepEnsembleSegmentor", "segmentor": plain, "checkpoints": ["a.pth", "b.pth"]}
    student = plain | {"type": "DUDESEncoderDecoder"}
    message = f"{kind} gives {outputs}, not the logits .*: choose a decode head .* such as FCNHead, ASPPHead"
    for config in (student, teacher):
        with pytest.raises(UserError, match=f"^{message}"):
            MODELS.build(config)
    for run in (rehearse, run_test):  # of train-seg, train-ensemble and distill-segmentor, and of test-seg
        with pytest.raises(UserError, match=f"^the config: (model|test): {message}"):
            run(Config({"model": plain, "test_dataloader": None}))


@MODELS.register_module()
class OtherLayerHead(FCNHead):
    """Has a conv_seg, as all heads have, but ends in a layer of its own; or calls conv_seg several times."""

    def __init__(self, calls, **kwargs):
        super().__init__(**kwargs)
        self.calls, self.other = calls, nn.Conv2d(self.channels, self.out_channels, 1)

    def forward(self, inputs):
        features = self._forward_feature(inputs)
        return self.other(features) + sum(self.conv_seg(features) for _ in range(self.calls))


@pytest.mark.parametrize("calls", [0, 2])
def test_a_head_that_does_not_call_its_last_layer_once_is_refused_in_the_first_pass(calls):
    model = build(student_config(decode_head=head("OtherLayerHead", calls=calls)))
    with pytest.raises(UserError, match=f"OtherLayerHead called its conv_seg {calls} times"):
        model.loss(images(), samples())
    with pytest.raises(UserError, match=f"OtherLayerHead called its conv_seg {calls} times"):
        model.predict(images(), samples())
