"""Metrics under two real processes are those of one, bit by bit, whatever the size of the data set."""

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample
from two_ranks import in_two_ranks

from dudes_mmseg.metrics import SegCalibrationMetric, SparsificationMetric, UncertaintyMetric

CLASSES = ("road", "car", "sky")
SIZE = (6, 8)


def image(number: int) -> SegDataSample:
    """What a student says about the image of that number."""
    generator = torch.Generator().manual_seed(number)
    logits = 3 * torch.randn(len(CLASSES), *SIZE, generator=generator)
    label = torch.randint(len(CLASSES), (1, *SIZE), generator=generator)
    label[:, : number % 3] = 255
    sample = SegDataSample(metainfo={"img_path": f"{number}.png"})
    sample.seg_logits, sample.gt_sem_seg = PixelData(data=logits), PixelData(data=label)
    sample.pred_sem_seg = PixelData(data=logits.argmax(0, keepdim=True))
    sample.pred_uncertainty = PixelData(data=torch.rand(1, *SIZE, generator=generator) / 2)
    return sample


def evaluate(rank: int, size: int) -> tuple[dict[str, float], list[dict], list[dict]]:
    """Values of `size` images, the sums behind them, those of each image; the sampler knows the `rank` by itself."""
    metrics = [
        IoUMetric(),
        UncertaintyMetric(),
        SegCalibrationMetric(),
        SparsificationMetric(),
        SparsificationMetric("entropy"),
    ]
    evaluator = Evaluator(metrics)
    evaluator.dataset_meta = {"classes": CLASSES}
    for number in DefaultSampler(range(size), shuffle=False):
        evaluator.process([image(number)])
    values = evaluator.evaluate(size)
    states = [{name: s.metric_state for name, s in metric.measured.items()} for metric in metrics[1:]]
    return values, states, [dict(sorted(metric.rows.items())) for metric in metrics[1:]]


def tensors(states: list[dict]) -> list[torch.Tensor]:
    return [tensor for metric in states for state in metric.values() for tensor in state.values()]


@pytest.mark.filterwarnings("ignore:.*is NaN.*:RuntimeWarning")
@pytest.mark.parametrize("size", [1, 5, 6])
def test_two_ranks_equal_one(size, tmp_path):
    ranks = in_two_ranks(evaluate, tmp_path, size)
    values, states, rows = evaluate(0, size)
    assert all(len(of_metric) == size for of_metric in rows)
    for found, sums, kept in ranks:
        np.testing.assert_equal(kept, rows)
        assert all(torch.equal(*pair) for pair in zip(tensors(sums), tensors(states), strict=True))
        assert str(found) == str(values)  # NaN is not equal to itself
    assert values["predicted/mIoU"] == pytest.approx(values["mIoU"], abs=0.005)  # which mmseg rounds
