"""Metrics of uncertainty and calibration, against slow references on all pixels at once."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from dudes_mmseg.metrics import SegCalibrationMetric, SparsificationMetric, UncertaintyMetric
from uncertainty_core import CalibrationMetric
from uncertainty_core.errors import UserError

CLASSES = ("road", "car", "sky", "person")
SIZE = (9, 14)


def samples(count: int = 3, void: bool = True) -> list[dict]:
    """What a student says about some images, as mmengine hands it to metrics: nested dicts."""
    made = []
    for number in range(count):
        logits = 3 * torch.randn(len(CLASSES), *SIZE)
        label = torch.randint(len(CLASSES), (1, *SIZE))
        if void:
            label[:, :2] = 255
        made.append(
            {
                "img_path": f"street_{number}.png",
                "gt_sem_seg": {"data": label},
                "seg_logits": {"data": logits},
                "pred_sem_seg": {"data": logits.argmax(0, keepdim=True)},
                # in the middle of a level, where rounding cannot move it to the next
                "pred_uncertainty": {"data": (torch.randint(500, (1, *SIZE)) + 0.5) / 1000},
            }
        )
    return made


def measured(metric, given: list[dict], size: int | None = None) -> dict[str, float]:
    metric.dataset_meta = {"classes": CLASSES}
    for sample in given:
        metric.process(None, [sample])
    return metric.evaluate(len(given) if size is None else size)


def pixels(given: list[dict], field: str) -> np.ndarray:
    return np.concatenate([sample[field]["data"].numpy().ravel() for sample in given])


def test_uncertainty_of_each_class():
    given = samples()
    metric = UncertaintyMetric()
    values = measured(metric, given)
    uncertainty, label = pixels(given, "pred_uncertainty"), pixels(given, "gt_sem_seg")
    expected = [uncertainty[label == k].astype(float).mean() for k in range(len(CLASSES))]
    assert metric.measured["student"].compute()["per_group"].numpy() == pytest.approx(np.array(expected), abs=1e-7)
    assert values == {"uncertainty/mUnc": pytest.approx(np.mean(expected), abs=1e-7)}


def test_calibration_over_every_pixel():
    given = samples()
    values = measured(SegCalibrationMetric(num_bins=10), given)
    logits = torch.stack([sample["seg_logits"]["data"] for sample in given])
    whole = CalibrationMetric(len(CLASSES), 10, ignore_index=255)
    whole.update(logits.softmax(1), torch.cat([sample["gt_sem_seg"]["data"] for sample in given]))
    for name, value in whole.compute().items():
        if f"calibration/{name}" in values:
            assert values[f"calibration/{name}"] == pytest.approx(value.item(), abs=1e-6), name
    assert set(values) == {f"calibration/{name}" for name in ("ece", "msce", "mce", "nll_true", "brier")}


def test_a_segmentor_with_one_output_has_two_probabilities():
    # mmsegmentation leaves the sigmoid in seg_logits: two pixels, 0.9 sure of the right class and of the wrong one
    sample = {
        "gt_sem_seg": {"data": torch.tensor([[[1, 1]]])},
        "seg_logits": {"data": torch.tensor([[[0.9, 0.1]]])},
        "pred_sem_seg": {"data": torch.tensor([[[1.0, 0.0]]])},
    }
    metric = SegCalibrationMetric()
    metric.dataset_meta = {"classes": ("other", "cell")}
    metric.process(None, [sample])
    values = metric.evaluate(1)
    assert values["calibration/nll_true"] == pytest.approx(-(np.log(0.9) + np.log(0.1)) / 2, abs=1e-6)
    assert values["calibration/ece"] == pytest.approx(0.4, abs=1e-6)  # 0.9 sure, right half of the time


def uncertainty_of(given: list[dict], kind: str) -> np.ndarray:
    if kind == "predicted":
        return pixels(given, "pred_uncertainty")
    probabilities = np.concatenate([s["seg_logits"]["data"].softmax(0).flatten(1).numpy() for s in given], axis=1)
    if kind == "confidence":
        return 1 - probabilities.max(0)
    return -(probabilities * np.log(probabilities)).sum(0) / np.log(len(CLASSES))


@pytest.mark.parametrize("kind", ["predicted", "entropy", "confidence"])
def test_ranking(kind):
    given = samples()
    metric = SparsificationMetric(uncertainty=kind)
    values = measured(metric, given)
    uncertainty, label = uncertainty_of(given, kind), pixels(given, "gt_sem_seg")
    void, wrong = label == 255, pixels(given, "pred_sem_seg") != label
    for prefix, event, of in (("", void, np.ones_like(void)), ("error_", wrong, ~void)):
        # within 1e-2 where two values share one of the 1000 levels
        close = {"abs": 1e-9 if kind == "predicted" else 1e-2}
        assert values[f"{kind}/{prefix}auroc"] == pytest.approx(roc_auc_score(event[of], uncertainty[of]), **close)
        precision = average_precision_score(event[of], uncertainty[of])
        assert values[f"{kind}/{prefix}aupr"] == pytest.approx(precision, **close)
    correct = label[~void] == pixels(given, "pred_sem_seg")[~void]
    ious = []
    for k in range(len(CLASSES)):
        true, said = label[~void] == k, pixels(given, "pred_sem_seg")[~void] == k
        ious.append((true & said).sum() / (true | said).sum())
    assert values[f"{kind}/mIoU"] == pytest.approx(100 * np.mean(ious))
    assert metric.measured["sparsification"].confusions.sum() == len(correct)


def test_a_perfect_ranking_has_no_area_to_its_oracle():
    given = samples()
    for sample in given:
        wrong = sample["pred_sem_seg"]["data"] != sample["gt_sem_seg"]["data"]
        sample["pred_uncertainty"]["data"] = wrong.float()
    values = measured(SparsificationMetric(), given)
    assert values["predicted/error_auroc"] == 1
    assert values["predicted/error_fpr95"] == 0


def test_images_that_a_sampler_repeated_count_once():
    """The last image of a rank, and no other, may be one that the sampler took to fill up."""
    given = samples(4)
    once = measured(UncertaintyMetric(), given[:3])
    assert measured(UncertaintyMetric(), given, size=3) == once
    assert measured(UncertaintyMetric(), given, size=4) != once


def test_starts_anew_after_each_evaluation():
    given = samples()
    metric = SparsificationMetric()
    first = measured(metric, given)
    assert measured(metric, given) == first


@pytest.mark.parametrize("kind", [UncertaintyMetric, SparsificationMetric, SegCalibrationMetric])
def test_state_does_not_grow(kind):
    metric = kind()
    metric.dataset_meta = {"classes": tuple(map(str, range(19)))}
    for sample in samples(3, void=False):
        sample["seg_logits"]["data"] = torch.randn(19, *SIZE)
        metric.process(None, [sample])
    held = [
        tensor
        for states in (metric._total, metric._last)
        for s in states.values()
        for tensor in s.metric_state.values()
    ]
    assert sum(tensor.numel() * tensor.element_size() for tensor in held) < 10e6
    assert not metric.results


@pytest.mark.filterwarnings("ignore:.*is undefined.*", "ignore:.*there are no.*")
def test_an_image_that_is_all_void():
    (sample,) = samples(1)
    sample["gt_sem_seg"]["data"].fill_(255)
    for metric in (UncertaintyMetric(), SegCalibrationMetric(), SparsificationMetric()):
        assert all(np.isnan(value) for value in measured(metric, [sample]).values())
    more = samples(2)
    with_it, without = (measured(SegCalibrationMetric(), given) for given in ([*more, sample], more))
    assert with_it == without


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.pop("pred_uncertainty"), "street_0.png has no pred_uncertainty"),
        (lambda s: s.pop("gt_sem_seg"), "street_0.png has no labels"),
        (lambda s: s["gt_sem_seg"]["data"].fill_(7), "street_0.png.* is 7"),
    ],
)
def test_bad_input_is_named(change, sentence):
    (sample,) = samples(1)
    change(sample)
    with pytest.raises(UserError, match=sentence):
        measured(UncertaintyMetric(), [sample])


def test_writes_numbers_and_pictures(tmp_path):
    given = samples()
    for metric in (SegCalibrationMetric(output_dir=tmp_path), SparsificationMetric(output_dir=tmp_path)):
        values = measured(metric, given)
        written = json.loads((tmp_path / f"{metric.prefix}.json").read_text())
        assert {f"{metric.prefix}/{name}": value for name, value in written.items()} == values
    assert len(json.loads((tmp_path / "predicted_curve.json").read_text())["curve"]) == 20
    assert sum(json.loads((tmp_path / "calibration_bins.json").read_text())["count"]) == 3 * 7 * 14
    assert all(
        (tmp_path / f"{name}.png").stat().st_size > 5_000
        for name in ("calibration_reliability", "predicted_sparsification")
    )
