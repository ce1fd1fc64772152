"""The metrics as torchmetrics: against the references, and identical to the last bit however the data arrives."""

import copy
import math
import multiprocessing
import pickle
import re
import warnings

import pytest
import references as ref
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import DTYPES, EDGES, bin_numbers, binned, edge_rules, predicted
from torchmetrics import MetricCollection
from two_ranks import in_two_ranks

from uncertainty_core.functional.calibration import BIN_METRICS, FINE_BIN_METRICS, CalibrationResult, bin_statistics
from uncertainty_core.functional.selective import ranking
from uncertainty_core.functional.sparsification import uncertainty_level
from uncertainty_core.metrics.calibration import SCORES, CalibrationMetric, ConfidenceCalibration, GroupMean
from uncertainty_core.metrics.selective import PixelRanking, UncertaintyRanking

CLOSE = {"rel": 1e-12, "abs": 1e-13}
NAN = math.nan


def generator(seed):
    return torch.Generator().manual_seed(seed)


def softmax_rows(size, num_classes, seed=0, dtype=torch.float32):
    return (torch.randn(size, num_classes, generator=generator(seed)) * 3).softmax(1).to(dtype)


def integers(high, size, seed=1):
    return torch.randint(high, (size,), generator=generator(seed))


def values(size, seed=2):
    """In [0, 1], a third of them on an edge of ten bins."""
    random = torch.rand(size, generator=generator(seed))
    return torch.where(torch.arange(size) % 3 == 0, (random * 10).round() / 10, random)


# How each metric is made, and its update arguments for N samples: tensors whose first dimension is N.
CASES = {
    "calibration": (lambda: CalibrationMetric(3, class_wise=True), lambda n: (softmax_rows(n, 3), integers(3, n))),
    "calibration-left-half": (
        lambda: CalibrationMetric(7, 10, "left", ignore_index=2),
        lambda n: (softmax_rows(n, 7, dtype=torch.float16), integers(7, n)),
    ),
    "confidence": (lambda: ConfidenceCalibration(10), lambda n: (values(n), integers(2, n).bool())),
    "confidence-groups": (
        lambda: ConfidenceCalibration(10, "left", num_groups=3),
        lambda n: (values(n), values(n, 4), integers(3, n)),
    ),
    "ranking": (lambda: UncertaintyRanking(50), lambda n: (values(n), integers(2, n).bool())),
    "pixels": (
        lambda: PixelRanking(3, ignore_index=0),
        lambda n: (integers(3, n), integers(3, n, 5), values(n)),
    ),
    "group-mean": (lambda: GroupMean(3, ignore_index=255), lambda n: (values(n), integers(3, n))),
}
every_case = pytest.mark.parametrize("case", CASES)


def updated(case, data, parts=(slice(None),)):
    """A new metric that saw these parts of the data, one after the other."""
    metric = CASES[case][0]()
    for part in parts:
        metric.update(*(tensor[part] for tensor in data))
    return metric


def quiet(metric):
    """Computed values as tensors by name, also of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return metric.compute()


def assert_same_values(got, expected):
    assert got.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(
            got[name], expected[name], rtol=0, atol=0, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
        )


def assert_identical(got, expected):
    """Same states and same computed values, bit by bit."""
    for name, state in expected.metric_state.items():
        assert torch.equal(got.metric_state[name], state), name
        assert got.metric_state[name].dtype == torch.int64
    assert_same_values(quiet(got), quiet(expected))


def states_of(metric):
    return {name: state.clone() for name, state in metric.metric_state.items()}


# Against the references


def expected_calibration(probabilities, labels, num_bins, edges):
    """What `CalibrationMetric` should say of (N, C) rows."""
    rows, truth = probabilities.tolist(), labels.tolist()
    top = [ref.confidence_and_prediction(row) for row in rows]
    confidence = torch.tensor([c for c, _ in top], dtype=torch.float64).to(probabilities.dtype)
    success = torch.tensor([p == t for (_, p), t in zip(top, truth, strict=True)], dtype=torch.bool)
    bins = ref.bins_by_loop(confidence, success, num_bins, edges)
    expected = {name: getattr(ref, name)(bins) for name in BIN_METRICS}
    for name in ("accuracy", "brier", "nll_true"):
        expected[name] = ref.mean([getattr(ref, name)(row, t) for row, t in zip(rows, truth, strict=True)])
    for name in ("nll_pred", "entropy"):
        expected[name] = ref.mean([getattr(ref, name)(row) for row in rows])
    expected["class_wise_ece"] = ref.class_wise_ece(probabilities, labels, num_bins, edges)
    by_class = [ConfidenceCalibration(num_bins, edges) for _ in range(probabilities.shape[1])]
    for c, metric in enumerate(by_class):
        metric.update(probabilities[:, c], labels == c)
    values = [metric.compute()["adaptive_ece"].item() for metric in by_class]
    expected["class_wise_adaptive_ece"] = sum(values) / len(values)
    return expected


def assert_calibration(computed, expected, dtype):
    for name, value in computed.items():
        if name in FINE_BIN_METRICS:
            continue
        assert value.dtype == torch.float64 and value.shape == ()
        # brier, nll and entropy of single samples are computed in float32, unless they come in float64
        rough = name in SCORES and name != "accuracy" and dtype != torch.float64
        assert value.item() == pytest.approx(expected[name], **({"rel": 2e-6, "abs": 1e-6} if rough else CLOSE)), name


@given(predicted(min_size=1), bin_numbers, edge_rules)
def test_calibration_equals_the_loop(drawn, num_bins, edges):
    probabilities, labels = drawn
    metric = CalibrationMetric(probabilities.shape[1], num_bins, edges, class_wise=True)
    metric.update(probabilities, labels)
    assert_calibration(metric.compute(), expected_calibration(*drawn, num_bins, edges), probabilities.dtype)


@pytest.mark.parametrize("ignore_index", [255, -100, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_but_for_the_void_count_like_samples(dtype, ignore_index):
    images = (torch.randn(3, 4, 5, 7, generator=generator(0)) * 2).softmax(1).to(dtype)
    labels = torch.randint(4, (3, 5, 7), generator=generator(1))
    labels[torch.rand(labels.shape, generator=generator(2)) < 0.3] = ignore_index
    metric = CalibrationMetric(4, 10, ignore_index=ignore_index, class_wise=True)
    metric.update(images, labels)
    kept = labels.flatten() != ignore_index
    rows = images.movedim(1, -1).reshape(-1, 4)[kept]
    assert_calibration(metric.compute(), expected_calibration(rows, labels.flatten()[kept], 10, "right"), dtype)
    assert metric.result().num_samples == kept.sum()


def test_hand_worked_calibration():
    # in (.6, .8]: .75 hit; in (.4, .6]: .5 hit (the first of two) and .5 miss, whose class has probability 0
    p = torch.tensor([[0.75, 0.25, 0.0], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0]], dtype=torch.float64)
    metric = CalibrationMetric(3, num_bins=5)
    metric.update(p, torch.tensor([0, 0, 2]))
    log2, log4 = math.log(2), math.log(4)
    assert {name: value.item() for name, value in metric.compute().items() if name not in FINE_BIN_METRICS} == {
        "ece": pytest.approx(0.25 / 3),  # gap .25 (1 of 3), 1/2 - .5 = 0 (2 of 3)
        "msce": pytest.approx(0.0625 / 3),
        "mce": pytest.approx(0.25),
        "mce_squared": pytest.approx(0.0625),
        "accuracy": pytest.approx(2 / 3),
        "brier": pytest.approx((0.125 + 0.5 + 1.5) / 3),
        "nll_true": math.inf,
        "nll_pred": pytest.approx((log4 - math.log(3) + 2 * log2) / 3),
        "entropy": pytest.approx((0.75 * (log4 - math.log(3)) + 0.25 * log4 + 2 * log2) / 3),
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_second_of_two_equal_classes_is_not_predicted(dtype):
    p = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.25, 0.75], [0.75, 0.25]], dtype=dtype)
    labels = torch.tensor([0, 1, 1, 1])  # hit, miss though as probable, hit, miss
    rows, image = CalibrationMetric(2, 4), CalibrationMetric(2, 4)
    rows.update(p, labels)
    image.update(p.T.reshape(1, 2, 2, 2), labels.view(1, 2, 2))
    for metric in (rows, image):
        assert metric.compute()["accuracy"].item() == 0.5
        assert metric.result().bins.success.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_edge_is_an_edge_in_every_precision(dtype, edges):
    # 3/10 in half precision is a little more than 3/10, and the edge with it
    p = torch.tensor([[0.3, 0.25, 0.25, 0.2], [0.7, 0.1, 0.1, 0.1]], dtype=dtype)
    metric, single = CalibrationMetric(4, 10, edges), ConfidenceCalibration(10, edges)
    metric.update(p, torch.tensor([0, 0]))
    single.update(p[:, 0], torch.tensor([True, True]))
    filled = [2, 6] if edges == "right" else [3, 7]
    assert single.bins.count.nonzero().flatten().tolist() == filled
    assert metric.result().bins.count.nonzero().flatten().tolist() == filled


@given(binned(min_size=1))
def test_confidence_calibration_equals_the_loop(drawn):
    metric = ConfidenceCalibration(drawn.num_bins, drawn.edges)
    metric.update(drawn.confidence, drawn.success)
    bins = ref.bins_by_loop(*drawn)
    computed = metric.compute()
    for name in BIN_METRICS:
        assert computed[name].item() == pytest.approx(getattr(ref, name)(bins), **CLOSE)


def test_groups_have_bins_of_their_own_and_a_common_result():
    confidence, success, group = CASES["confidence-groups"][1](200)
    metric = updated("confidence-groups", (confidence, success, group))
    computed = metric.compute()
    for g in range(3):
        bins = ref.bins_by_loop(confidence[group == g], success[group == g], 10, "left")
        for name in BIN_METRICS:
            assert computed[name][g].item() == pytest.approx(getattr(ref, name)(bins), **CLOSE)
    assert metric.bins.count.shape == (3, 10)
    scores = metric.result().scores
    assert metric.result() == CalibrationResult(bin_statistics(confidence, success, 10, "left"), "left", scores)


def test_uncertainty_ranking_equals_the_loop():
    uncertainty, event = CASES["ranking"][1](200)
    limits = ref.edge_values(50, uncertainty.dtype)
    level = [ref.bin_by_loop(value, limits, "right") for value in uncertainty.tolist()]
    metric = updated("ranking", (uncertainty, event))
    assert {name: value.item() for name, value in metric.compute().items()} == {
        "aurc": pytest.approx(ref.aurc(level, event.tolist()), **CLOSE),
        "auroc": pytest.approx(ref.auroc(level, event.tolist()), **CLOSE),
        "aupr": pytest.approx(ref.average_precision(level, event.tolist()), **CLOSE),
        "fpr95": pytest.approx(ref.fpr_at_tpr(level, event.tolist(), 0.95), **CLOSE),
    }
    assert all(torch.equal(*pair) for pair in zip(metric.ranking, ranking(uncertainty, event, 50), strict=True))


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0, 1, 2, 255])), min_size=1, max_size=30))
def test_group_mean_equals_the_loop(pairs):
    uncertainty = torch.tensor([v for v, _ in pairs], dtype=torch.float64)
    group = torch.tensor([g for _, g in pairs])
    metric = GroupMean(4, ignore_index=255)
    metric.update(uncertainty, group)
    computed = quiet(metric)
    expected = ref.group_mean(uncertainty, group, 4)  # group 3 never occurs
    assert computed["per_group"].tolist() == pytest.approx(expected, **CLOSE, nan_ok=True)
    occurring = [m for m in expected if not math.isnan(m)]
    assert computed["mean"].item() == pytest.approx(ref.mean(occurring), **CLOSE, nan_ok=True)


def test_hand_worked_group_mean():
    metric = GroupMean(3, ignore_index=255)
    metric.update(torch.tensor([[0.25, 0.75], [1.0, 0.5]]), torch.tensor([[0, 0], [255, 2]]))
    assert metric.compute()["per_group"].tolist() == pytest.approx([0.5, NAN, 0.5], nan_ok=True)
    metric.update(torch.tensor([1.0]), torch.tensor([2]))
    assert metric.compute()["per_group"].tolist() == pytest.approx([0.5, NAN, 0.75], nan_ok=True)
    assert metric.compute()["mean"].item() == 0.625


# The same bits however the data arrives


MERGES = {
    "merge_state": lambda metric, other: metric.merge_state(other),
    "merge_state of a dict": lambda metric, other: metric.merge_state(other.metric_state),
    "addition": lambda metric, other: [
        setattr(metric, name, getattr(metric, name) + state) for name, state in other.metric_state.items()
    ],
}


@every_case
@pytest.mark.parametrize("merge", MERGES)
def test_merged_shards_equal_one_pass(case, merge):
    data = CASES[case][1](300)
    metric = updated(case, data, [slice(0, 100)])
    for shard in (slice(100, 101), slice(101, 101), slice(101, None)):
        MERGES[merge](metric, updated(case, data, [shard]))
    assert_identical(metric, updated(case, data))


@every_case
@given(st.lists(st.integers(0, 120), max_size=6).map(sorted), st.integers(0, 2**31))
def test_chunks_in_any_order_equal_one_pass(case, cuts, seed):
    data = CASES[case][1](120)
    order = torch.randperm(120, generator=generator(seed))
    chunks = [order[start:stop] for start, stop in zip([0, *cuts], [*cuts, 120], strict=True)]
    assert_identical(updated(case, data, chunks), updated(case, data))


@every_case
def test_samples_one_by_one_equal_one_pass(case):
    data = CASES[case][1](50)
    assert_identical(updated(case, data, [slice(i, i + 1) for i in range(50)]), updated(case, data))


@pytest.mark.parametrize("num_classes", [2, 19, 150])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("arrival", ["reversed", "nines", "rows", "image by image", "channels last"])
def test_pixels_in_any_order_and_layout_equal_one_pass(num_classes, dtype, arrival):
    # 77 is no multiple of any vector length: sums over classes must not depend on where in the image a pixel lies
    images = (torch.randn(2, num_classes, 7, 11, generator=generator(0)) * 3).softmax(1).to(dtype)
    labels = torch.randint(num_classes, (2, 7, 11), generator=generator(1))
    once, metric = CalibrationMetric(num_classes, class_wise=True), CalibrationMetric(num_classes, class_wise=True)
    once.update(images, labels)
    flat, flat_labels = images.flatten(2), labels.flatten(1)
    if arrival == "reversed":
        metric.update(flat.flip(2), flat_labels.flip(1))
    elif arrival == "nines":
        for start in range(0, 77, 9):
            metric.update(flat[..., start : start + 9], flat_labels[:, start : start + 9])
    elif arrival == "rows":
        metric.update(flat.movedim(1, 2).reshape(-1, num_classes), flat_labels.flatten())
    elif arrival == "image by image":
        metric.update(images[1:], labels[1:])
        metric.update(images[:1], labels[:1])
    else:
        metric.update(images.to(memory_format=torch.channels_last), labels)
    assert_identical(metric, once)


@every_case
def test_a_fresh_metric_can_be_merged_into_and_from(case):
    data = CASES[case][1](40)
    expected = updated(case, data)
    into, other = CASES[case][0](), updated(case, data)
    into.merge_state(other)
    other.merge_state(CASES[case][0]())
    assert_identical(into, expected)
    assert_identical(other, expected)


@every_case
def test_merging_after_compute_is_not_answered_from_the_cache(case):
    data = CASES[case][1](100)
    metric = updated(case, data, [slice(0, 30)])
    metric.compute()
    metric.merge_state(updated(case, data, [slice(30, None)]))
    assert_identical(metric, updated(case, data))


@every_case
def test_forward_gives_the_batch_and_keeps_the_total(case):
    data = CASES[case][1](90)
    metric = CASES[case][0]()
    for part in (slice(0, 20), slice(20, 90)):
        batch = metric(*(tensor[part] for tensor in data))
        assert_same_values(batch, updated(case, data, [part]).compute())
    assert_identical(metric, updated(case, data))


@every_case
def test_reset_forgets_everything(case):
    data = CASES[case][1](60)
    metric = updated(case, data)
    metric.compute()
    metric.reset()
    assert all(not state.any() for state in metric.metric_state.values())
    metric.update(*(tensor[:10] for tensor in data))
    assert_identical(metric, updated(case, data, [slice(10)]))


@every_case
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda metric: pickle.loads(pickle.dumps(metric))])
def test_a_copy_has_a_life_of_its_own(case, duplicate):
    data = CASES[case][1](60)
    metric = updated(case, data, [slice(30)])
    twin = duplicate(metric)
    twin.update(*(tensor[30:] for tensor in data))
    assert_identical(metric, updated(case, data, [slice(30)]))
    assert_identical(twin, updated(case, data))


@every_case
def test_a_checkpoint_carries_the_sums(case):
    data = CASES[case][1](60)
    metric, resumed = updated(case, data, [slice(30)]), CASES[case][0]()
    for m in (metric, resumed):
        m.persistent(True)
    resumed.load_state_dict(metric.state_dict())
    resumed.update(*(tensor[30:] for tensor in data))
    assert_identical(resumed, updated(case, data))


@every_case
def test_half_precision_models_leave_the_sums_alone(case):
    data = CASES[case][1](60)
    metric = updated(case, data)
    torch.nn.ModuleDict({"metric": metric}).half()
    assert_identical(metric, updated(case, data))


@every_case
def test_the_state_does_not_grow(case):
    small, large = updated(case, CASES[case][1](10)), updated(case, CASES[case][1](500))
    assert all(torch.is_tensor(state) for state in large.metric_state.values())
    assert [s.shape for s in small.metric_state.values()] == [s.shape for s in large.metric_state.values()]


def test_a_graph_is_not_kept():
    p = torch.tensor([[0.25, 0.75]], requires_grad=True)
    metric = CalibrationMetric(2, class_wise=True)
    metric.update(p, torch.tensor([1]))
    assert not any(state.requires_grad for state in metric.metric_state.values())
    assert not any(value.requires_grad for value in metric.compute().values())


# Collections


def test_a_collection_computes_what_its_members_do():
    metrics = {"k10": lambda: CalibrationMetric(3, 10), "k15": lambda: CalibrationMetric(3, class_wise=True)}
    collection = MetricCollection({name: make() for name, make in metrics.items()})
    p, y = softmax_rows(90, 3), integers(3, 90)
    for part in (slice(0, 40), slice(40, 90)):
        collection.update(p[part], y[part])
    computed = collection.compute()
    for name, make in metrics.items():
        alone = make()
        alone.update(p, y)
        for key, value in alone.compute().items():
            got = computed[f"{name}_{key}"] if f"{name}_{key}" in computed else computed[key]
            assert torch.equal(got, value), (name, key)


TWINS = {
    "edges": (
        lambda: {edges: ConfidenceCalibration(10, edges) for edges in EDGES},
        [(torch.tensor([0.25]), torch.tensor([True])), (torch.tensor([0.5]), torch.tensor([False]))],
    ),
    "edges of predictions": (
        lambda: {edges: CalibrationMetric(2, 10, edges) for edges in EDGES},
        [(torch.tensor([[0.75, 0.25]]), torch.tensor([0])), (torch.tensor([[0.5, 0.5]]), torch.tensor([0]))],
    ),
    "ignore_index of predictions": (
        lambda: {str(i): CalibrationMetric(2, 10, ignore_index=i) for i in (None, 1)},
        [(torch.tensor([[0.75, 0.25]]), torch.tensor([0])), (torch.tensor([[0.75, 0.25]]), torch.tensor([1]))],
    ),
    "ignore_index of pixels": (
        lambda: {str(i): PixelRanking(2, ignore_index=i) for i in (None, 1)},
        [(torch.tensor([0]), torch.tensor([0]), torch.tensor([0.5]))] * 2
        + [(torch.tensor([0]), torch.tensor([1]), torch.tensor([0.5]))],
    ),
    "ignore_index of groups": (
        lambda: {str(i): GroupMean(2, ignore_index=i) for i in (None, 1)},
        [(torch.tensor([0.5]), torch.tensor([0])), (torch.tensor([0.25]), torch.tensor([1]))],
    ),
}


@pytest.mark.parametrize("twins", TWINS)
def test_members_that_agree_at_first_stay_apart_in_a_collection(twins):
    # a collection shares one state among members whose states are equal after the first update
    make, updates = TWINS[twins]
    collection, alone = MetricCollection(make()), make()
    for arguments in updates:
        collection.update(*arguments)
        for metric in alone.values():
            metric.update(*arguments)
    for name, metric in alone.items():
        assert_identical(collection[name], metric)


# Ranks


def run_rank(rank, work):
    """One of two ranks: see each metric's own batches, then compute over both ranks. `work` is as in the test below."""
    results = {}
    for name, (metric, batches) in work.items():
        for batch in batches[rank]:
            metric.update(*batch)
        before = states_of(metric)
        computed = metric.compute()
        assert all(torch.equal(metric.metric_state[key], state) for key, state in before.items()), "own sums are kept"
        results[name] = computed
    return results


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="fresh processes take long to import")
def test_two_ranks_equal_one_pass(tmp_path):
    p, y, u, event = softmax_rows(301, 5), integers(5, 301), values(301), integers(2, 301).bool()
    metrics = {
        "calibration": (lambda: CalibrationMetric(5, class_wise=True), (p, y)),
        "ranking": (UncertaintyRanking, (u, event)),
        "pixels": (lambda: PixelRanking(5), (p.argmax(1), y, u)),
    }
    work, once = {}, {}
    for name, (make, data) in metrics.items():
        batches = [tuple(t[part] for t in data) for part in (slice(50), slice(50, 201), slice(201, None))]
        work[name] = make(), (batches[:2], batches[2:])  # 50 and 151 samples here, 100 there
        work[f"{name} on one rank"] = make(), ([data], [])
        once[name] = make()
        once[name].update(*data)
    for results in in_two_ranks(run_rank, tmp_path, work):
        assert results.keys() == work.keys()
        for name, computed in results.items():
            assert_same_values(computed, once[name.removesuffix(" on one rank")].compute())


# Large counts


def grow(metric, *sample):
    """Let it have seen one sample 2²⁴ + 3 times: 2¹⁰ at once, doubled, and three more."""
    metric.update(*(value.expand(2**10, *value.shape) for value in sample))
    for _ in range(14):
        metric.merge_state(metric)
    metric.update(*(value.expand(3, *value.shape) for value in sample))


def test_more_updates_than_float32_can_count():
    size = 2**24 + 3
    metric = CalibrationMetric(2, 10)
    grow(metric, torch.tensor([0.25, 0.75]), torch.tensor(1))
    metric.update(torch.tensor([[0.25, 0.75]]), torch.tensor([0]))
    assert metric.result().bins.count[7] == size + 1
    assert metric.compute()["accuracy"].item() == size / (size + 1)
    assert metric.compute()["nll_pred"].item() == pytest.approx(-math.log(0.75), rel=1e-7)


def test_other_sums_beyond_float32():
    size, half, one = 2**24 + 3, torch.tensor(0.5), torch.tensor(1)
    order, pixels, group = UncertaintyRanking(10), PixelRanking(2), GroupMean(2)
    grow(order, half, torch.tensor(True))
    grow(pixels, one, one, half)
    grow(group, half, one)
    assert order.ranking.count[4] == order.ranking.events[4] == size
    assert pixels.levels.right[uncertainty_level(half), 1] == size
    assert group.compute()["per_group"][1] == 0.5 and group.sums[0, 1] == size


@every_case
def test_counts_past_two_billion_do_not_overflow(case):
    data = CASES[case][1](60)
    once, metric = updated(case, data), updated(case, data)
    for _ in range(30):
        metric.merge_state(metric)  # 60 · 2³⁰ = 6·10¹⁰
    for name, state in once.metric_state.items():
        assert torch.equal(metric.metric_state[name], state * 2**30)
    assert not any((state < 0).any() for state in metric.metric_state.values())
    computed, expected = metric.compute(), once.compute()
    for name in expected:
        # the area under risk-coverage depends on the number of samples, not only on their proportions
        if name != "aurc":
            torch.testing.assert_close(computed[name], expected[name], rtol=1e-12, atol=1e-13, equal_nan=True)
    assert all(value.isfinite().all() for name, value in computed.items() if name != "nll_true")


# Little input, and bad input


EMPTY = {
    "calibration": [(torch.zeros(0, 3), torch.zeros(0).long()), (torch.zeros(2, 3, 0, 4), torch.zeros(2, 0, 4).long())],
    "confidence": [(torch.zeros(0), torch.zeros(0).bool())],
    "confidence-groups": [(torch.zeros(0), torch.zeros(0), torch.zeros(0).long())],
    "ranking": [(torch.zeros(0), torch.zeros(0).bool())],
    "pixels": [(torch.zeros(0).long(), torch.zeros(0).long(), torch.zeros(0))],
    "group-mean": [(torch.zeros(0), torch.zeros(0).long()), (torch.tensor([0.5]), torch.tensor([255]))],
    "calibration-left-half": [
        (torch.zeros(0, 7, 2, 2), torch.zeros(0, 2, 2).long()),
        (torch.full((1, 7), 1 / 7), torch.tensor([2])),  # all void
    ],
}


@every_case
def test_nothing_is_nan_with_a_warning(case):
    for arguments in EMPTY[case]:
        metric = CASES[case][0]()
        metric.update(*arguments)
        with pytest.warns(RuntimeWarning, match="is NaN"):
            computed = metric.compute()
        assert all(value.isnan().all() for value in computed.values())
        assert all(not state.any() for state in metric.metric_state.values())


@every_case
@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_compute_before_update_is_nan_with_a_warning(case):
    with pytest.warns(RuntimeWarning, match="is NaN"):
        computed = CASES[case][0]().compute()
    assert all(value.isnan().all() for value in computed.values())


@every_case
def test_an_empty_batch_adds_nothing(case):
    data = CASES[case][1](40)
    metric = updated(case, data)
    for arguments in EMPTY[case]:
        metric.update(*arguments)
    assert_identical(metric, updated(case, data))


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize(
    ("probabilities", "label", "expected"),
    [
        # certain and right, certain and wrong: -log 0
        ([0.0, 1.0], 1, {"ece": 0, "accuracy": 1, "brier": 0, "nll_true": 0, "nll_pred": 0, "entropy": 0}),
        ([0.0, 1.0], 0, {"ece": 1, "accuracy": 0, "brier": 2, "nll_true": math.inf, "nll_pred": 0, "entropy": 0}),
    ],
)
def test_a_single_certain_prediction(probabilities, label, expected, edges):
    metric = CalibrationMetric(2, 10, edges, class_wise=True)
    metric.update(torch.tensor([probabilities]), torch.tensor([label]))
    computed = metric.compute()
    assert {name: computed[name].item() for name in expected} == expected
    assert computed["class_wise_ece"].item() == expected["ece"]
    assert metric.result().bins.count.tolist() == [0] * 9 + [1]


def test_one_infinite_nll_makes_the_mean_infinite_and_harms_no_other_score():
    p, y = softmax_rows(20, 3), integers(3, 20)
    metric, without = CalibrationMetric(3), CalibrationMetric(3)
    for m in (metric, without):
        m.update(p, y)
    certain = torch.tensor([[1.0, 0.0, 0.0]])
    metric.update(certain, torch.tensor([1]))
    without.update(certain, torch.tensor([0]))
    assert metric.compute()["nll_true"].item() == math.inf
    for name in ("nll_pred", "entropy"):
        assert torch.equal(metric.compute()[name], without.compute()[name])
    assert CalibrationResult.from_json(metric.result().to_json()) == metric.result()


P2 = [[0.25, 0.75], [0.5, 0.5]]
BAD = {
    "logits": (
        "p2",
        ([*P2[:1], [2.0, -1.0]], [0, 1]),
        "probabilities must lie in [0, 1], but probabilities[1, 0] is 2.0; ",
    ),
    "nan": ("p2", ([*P2[:1], [0.5, NAN]], [0, 1]), "probabilities must be finite, but probabilities[1, 1] is nan"),
    "sum": (
        "p2",
        ([[0.5, 0.25], P2[0]], [0, 1]),
        "probabilities must sum to 1 over dimension 1, but probabilities[0, :] ",
    ),
    "integers": ("p2", ([[0, 1]], [0]), "probabilities must be floating point, got torch.int64"),
    "vector": ("p2", ([0.5, 0.5], [0, 1]), "probabilities must have shape (N, C, ...) with C >= 1, got (2,)"),
    "classes": ("p2", ([[0.5, 0.25, 0.25]], [0]), "probabilities must have 2 classes, got 3"),
    "shape": ("p2", (P2, [0]), "labels must have shape (2,) to go with probabilities (2, 2), got (1,)"),
    "label": ("p2", (P2, [0, 2]), "labels must lie in [0, 2) or be 9 (ignored), but labels[1] is 2"),
    "negative": ("p2", (P2, [-1, 0]), "labels must lie in [0, 2) or be 9 (ignored), but labels[0] is -1"),
    "floats": ("p2", (P2, [0.0, 1.0]), "labels must be integers, got torch.float32"),
    "confidence": ("confidence", ([0.5, 1.5], [True, True]), "confidence must lie in [0, 1], but confidence[1] is 1.5"),
    "confidence nan": ("confidence", ([NAN], [True]), "confidence must be finite, but confidence[0] is nan"),
    "success": ("confidence", ([0.5, 0.5], [0.0, 2.0]), "success must lie in [0, 1], but success[1] is 2.0"),
    "successes": ("confidence", ([0.5, 0.5], [True]), "confidence and success must have the same shape"),
    "a group too many": ("confidence", ([0.5], [True], [0]), "group must be given if, and only if, num_groups was"),
    "no group": ("confidence-groups", ([0.5], [True]), "group must be given if, and only if, num_groups was"),
    "group": ("confidence-groups", ([0.5, 0.5], [True, True], [0, 3]), "group must lie in [0, 3), but group[1] is 3"),
    "uncertainty": (
        "ranking",
        ([0.5, -0.5], [True, True]),
        "uncertainty must lie in [0, 1], but uncertainty[1] is -0.5",
    ),
    "event": ("ranking", ([0.5], [1]), "event must be bool, got torch.int64"),
    "events": ("ranking", ([0.5], [True, True]), "uncertainty and event must have the same shape, got (1,) and (2,)"),
    "pixel": (
        "pixels",
        ([0, 1], [1, 1], [0.5, NAN]),
        "uncertainty must be finite, but uncertainty[1] is nan",
    ),
    "pixel after void": (
        "pixels",
        ([0, 1, 1], [0, 1, 1], [0.5, 0.5, 7.0]),
        "uncertainty must lie in [0, 1], but uncertainty[2] is 7.0",
    ),
    "pixel of an image after void": (
        "pixels",
        ([[0, 1], [1, 1]], [[0, 1], [0, 1]], [[0.5, 0.5], [0.5, 7.0]]),
        "uncertainty must lie in [0, 1], but uncertainty[1, 1] is 7.0",
    ),
    "prediction": (
        "pixels",
        ([1, 3], [1, 1], [0.5, 0.5]),
        "prediction must lie in [0, 3), but prediction[1] is 3",
    ),
    "true class": ("pixels", ([0, 1], [1, 3], [0.5, 0.5]), "but label[1] is 3"),
    "pixels": ("pixels", ([0, 1], [1], [0.5, 0.5]), "prediction and label must have the same shape"),
    "maps": ("pixels", ([0, 1], [0, 1], [0.5]), "prediction and uncertainty must have the same shape"),
    "value": ("group-mean", ([0.5, 3.0], [0, 0]), "values must lie in [0, 1], but values[1] is 3.0"),
    "values": ("group-mean", ([0.5, 0.5], [0]), "values and group must have the same shape, got (2,) and (1,)"),
    "mean's group": ("group-mean", ([0.5], [3]), "group must lie in [0, 3) or be 255 (ignored), but group[0] is 3"),
}
BAD_METRICS = {name: make for name, (make, _) in CASES.items()} | {
    "p2": lambda: CalibrationMetric(2, class_wise=True, ignore_index=9)
}
GOOD_ARGUMENTS = {
    "p2": (torch.tensor(P2), torch.tensor([0, 1])),
    **{name: data(10) for name, (_, data) in CASES.items()},
}


@pytest.mark.parametrize("method", ["update", "forward"])
@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_refused_and_changes_nothing(bad, method):
    name, arguments, message = BAD[bad]
    metric, good = BAD_METRICS[name](), GOOD_ARGUMENTS[name]
    metric.update(*good)
    before = states_of(metric)
    with pytest.raises(ValueError, match=re.escape(message)):
        getattr(metric, method)(*(torch.tensor(values) for values in arguments))
    for key, state in before.items():
        assert torch.equal(metric.metric_state[key], state)
    expected = BAD_METRICS[name]()
    for m in (metric, expected):
        m.update(*good)
    expected.update(*good)
    assert_identical(metric, expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CalibrationMetric(0), "num_classes must be an integer >= 1, got 0"),
        (lambda: CalibrationMetric(2, num_bins=0), "num_bins must be an integer >= 1, got 0"),
        (lambda: CalibrationMetric(2, edges="middle"), "edges must be 'right' or 'left', got 'middle'"),
        (lambda: ConfidenceCalibration(num_bins=1.5), "num_bins must be an integer >= 1, got 1.5"),
        (lambda: ConfidenceCalibration(edges="middle"), "edges must be 'right' or 'left', got 'middle'"),
        (lambda: ConfidenceCalibration(num_groups=0), "num_groups must be an integer >= 1, got 0"),
        (lambda: UncertaintyRanking(num_bins=-1), "num_bins must be an integer >= 1, got -1"),
        (lambda: PixelRanking(0), "num_classes must be an integer >= 1, got 0"),
        (lambda: PixelRanking(2, removed=[0.5, 1.0]), "removed must "),
        (lambda: PixelRanking(2, removed=[0.5, 0.25]), "removed must "),
        (lambda: GroupMean(0), "num_groups must be an integer >= 1, got 0"),
    ],
)
def test_a_metric_that_cannot_work_is_not_made(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(
    ("metric", "other"),
    [
        (ConfidenceCalibration(15), ConfidenceCalibration(1)),  # states that would broadcast
        (ConfidenceCalibration(10, "right"), ConfidenceCalibration(10, "left")),
        (ConfidenceCalibration(num_groups=1), ConfidenceCalibration(num_groups=3)),
        (CalibrationMetric(2), CalibrationMetric(3)),
        (GroupMean(1), GroupMean(3)),
        (PixelRanking(1), PixelRanking(3)),
    ],
)
def test_metrics_of_different_settings_do_not_merge(metric, other):
    with pytest.raises(ValueError, match="metrics of different settings cannot be merged"):
        metric.merge_state(other)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.uint16, torch.uint32])
def test_labels_may_have_any_integer_type(dtype):
    p, y = softmax_rows(40, 5), integers(5, 40)
    y[::4] = 100
    expected, got = CalibrationMetric(5, ignore_index=100), CalibrationMetric(5, ignore_index=100)
    expected.update(p, y)
    got.update(p, y.to(dtype))
    assert_identical(got, expected)
    order, wanted = PixelRanking(5, ignore_index=100), PixelRanking(5, ignore_index=100)
    wanted.update(p.argmax(1), y, p.amax(1))
    order.update(p.argmax(1).to(dtype), y.to(dtype), p.amax(1))
    assert_identical(order, wanted)


# Results and documentation


def test_a_result_holds_what_compute_says():
    metric = updated("calibration", CASES["calibration"][1](100))
    result = metric.result()
    assert result.metrics == {name: value.item() for name, value in metric.compute().items()}
    assert list(result.scores) == [*FINE_BIN_METRICS, *SCORES, "class_wise_ece", "class_wise_adaptive_ece"]
    assert result.num_bins == 15 and result.num_samples == 100
    assert CalibrationResult.from_json(result.to_json()) == result
    assert updated("confidence", CASES["confidence"][1](100)).result().scores.keys() == FINE_BIN_METRICS.keys()
