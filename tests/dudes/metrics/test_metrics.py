"""Metrics of uncertainty and calibration, against slow references on all pixels at once."""

import json

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.datasets import CityscapesDataset
from mmseg.registry import METRICS
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.nn.functional import one_hot

from dudes_mmseg.data.street_folder import write_streets
from dudes_mmseg.metrics import SegCalibrationMetric, SparsificationMetric, UncertaintyMetric
from dudes_mmseg.targets.codec import CODEC, encode_target
from uncertainty_core import CalibrationMetric, write_targets
from uncertainty_core.errors import UserError
from uncertainty_core.functional import BIN_METRICS, FINE_BIN_METRICS

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
                # the lower end of a level, so that equal levels are equal numbers
                "pred_uncertainty": {"data": torch.rand(1, *SIZE).bfloat16().float()},
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
    names = {*BIN_METRICS, *FINE_BIN_METRICS, "nll_true", "brier"}
    assert set(values) == {f"calibration/{name}" for name in names}


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
        # within 1e-2 where two values share a level
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
    assert metric.measured["pixels"].levels.errors.count.sum() == len(correct)


def test_a_perfect_ranking_has_no_area_to_its_oracle():
    given = samples()
    for sample in given:
        wrong = sample["pred_sem_seg"]["data"] != sample["gt_sem_seg"]["data"]
        sample["pred_uncertainty"]["data"] = wrong.float()
    values = measured(SparsificationMetric(), given)
    assert values["predicted/error_auroc"] == 1
    assert values["predicted/error_fpr95"] == 0


def test_beside_the_metrics_of_mmsegmentation(tmp_path, monkeypatch):
    # what cityscapesscripts 2.3 calls and numpy 2.4 no longer has
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)
    init_default_scope("mmseg")
    write_streets(tmp_path, {"val": 2}, (64, 32), progress=False)
    scenes = CityscapesDataset(
        data_root=str(tmp_path),
        data_prefix={"img_path": "leftImg8bit/val", "seg_map_path": "gtFine/val"},
        pipeline=[{"type": kind} for kind in ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs")],
    )
    official = {"type": "CityscapesMetric", "output_dir": str(tmp_path / "out"), "prefix": "official"}
    ours = ("UncertaintyMetric", "SegCalibrationMetric", "SparsificationMetric")
    evaluator = Evaluator(
        [METRICS.build(kind) for kind in ({"type": "IoUMetric"}, official, *({"type": name} for name in ours))]
    )
    evaluator.dataset_meta = scenes.metainfo
    for scene in scenes:
        sample = scene["data_samples"]
        label = sample.gt_sem_seg.data
        said = torch.where(torch.rand(label.shape) < 0.3, torch.randint(19, label.shape), label.clamp(max=18))
        sample.pred_sem_seg = PixelData(data=said)
        sample.seg_logits = PixelData(data=5 * one_hot(said[0], 19).movedim(-1, 0).float())
        sample.pred_uncertainty = PixelData(data=torch.rand(label.shape) / 2)
        evaluator.process([sample])
    values = evaluator.evaluate(2)
    assert values["predicted/mIoU"] == pytest.approx(values["mIoU"], abs=0.005)  # which is rounded
    assert 0 < values["official/averageScoreCategories"] < 1
    assert {"uncertainty/mUnc", "calibration/ece", "predicted/ause"} < set(values)


def test_the_teachers_uncertainty_beside_the_students(tmp_path, log):
    given = samples(2)
    for number, sample in enumerate(given):
        path = tmp_path / "images" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(number + 1))
        sample["img_path"] = str(path)
    said = {f"{number}.png": torch.rand(*SIZE) / 2 for number in range(2)}
    write_targets(
        tmp_path / "store",
        list(said),
        lambda ids: [encode_target(said[id_], tmp_path / "images" / id_) for id_ in ids],
        {"codec": CODEC},
        shard_size=1,
    )
    values = measured(UncertaintyMetric(targets=str(tmp_path / "store")), given)
    label = pixels(given, "gt_sem_seg")
    teacher = torch.cat([said[name].flatten() for name in said]).numpy()
    expected = np.mean([teacher[label == k].mean() for k in range(len(CLASSES))])
    assert values["uncertainty/mUnc_teacher"] == pytest.approx(expected, abs=1e-5)
    assert values["uncertainty/mUnc_difference"] == values["uncertainty/mUnc"] - values["uncertainty/mUnc_teacher"]
    assert "student" in log[-1] and "teacher" in log[-1] and "person" in log[-1]


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
        (lambda s: s["gt_sem_seg"].update(data=torch.zeros(1, 3, 4).long()), r"street_0.png has labels of \(3, 4\)"),
        (lambda s: s["pred_uncertainty"]["data"][0, 2].fill_(torch.nan), r"street_0.png: .*\[2, 0\] is nan"),
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
