"""Which detections speak of a ground-truth box, and what they say on average: by hand, and by slow definitions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddn_detectron2.teaching.target_matching import average_logits, gt_targets, most_overlapping

LN2, LN3 = math.log(2), math.log(3)
# A box of 10 x 10 and what overlaps it, with the IoU.
BOX = [0.0, 0.0, 10.0, 10.0]
EIGHT_TENTHS = [0.0, 0.0, 8.0, 10.0]  # 80 / 100
HALF = [0.0, 0.0, 5.0, 10.0]  # 50 / 100
THIRD = [5.0, 0.0, 15.0, 10.0]  # 50 / (100 + 100 - 50)
FAR = [50.0, 50.0, 60.0, 60.0]
NONE = torch.zeros(0, 4)


def boxes(*rows):
    return torch.tensor(rows).reshape(-1, 4)


def iou(a, b):
    """Intersection over union of two boxes, as one would do it on paper."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b)]
    return width * height / (sum(areas) - width * height)


def match_by_loop(gt_boxes, found, threshold):
    index = []
    for gt in gt_boxes:
        best, best_iou = -1, 0.0
        for number, box in enumerate(found):
            if iou(gt, box) >= threshold and iou(gt, box) > best_iou:
                best, best_iou = number, iou(gt, box)
        index.append(best)
    return index


# corners on a coarse grid: ties are frequent, and their IoU are exact or equal fractions
corners = st.integers(0, 6)
random_box = st.tuples(corners, corners, st.integers(1, 4), st.integers(1, 4)).map(
    lambda b: [float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3])]
)
box_lists = st.lists(random_box, max_size=8)
# never an IoU of such boxes, so that rounding does not decide: these have denominators of at most 32
thresholds = st.sampled_from([0.0101, 0.3001, 0.5001, 0.7001, 0.9901])
seeds = st.integers(0, 2**32)


# --- most_overlapping -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "threshold", "expected"),
    [
        ([HALF, EIGHT_TENTHS, THIRD], 0.3, 1),  # the best, wherever it stands
        ([THIRD, HALF], 0.5, 1),
        ([HALF], 0.5, 0),  # the threshold itself is enough: 50 / 100 is 0.5 exactly
        ([HALF], 0.51, -1),
        ([FAR], 0.3, -1),
        ([FAR, BOX], 1.0, 1),
        ([], 0.5, -1),
    ],
    ids=["best", "one-reaches", "at-threshold", "below", "far", "perfect", "no-detections"],
)
def test_the_detection_that_overlaps_most(found, threshold, expected):
    assert most_overlapping(boxes(BOX), boxes(*found), threshold).tolist() == [expected]


def test_of_equals_the_first():
    # The left and the right half overlap by 1/2 each, and so does the left half again.
    right = [5.0, 0.0, 10.0, 10.0]
    assert most_overlapping(boxes(BOX), boxes(FAR, right, HALF, right), 0.5).tolist() == [1]
    assert most_overlapping(boxes(BOX), boxes(*[HALF] * 100), 0.5).tolist() == [0]


def test_one_detection_serves_two_boxes():
    # It covers both: 50 / 100 each.
    left, right = HALF, [5.0, 0.0, 10.0, 10.0]
    assert most_overlapping(boxes(left, right, FAR), boxes(BOX), 0.5).tolist() == [0, 0, -1]


@pytest.mark.parametrize(("num_gt", "num_found"), [(0, 0), (0, 3), (2, 0)])
def test_nothing_on_either_side(num_gt, num_found):
    index = most_overlapping(boxes(*[BOX] * num_gt), boxes(*[BOX] * num_found), 0.5)
    assert index.dtype == torch.int64
    assert index.tolist() == [-1] * num_gt


def test_a_box_without_area_matches_nothing():
    point = [5.0, 5.0, 5.0, 9.0]
    assert most_overlapping(boxes(point), boxes(BOX, point), 0.3).tolist() == [-1]
    assert most_overlapping(boxes(BOX), boxes(point), 0.3).tolist() == [-1]


@given(gt=box_lists, found=box_lists, threshold=thresholds)
def test_equals_a_loop(gt, found, threshold):
    assert most_overlapping(boxes(*gt), boxes(*found), threshold).tolist() == match_by_loop(gt, found, threshold)


@given(gt=box_lists, found=box_lists, threshold=thresholds, shift=st.integers(-50, 50), scale=st.sampled_from([0.5, 4]))
def test_where_and_how_large_does_not_matter(gt, found, threshold, shift, scale):
    # scaled by powers of two and shifted by whole numbers: exact in floating point
    moved = [scale * boxes(*rows) + shift for rows in (gt, found)]
    assert torch.equal(most_overlapping(*moved, threshold), most_overlapping(boxes(*gt), boxes(*found), threshold))


@given(gt=box_lists, found=box_lists, threshold=thresholds, data=st.data())
def test_ground_truth_boxes_are_matched_each_on_its_own(gt, found, threshold, data):
    order = data.draw(st.permutations(range(len(gt))))
    index = most_overlapping(boxes(*gt), boxes(*found), threshold)
    shuffled = most_overlapping(boxes(*(gt[k] for k in order)), boxes(*found), threshold)
    assert shuffled.tolist() == [index[k].item() for k in order]


# --- average_logits ----------------------------------------------------------------------------------------------


def average_by_loop(logits, found, average):
    """(G, K + 1) in double precision: plain sums, and logarithms of plain means of probabilities."""
    targets = []
    for box in range(logits.shape[1]):
        passes = [logits[m, box].double() for m in range(len(logits)) if found[m, box]]
        if not passes:
            targets.append(torch.zeros(logits.shape[2], dtype=torch.float64))
            continue
        mean = sum(passes) / len(passes)
        if average == "probs":
            log_probs = (sum(z.softmax(0) for z in passes) / len(passes)).log()
            mean = log_probs - log_probs.mean() + mean.mean()
        targets.append(mean)
    return torch.stack(targets)


def test_mean_logits_by_hand():
    # Two of three passes speak: (2 + 4) / 2, (0 - 2) / 2, (1 + 1) / 2. What stands in the silent pass does not matter.
    logits = torch.tensor([[[2.0, 0, 1]], [[100, 100, 100]], [[4, -2, 1]]])
    found = torch.tensor([[True], [False], [True]])
    assert average_logits(logits, found, "logits").tolist() == [[3, -1, 1]]


def test_mean_probabilities_by_hand():
    # Softmax of (0, log 3) is (1/4, 3/4) and of (log 3, 0) (3/4, 1/4): the mean is (1/2, 1/2), two equal logits, whose
    # mean is that of the logits: log 3 / 2. Mean logits give the same here.
    logits = torch.tensor([[[0, LN3]], [[LN3, 0]]])
    torch.testing.assert_close(average_logits(logits, torch.ones(2, 1) > 0, "probs"), torch.tensor([[LN3 / 2] * 2]))
    # (1/4, 3/4) and (1/2, 1/2): the mean (3/8, 5/8) differs by log 5/3 where mean logits differ by log 3 / 2 = 0.549.
    # Mean of all logits: (0 + log 3 + 0 + 0) / 4.
    logits = torch.tensor([[[0, LN3]], [[0.0, 0.0]]])
    half, centre = math.log(5 / 3) / 2, LN3 / 4
    expected = torch.tensor([[centre - half, centre + half]])
    torch.testing.assert_close(average_logits(logits, torch.ones(2, 1) > 0, "probs"), expected)
    torch.testing.assert_close(average_logits(logits, torch.ones(2, 1) > 0, "logits"), torch.tensor([[0, LN3 / 2]]))


def test_mean_sigmoids_by_hand():
    # Sigmoids of log 9 and 0 are 0.9 and 0.5: the mean 0.7 has the logit log 7/3. Of -log 3 and log 3 the mean is 1/2.
    logits = torch.tensor([[[math.log(9), -LN3]], [[0.0, LN3]]])
    expected = torch.tensor([[math.log(7 / 3), 0.0]])
    torch.testing.assert_close(average_logits(logits, torch.ones(2, 1) > 0, "probs", sigmoid=True), expected)
    # nobody speaks: each of K + 1 = 2 gets one half, of 5 a fifth, whose logit is -log 4
    silent = torch.zeros(2, 1) > 0
    assert average_logits(logits, silent, "probs", sigmoid=True).tolist() == [[0, 0]]
    five = average_logits(torch.ones(2, 1, 5), silent, "logits", sigmoid=True)
    torch.testing.assert_close(five, torch.full((1, 5), -math.log(4)))
    sure = average_logits(torch.full((2, 1, 2), 90.0), torch.ones(2, 1) > 0, "probs", sigmoid=True)
    torch.testing.assert_close(sure, torch.full((1, 2), 90.0))


@pytest.mark.parametrize("average", ["logits", "probs"])
def test_where_no_pass_speaks_all_classes_are_equal(average):
    logits = torch.randn(3, 2, 4)
    found = torch.tensor([[True, False]] * 3)
    targets = average_logits(logits, found, average)
    assert targets[1].softmax(0).tolist() == [0.25] * 4
    torch.testing.assert_close(targets[0], average_by_loop(logits, found, average)[0].float())


@pytest.mark.parametrize("average", ["logits", "probs"])
@pytest.mark.parametrize("shape", [(3, 0, 4), (1, 2, 4)], ids=["no-boxes", "one-pass"])
def test_few(average, shape):
    logits = torch.randn(shape)
    targets = average_logits(logits, torch.ones(shape[:2]) > 0, average)
    torch.testing.assert_close(targets, logits[0])  # the only pass itself, or nothing


tensors = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(2, 6), seeds).map(
    lambda s: (
        3 * torch.randn(s[:3], generator=torch.Generator().manual_seed(s[3])),
        torch.rand(s[:2], generator=torch.Generator().manual_seed(s[3] + 1)) < 0.6,
    )
)
averages = st.sampled_from(["logits", "probs"])


@given(passes=tensors, average=averages)
def test_average_equals_a_loop(passes, average):
    expected = average_by_loop(*passes, average).float()
    torch.testing.assert_close(average_logits(*passes, average), expected, rtol=1e-4, atol=1e-4)


@given(passes=tensors)
def test_softmax_of_probs_targets_is_the_mean_of_probabilities(passes):
    logits, found = passes
    probs = average_logits(logits, found, "probs").softmax(1)
    for box, said in enumerate(found.T):
        if said.any():
            torch.testing.assert_close(probs[box], logits[said, box].softmax(1).mean(0), rtol=1e-4, atol=1e-6)


@given(passes=tensors, average=averages, data=st.data())
def test_the_order_of_passes_does_not_matter(passes, average, data):
    logits, found = passes
    order = data.draw(st.permutations(range(len(logits))))
    expected = average_logits(logits, found, average)
    torch.testing.assert_close(average_logits(logits[order], found[order], average), expected, rtol=1e-4, atol=1e-5)


@given(passes=tensors, average=averages, shift=st.sampled_from([-7.0, 2.5]))
def test_a_constant_on_all_logits_passes_through(passes, average, shift):
    # Softmax does not see it, so it changes no distribution; the student's logits may have any.
    logits, found = passes
    found[:, 0] = True
    shifted = average_logits(logits + shift, found, average)[0]
    torch.testing.assert_close(shifted, average_logits(logits, found, average)[0] + shift, rtol=1e-4, atol=1e-4)


@given(passes=tensors, average=averages)
def test_junk_in_silent_passes_is_not_seen(passes, average):
    logits, found = passes
    expected = average_logits(logits, found, average)
    junk = logits.where(found.unsqueeze(2), torch.nan)
    assert torch.equal(average_logits(junk, found, average), expected)


@given(passes=tensors)
def test_averaging_probabilities_is_never_surer_than_the_passes_on_average(passes):
    # Entropy is concave (Jensen).
    logits, _ = passes
    targets = average_logits(logits, torch.ones(logits.shape[:2]) > 0, "probs")

    def entropy(z):
        return torch.distributions.Categorical(logits=z).entropy()

    assert (entropy(targets) >= entropy(logits).mean(0) - 1e-5).all()


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[[300.0, -300.0, 0.0]], [[-300.0, 300.0, 0.0]]])
    targets = average_logits(logits, torch.ones(2, 1) > 0, "probs")
    assert targets.isfinite().all()
    torch.testing.assert_close(targets.softmax(1), torch.tensor([[0.5, 0.5, 0.0]]))


# --- gt_targets --------------------------------------------------------------------------------------------------


def test_targets_by_hand():
    # Three classes and background. Two boxes: BOX and FAR.
    passes = [
        # overlaps 0.8 and 0.5: the first speaks, though the second comes with the higher score
        (boxes(HALF, EIGHT_TENTHS), torch.tensor([[9.0, 9, 9, 9], [2, 0, 0, 0]])),
        # 1/3 is below the threshold of 1/2; FAR is found
        (boxes(THIRD, FAR), torch.tensor([[9.0, 9, 9, 9], [0, 3, 0, 0]])),
        (NONE, torch.zeros(0, 4)),  # finds nothing
        (boxes(HALF), torch.tensor([[0.0, 0, 4, 0]])),
    ]
    logits, found = gt_targets(boxes(BOX, FAR), passes, 4, 0.5, "logits")
    # BOX in passes 0 and 3, FAR in pass 1 alone.
    assert found.tolist() == [2, 1]
    assert logits.tolist() == [[1, 0, 2, 0], [0, 3, 0, 0]]


def test_targets_of_probabilities_by_hand():
    # (log 2, 0) is (2/3, 1/3) and (0, log 2) the reverse: uniform; shifted to the mean of the logits, log 2 / 2.
    passes = [(boxes(BOX), torch.tensor([[LN2, 0.0]])), (boxes(BOX), torch.tensor([[0.0, LN2]]))]
    logits, found = gt_targets(boxes(BOX), passes, 2, 0.5, "probs")
    torch.testing.assert_close(logits, torch.full((1, 2), LN2 / 2))
    assert found.tolist() == [2]


@pytest.mark.parametrize("average", ["logits", "probs"])
def test_a_missed_box_is_uniform(average):
    passes = [(boxes(BOX), torch.tensor([[5.0, 0, 0]])), (NONE, torch.zeros(0, 3))]
    logits, found = gt_targets(boxes(FAR, BOX), passes, 3, 0.5, average)
    assert found.tolist() == [0, 1]
    assert logits[0].tolist() == [0, 0, 0]
    torch.testing.assert_close(logits[1], torch.tensor([5.0, 0, 0]))


def test_one_detection_teaches_two_boxes():
    right = [5.0, 0.0, 10.0, 10.0]
    logits, found = gt_targets(boxes(HALF, right), [(boxes(BOX), torch.tensor([[1.0, 2]]))], 2, 0.5, "logits")
    assert found.tolist() == [1, 1]
    assert logits.tolist() == [[1, 2], [1, 2]]


@pytest.mark.parametrize("average", ["logits", "probs"])
def test_an_image_without_ground_truth(average):
    logits, found = gt_targets(NONE, [(boxes(BOX), torch.tensor([[1.0, 2]]))] * 2, 2, 0.5, average)
    assert logits.shape == (0, 2)
    assert found.shape == (0,)


@given(gt=box_lists, passes=st.lists(box_lists, min_size=1, max_size=4), threshold=thresholds, seed=seeds)
def test_targets_equal_a_loop(gt, passes, threshold, seed):
    generator = torch.Generator().manual_seed(seed)
    outputs = [(boxes(*rows), torch.randn(len(rows), 3, generator=generator)) for rows in passes]
    logits, found = gt_targets(boxes(*gt), outputs, 3, threshold, "logits")
    for number, box in enumerate(gt):
        said = []
        for rows, (_, z) in zip(passes, outputs, strict=True):
            [index] = match_by_loop([box], rows, threshold)
            said += [z[index]] if index >= 0 else []
        assert found[number] == len(said)
        expected = torch.stack(said).mean(0) if said else torch.zeros(3)
        torch.testing.assert_close(logits[number], expected)
