"""The sample of pixels that calibrators are fitted to: the same in any order, batch and number of processes."""

import torch
from mmengine.dataset import DefaultSampler
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from two_ranks import in_two_ranks

from dudes_mmseg.metrics import PixelSampleMetric
from dudes_mmseg.metrics.pixels import of_all
from dudes_mmseg.models.calibration import half_of
from uncertainty_core.sampling.pixels import PixelSample

SIZE = (6, 8)


def image(number: int) -> SegDataSample:
    """What a student says about the image of that number."""
    generator = torch.Generator().manual_seed(number)
    logits = torch.randn(3, *SIZE, generator=generator)
    label = torch.randint(3, (1, *SIZE), generator=generator)
    label[:, : number % 3] = 255
    sample = SegDataSample(metainfo={"img_path": f"data/city/{number}.png"})
    sample.seg_logits, sample.gt_sem_seg = PixelData(data=logits), PixelData(data=label)
    sample.pred_sem_seg = PixelData(data=logits.argmax(0, keepdim=True))
    sample.pred_uncertainty = PixelData(data=torch.rand(1, *SIZE, generator=generator) / 2)
    return sample


def drawn(rank: int, batches: list[list[int]] | None) -> tuple[list[torch.Tensor], dict[str, float]]:
    """Both samples of five images in these batches; by default in those of the rank, which the sampler knows."""
    metric = PixelSampleMetric(size=40)
    for batch in batches or [[number] for number in DefaultSampler(range(5), shuffle=False)]:
        metric.process(None, [image(number).to_dict() for number in batch])
    values = metric.evaluate(5)
    samples = of_all(metric.classes), of_all(metric.errors)
    return [part for s in samples for part in (s.number, s.probabilities, s.labels)], values


def test_sample_is_the_same_in_any_order_batch_and_number_of_ranks(tmp_path):
    expected, values = drawn(0, [[0], [1], [2], [3], [4]])
    assert values == {"sample/pixels": 40}
    for tensors, found in [drawn(0, [[4, 2], [0, 3, 1]]), *in_two_ranks(drawn, tmp_path, None)]:
        assert found == values
        assert all(torch.equal(one, other) for one, other in zip(tensors, expected, strict=True))


def test_what_is_drawn_of_each_half():
    metric = PixelSampleMetric()
    metric.process(None, [image(number).to_dict() for number in range(5)])
    values = metric.evaluate(5)
    # rows of 8 pixels: 6, 5, 4, 6 and 5 of them are not void
    assert values == {"sample/pixels": 8 * 26}
    for half in range(2):
        classes, errors = PixelSample(), PixelSample()
        for number in range(5):
            if half_of(f"city/{number}.png") == half:
                sample = image(number)
                label, u = sample.gt_sem_seg.data[0], sample.pred_uncertainty.data[0]
                wrong = torch.where(label == 255, 255, (sample.pred_sem_seg.data[0] != label).long())
                classes.add(f"city/{number}.png", sample.seg_logits.data.softmax(0), label)
                errors.add(f"city/{number}.png", torch.stack((1 - u, u)), wrong)
        for found, expected in ((metric.classes[half], classes), (metric.errors[half], errors)):
            assert torch.equal(found.probabilities, expected.probabilities)
            assert torch.equal(found.labels, expected.labels)
    assert len(metric.classes[0]) and len(metric.classes[1])
