"""The distillation losses: hand-derived numbers, properties, edges, and what they refuse."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from uncertainty_core.functional.losses import (
    IGNORE_INDEX,
    beta_nll,
    binary_kl_distillation,
    cross_entropy,
    crps,
    ddn_loss,
    kd_loss,
    kl_distillation,
    rmsle,
    soft_bce,
    squared_distance,
)
from uncertainty_core.sampling.frozen import Frozen

LN2, LN3 = math.log(2), math.log(3)
NAN, INF = float("nan"), float("inf")
LOSSES = ["ddn", "distance", "kl", "kd", "rmsle"]


def loss_of(name, student, teacher, labels):
    """One call of each loss from raw outputs (N, C) of both networks."""
    if name == "ddn":
        return ddn_loss(student, teacher, labels, dd_weight=0.7, gt_weight=1.3)
    if name == "distance":
        return squared_distance(student, teacher)
    if name == "kl":
        return kl_distillation(student, teacher.softmax(1))
    if name == "kd":
        return kd_loss(student, teacher, labels, temperature=3, alpha=0.4)
    return rmsle(student.sigmoid(), teacher.sigmoid())


def random_logits(*shape, seed=0, scale=2.0, dtype=torch.float64):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def double(values):
    return torch.tensor(values, dtype=torch.float64)


seeds = st.integers(0, 2**32)
scales = st.sampled_from([0.0, 1e-3, 1.0, 30.0])


# --- ddn_loss ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dd_weight", "gt_weight"), [(1, 1), (0.5, 3), (0, 1), (1, 0)])
def test_ddn_by_hand(dd_weight, gt_weight):
    student, teacher = double([[0, LN3], [1, 2]]), double([[1, LN3], [1, -1]])
    # Squared distances 1 and 9: mean 5. Softmax (1/4, 3/4), label 0: log 4; softmax (1, e) / (1 + e), label 1:
    # log(1 + 1/e).
    expected = dd_weight * 5 + gt_weight * (math.log(4) + math.log(1 + 1 / math.e)) / 2
    loss = ddn_loss(student, teacher, torch.tensor([0, 1]), dd_weight, gt_weight)
    assert loss.item() == pytest.approx(expected)


def test_ddn_weights_are_1_by_default():
    student, teacher, labels = random_logits(4, 3), random_logits(4, 3, seed=1), torch.tensor([0, 1, 2, 0])
    assert torch.equal(ddn_loss(student, teacher, labels), ddn_loss(student, teacher, labels, 1, 1))


@given(num=st.integers(1, 5), classes=st.integers(1, 6), scale=scales, seed=seeds)
def test_ddn_at_equality_is_the_cross_entropy(num, classes, scale, seed):
    student = random_logits(num, classes, seed=seed, scale=scale).requires_grad_()
    labels = torch.arange(num) % classes
    torch.testing.assert_close(ddn_loss(student, student.detach(), labels), F.cross_entropy(student, labels))
    distance = ddn_loss(student, student.detach(), labels, gt_weight=0)
    distance.backward()
    assert distance.item() == 0
    assert (student.grad == 0).all()


def test_ddn_gradient_by_hand():
    student = double([[1, 2], [0, 0]]).requires_grad_()
    ddn_loss(student, double([[0, 2], [0, 3]]), torch.tensor([0, 0]), dd_weight=5, gt_weight=0).backward()
    # 5 / 2 · 2 (f - z)
    assert student.grad.tolist() == [[5, 0], [0, -15]]


# --- squared_distance --------------------------------------------------------------------------------------------


def test_squared_distance_by_hand():
    # 1 + 4 and 0 + 9, over two samples: classes are summed, samples averaged.
    assert squared_distance(double([[1, 2], [0, 3]]), double([[0, 0], [0, 0]])).item() == 7


@given(num=st.integers(0, 5), classes=st.integers(1, 6), scale=scales, seed=seeds)
def test_squared_distance_is_what_ddn_adds_to_the_cross_entropy(num, classes, scale, seed):
    student, teacher = (random_logits(num, classes, seed=seed + k, scale=scale) for k in range(2))
    labels = torch.arange(num) % classes
    expected = ddn_loss(student, teacher, labels, dd_weight=1, gt_weight=0)
    torch.testing.assert_close(squared_distance(student, teacher), expected)
    torch.testing.assert_close(ddn_loss(student, teacher, dd_weight=0.5), 0.5 * expected)  # no labels, no second term


# --- kl_distillation ---------------------------------------------------------------------------------------------


def test_kl_by_hand():
    student = double([[0, LN3], [0, 0]])  # softmax (1/4, 3/4) and (1/2, 1/2)
    teacher = double([[0.5, 0.5], [1, 0]])
    # KL(teacher || student): 1/2 log 2 + 1/2 log 2/3 = 1/2 log 4/3, and log 2 (0 log 0 is 0).
    # The other way round it would be log 3 - log 2 + ..., and infinite.
    expected = (0.5 * math.log(4 / 3) + LN2) / 2
    assert kl_distillation(student, teacher).item() == pytest.approx(expected)


def test_kl_is_the_mean_over_samples_and_pixels():
    student, teacher = random_logits(2, 3, 2, 2), random_logits(2, 3, 2, 2, seed=1).softmax(1)
    pixels = [(student[n, :, i, j][None], teacher[n, :, i, j][None]) for n in (0, 1) for i in (0, 1) for j in (0, 1)]
    expected = sum(kl_distillation(*pixel).item() for pixel in pixels) / 8
    assert kl_distillation(student, teacher).item() == pytest.approx(expected)


@given(num=st.integers(1, 4), classes=st.integers(1, 6), scale=scales, seed=seeds)
def test_kl_is_not_negative_and_zero_at_equality(num, classes, scale, seed):
    student = random_logits(num, classes, seed=seed, scale=scale).requires_grad_()
    other = random_logits(num, classes, seed=seed + 1, scale=scale).softmax(1)
    assert kl_distillation(student, other).item() >= -1e-12
    same = kl_distillation(student, student.detach().softmax(1))
    same.backward()
    assert same.item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(student.grad, torch.zeros_like(student), rtol=0, atol=1e-12)


@given(num=st.integers(1, 4), classes=st.integers(2, 6), seed=seeds)
def test_kl_equals_torchs_distributions(num, classes, seed):
    student, teacher = random_logits(num, classes, seed=seed), random_logits(num, classes, seed=seed + 1)
    distributions = (torch.distributions.Categorical(logits=logits) for logits in (teacher, student))
    expected = torch.distributions.kl_divergence(*distributions).mean()
    torch.testing.assert_close(kl_distillation(student, teacher.softmax(1)), expected)


def test_kl_takes_certain_teachers():
    student = random_logits(3, 4).requires_grad_()
    loss = kl_distillation(student, F.one_hot(torch.tensor([0, 3, 1]), 4).double())
    loss.backward()
    assert loss.item() == pytest.approx(F.cross_entropy(student, torch.tensor([0, 3, 1])).item())
    assert student.grad.isfinite().all()


def test_kl_of_masked_pixels_is_that_of_the_others_alone():
    student, teacher = random_logits(2, 3, 4).requires_grad_(), random_logits(2, 3, 4, seed=1).softmax(1)
    mask = torch.tensor([[True, False, True, True], [False, False, True, False]])
    teacher.movedim(1, -1)[~mask] = NAN  # what padding holds
    loss = kl_distillation(student, teacher, mask)
    pixels = [kl_distillation(student[n, :, i][None], teacher[n, :, i][None]) for n, i in mask.nonzero()]
    torch.testing.assert_close(loss, sum(pixels) / 4)
    loss.backward()
    assert torch.equal(student.grad.abs().sum(1) > 0, mask)
    assert kl_distillation(student, teacher, mask & False).item() == 0


def test_binary_kl_by_hand():
    # Of 1/2 from 3/4: 1/2 log 2/3 + 1/2 log 2 = 1/2 log 4/3. Of 1 from 3/4: log 4/3. Of what is equal: 0.
    student, teacher = double([[LN3, LN3], [LN3, 0]]).requires_grad_(), double([[0.5, 1], [0.75, 0.5]])
    loss = binary_kl_distillation(student, teacher)
    assert loss.item() == pytest.approx(1.5 * math.log(4 / 3) / 2)
    loss.backward()
    # q - p over 2
    torch.testing.assert_close(student.grad, double([[0.125, -0.125], [0, 0]]))
    assert binary_kl_distillation(student[:0], teacher[:0]).item() == 0
    with pytest.raises(ValueError, match="teacher_probs"):
        binary_kl_distillation(student, teacher + 1)


def test_soft_bce_by_hand():
    # -1/2 log 1/4 - 1/2 log 3/4 and -log 3/4; the third is left out
    student, teacher = double([0.25, 0.25, 0.9]).requires_grad_(), double([0.5, 0, NAN])
    loss = soft_bce(student, teacher, torch.tensor([True, True, False]))
    assert loss.item() == pytest.approx((0.5 * math.log(16 / 3) + math.log(4 / 3)) / 2)
    loss.backward()
    # (q - z) / (q (1 - q)) over 2
    assert student.grad.tolist() == pytest.approx([-0.25 / 0.1875 / 2, 0.25 / 0.1875 / 2, 0])
    assert soft_bce(student, teacher, student < 0).item() == 0
    assert soft_bce(double([0.0, 1.0]), double([1.0, 0.0])).isfinite()


# --- kd_loss -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0, 0.25, 1])
def test_kd_by_hand(alpha):
    student, teacher = double([[0, 0]]), double([[2 * LN3, 0]])
    # At T = 2 the teacher says (3/4, 1/4), the student (1/2, 1/2): KL = 3/4 log 3/2 + 1/4 log 1/2, times T² = 4.
    soft = 4 * (0.75 * math.log(1.5) - 0.25 * LN2)
    loss = kd_loss(student, teacher, torch.tensor([1]), temperature=2, alpha=alpha)
    assert loss.item() == pytest.approx(alpha * soft + (1 - alpha) * LN2)


@pytest.mark.parametrize("temperature", [0.5, 1, 4, 20])
def test_kd_ends_are_cross_entropy_and_soft_term(temperature):
    student, teacher, labels = random_logits(5, 4), random_logits(5, 4, seed=1), torch.tensor([0, 1, 2, 3, 0])
    hard = kd_loss(student, teacher, labels, temperature, alpha=0)
    soft = kd_loss(student, teacher, labels, temperature, alpha=1)
    torch.testing.assert_close(hard, F.cross_entropy(student, labels))
    p, q = (teacher / temperature).softmax(1), (student / temperature).softmax(1)
    torch.testing.assert_close(soft, temperature**2 * (p * (p / q).log()).sum(1).mean())
    kl = F.kl_div(q.log(), p, reduction="batchmean")
    torch.testing.assert_close(soft, temperature**2 * kl)
    torch.testing.assert_close(kd_loss(student, teacher, labels, temperature, alpha=0.3), 0.3 * soft + 0.7 * hard)


def test_kd_has_temperature_1_and_equal_shares_by_default():
    student, teacher, labels = random_logits(4, 3), random_logits(4, 3, seed=1), torch.tensor([0, 1, 2, 0])
    expected = (kl_distillation(student, teacher.softmax(1)) + F.cross_entropy(student, labels)) / 2
    torch.testing.assert_close(kd_loss(student, teacher, labels), expected)


@given(temperature=st.floats(0.5, 50), seed=seeds)
def test_kd_soft_term_is_zero_at_equality_whatever_the_temperature(temperature, seed):
    student = random_logits(3, 4, seed=seed).requires_grad_()
    labels = torch.tensor([0, 1, 2])
    loss = kd_loss(student, student.detach(), labels, temperature, alpha=1)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(student.grad, torch.zeros_like(student), rtol=0, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.5, 1, 3, 50])
def test_kd_gradient_is_scaled_by_the_temperature(temperature):
    student, teacher = random_logits(5, 4).requires_grad_(), random_logits(5, 4, seed=1)
    kd_loss(student, teacher, torch.zeros(5, dtype=torch.long), temperature, alpha=1).backward()
    # KL's gradient by s / T is (q - p) / N, by s that over T; times T² leaves T (q - p) / N.
    q, p = (student.detach() / temperature).softmax(1), (teacher / temperature).softmax(1)
    torch.testing.assert_close(student.grad, temperature * (q - p) / 5)


def test_kd_at_high_temperature_matches_centred_logits():
    student, teacher = random_logits(5, 4), random_logits(5, 4, seed=1)
    # Hinton et al.: softmax(s / T) -> 1/C + (s - mean s) / (C T), so T² KL -> sum of squared centred differences / 2C.
    difference = student - teacher
    expected = (difference - difference.mean(1, keepdim=True)).square().sum(1).mean() / (2 * 4)
    loss = kd_loss(student, teacher, torch.zeros(5, dtype=torch.long), temperature=1e4, alpha=1)
    torch.testing.assert_close(loss, expected, rtol=1e-3, atol=0)


def test_kd_at_low_temperature_compares_the_top_classes():
    student, teacher = double([[3, 1, 0], [3, 1, 0]]), double([[9, 0, 5], [0, 2, 1]])
    # At T -> 0 both are certain. Where they agree KL is 0; where not, T KL -> the gap 3 - 1 in the student's logits.
    temperature = 1e-2
    loss = kd_loss(student, teacher, torch.tensor([0, 0]), temperature, alpha=1)
    assert loss.item() / temperature == pytest.approx((0 + 2) / 2)


# --- labels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ddn", "kd"])
def test_samples_without_a_label_skip_the_cross_entropy_alone(name):
    student, teacher, labels = random_logits(4, 3), random_logits(4, 3, seed=1), torch.tensor([0, -100, 2, -100])
    if name == "ddn":
        soft = (student - teacher).square().sum(1).mean()
        loss = ddn_loss(student, teacher, labels)
        expected = soft + F.cross_entropy(student[[0, 2]], labels[[0, 2]])
    else:
        soft = kl_distillation(student, teacher.softmax(1))
        loss = kd_loss(student, teacher, labels, alpha=0.5)
        expected = (soft + F.cross_entropy(student[[0, 2]], labels[[0, 2]])) / 2
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("loss", [ddn_loss, kd_loss])
def test_a_batch_without_any_label_has_no_cross_entropy(loss):
    student = random_logits(3, 4).requires_grad_()
    labels = torch.full((3,), IGNORE_INDEX)
    only_hard = {"dd_weight": 0} if loss is ddn_loss else {"alpha": 0}
    value = loss(student, random_logits(3, 4, seed=1), labels, **only_hard)
    value.backward()
    assert value.item() == 0
    assert (student.grad == 0).all()
    both = loss(student, random_logits(3, 4, seed=1), labels)
    assert both.item() > 0


def test_cross_entropy_is_torchs_but_for_batches_without_labels():
    logits, labels = random_logits(4, 3).requires_grad_(), torch.tensor([0, -100, 2, 1])
    torch.testing.assert_close(cross_entropy(logits, labels), F.cross_entropy(logits, labels))
    none = cross_entropy(logits, torch.full((4,), IGNORE_INDEX))  # torch's mean of nothing is NaN
    none.backward()
    assert none.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.uint8])
def test_labels_may_be_any_integer(dtype):
    student, teacher, labels = random_logits(3, 4), random_logits(3, 4, seed=1), torch.tensor([0, 1, 3])
    for loss in (ddn_loss, kd_loss):
        assert torch.equal(loss(student, teacher, labels.to(dtype)), loss(student, teacher, labels))


def test_label_156_in_uint8_is_a_label():
    student, teacher, labels = random_logits(2, 200), random_logits(2, 200, seed=1), torch.tensor([156, 3])
    assert torch.equal(ddn_loss(student, teacher, labels.to(torch.uint8)), ddn_loss(student, teacher, labels))


# --- rmsle -------------------------------------------------------------------------------------------------------

# log(1 + z) is 1, 0 in the first image and 2, 2 in the second; q = 0 makes the differences the same.
TEACHER = torch.tensor([[1.0, 0.0], [2.0, 2.0]], dtype=torch.float64).expm1()
STUDENT = torch.zeros(2, 2, dtype=torch.float64)


def test_rmsle_is_per_image_then_mean():
    # sqrt((1 + 0) / 2) and sqrt((4 + 4) / 2); over all pixels at once it would be sqrt(9 / 4) = 1.5.
    assert rmsle(STUDENT, TEACHER).item() == pytest.approx((math.sqrt(0.5) + 2) / 2)


def test_rmsle_compares_logarithms_of_1_plus():
    # log 4 - log 2 = log 2 for z = 3, q = 1, and the same the other way round.
    assert rmsle(double([[1]]), double([[3]])).item() == pytest.approx(LN2)
    assert rmsle(double([[3]]), double([[1]])).item() == pytest.approx(LN2)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ([[True, True], [True, True]], (math.sqrt(0.5) + 2) / 2),
        ([[True, False], [True, True]], (1 + 2) / 2),  # masked pixels are not in the denominator
        ([[True, False], [False, True]], (1 + 2) / 2),
        ([[False, True], [True, True]], (0 + 2) / 2),
        ([[False, False], [True, True]], (0 + 2) / 2),  # a fully masked image counts in the mean
        ([[True, True], [False, False]], math.sqrt(0.5) / 2),
        ([[False, False], [False, False]], 0),
    ],
)
@pytest.mark.parametrize("junk", [0.0, 1e30, -5.0, INF, -INF, NAN])
def test_rmsle_counts_what_the_mask_says(mask, expected, junk):
    mask = torch.tensor(mask)
    student = STUDENT.where(mask, junk).requires_grad_()
    loss = rmsle(student, TEACHER.where(mask, junk), mask)
    loss.backward()
    assert loss.item() == pytest.approx(expected)
    assert student.grad.isfinite().all()
    assert (student.grad[~mask] == 0).all()


def test_rmsle_reads_images_of_any_shape():
    student, teacher, mask = (random_logits(2, 1, 3, 4, seed=seed).sigmoid() for seed in range(3))
    mask = mask > 0.3
    expected = 0
    for q, z, m in zip(student, teacher, mask, strict=True):
        differences = [math.log1p(b) - math.log1p(a) for a, b in zip(q[m].tolist(), z[m].tolist(), strict=True)]
        expected += math.sqrt(sum(d * d for d in differences) / len(differences)) / 2
    assert rmsle(student, teacher, mask).item() == pytest.approx(expected)
    assert rmsle(student.flatten(1), teacher.flatten(1), mask.flatten(1)).item() == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1e-4, 0.3, 1.0])
def test_rmsle_is_zero_with_zero_gradient_at_equality(value, dtype):
    student = torch.full((2, 3), value, dtype=dtype, requires_grad=True)
    loss = rmsle(student, student.detach().clone())
    loss.backward()
    assert loss.item() == 0
    assert (student.grad == 0).all()


def test_rmsle_with_one_image_at_equality_trains_the_other():
    student = torch.tensor([[0.5, 0.5], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    loss = rmsle(student, double([[0.5, 0.5], [math.e - 1, 0]]))
    loss.backward()
    assert loss.item() == pytest.approx(math.sqrt(0.5) / 2)
    # d sqrt(mean d²) / dq = -d / (n sqrt(mean d²) (1 + q)) with d = 1, n = 2, over two images.
    assert student.grad[0].tolist() == [0, 0]
    assert student.grad[1].tolist() == pytest.approx([-1 / (2 * math.sqrt(0.5)) / 2, 0])


@pytest.mark.parametrize("exponent", [1, 5, 10, 15, 19, 20, 21, 22, 23, 25, 30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rmsle_gradient_is_finite_for_tiny_differences(exponent, dtype):
    # In float32 the square of 1e-23 is 0, and just above it is denormal: sqrt's derivative is largest there.
    student = torch.zeros(1, 4, dtype=dtype, requires_grad=True)
    teacher = torch.full((1, 4), 10.0**-exponent, dtype=dtype)
    rmsle(student, teacher).backward()
    assert student.grad.isfinite().all()
    # -d / (4 sqrt(d²)) is -1/4, or 0 where d² vanishes; denormal numbers lose digits.
    assert (student.grad <= 0).all()
    assert (student.grad >= -0.5).all()
    if exponent <= 15 or dtype == torch.float64:
        torch.testing.assert_close(student.grad, torch.full_like(student, -0.25), rtol=0.2, atol=0)


@pytest.mark.parametrize("bad", [NAN, -2.0])
def test_rmsle_does_not_hide_a_student_that_is_not_a_number(bad):
    student = double([[bad, 0.5]]).requires_grad_()
    assert rmsle(student, double([[0.1, 0.2]])).isnan()


def test_rmsle_takes_one_number_an_image():
    assert rmsle(double([1, 3]), double([3, 3])).item() == pytest.approx(LN2 / 2)


# --- all of them -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_a_scalar_and_no_gradient_reaches_the_teacher(name):
    student, teacher = random_logits(4, 3).requires_grad_(), random_logits(4, 3, seed=1).requires_grad_()
    loss = loss_of(name, student, teacher, torch.tensor([0, 1, 2, -100]))
    loss.backward()
    assert loss.shape == ()
    assert loss.item() > 0
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_right(name):
    teacher, labels = random_logits(4, 3, seed=1), torch.tensor([0, 1, 2, -100])
    student = random_logits(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda values: loss_of(name, values, teacher, labels), student)


def test_gradients_are_right_with_pixels_and_a_mask():
    student = random_logits(2, 3, 2, 2).requires_grad_()
    teacher = random_logits(2, 3, 2, 2, seed=1)
    mask = torch.arange(24).reshape(2, 3, 2, 2) % 5 > 0
    assert torch.autograd.gradcheck(lambda values: kl_distillation(values, teacher.softmax(1)), student)
    assert torch.autograd.gradcheck(lambda values: rmsle(values.sigmoid(), teacher.sigmoid(), mask), student)


@pytest.mark.parametrize("name", LOSSES)
def test_arguments_are_left_as_they_were(name):
    student, teacher = random_logits(4, 3), random_logits(4, 3, seed=1)
    labels = torch.tensor([0, 1, 2, -100])
    before = [student.clone(), teacher.clone(), labels.clone()]
    loss_of(name, student, teacher, labels)
    assert all(torch.equal(one, other) for one, other in zip(before, [student, teacher, labels], strict=True))


@pytest.mark.parametrize(
    ("name", "shape"),
    [*((name, (0, 3)) for name in LOSSES), *((name, s) for name in ("kl", "rmsle") for s in [(0, 3, 2, 2), (2, 3, 0)])],
)
def test_an_empty_batch_is_0_and_can_be_trained_on(name, shape):
    student = torch.zeros(shape, requires_grad=True)
    loss = loss_of(name, student, torch.zeros(shape), torch.zeros(shape[0], dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert student.grad.shape == shape


@pytest.mark.parametrize("name", LOSSES)
def test_an_empty_batch_leaves_zero_gradients_in_a_network(name):
    student = nn.Linear(4, 3)
    loss = loss_of(name, student(torch.zeros(0, 4)), torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert all((parameter.grad == 0).all() for parameter in student.parameters())


@pytest.mark.parametrize("name", LOSSES)
def test_every_parameter_of_a_student_learns_and_none_of_the_teacher(name):
    torch.manual_seed(0)
    teacher = Frozen(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)))
    student = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3), teacher)
    x, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, -100, 1])
    loss_of(name, student[:4](x), teacher(x), labels).backward()
    # A bias before batch norm has no effect, hence a gradient of rounding errors; any other must be clearly there.
    silent = {"0.bias"}
    gradients = {key: parameter.grad for key, parameter in student.named_parameters()}
    assert gradients.keys() == {"0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"}
    for key, gradient in gradients.items():
        assert gradient.isfinite().all()
        assert key in silent or gradient.abs().max() > 1e-4, key
    assert all(parameter.grad is None for parameter in teacher.module.parameters())


@pytest.mark.parametrize("name", LOSSES)
def test_training_on_a_loss_lowers_it(name):
    torch.manual_seed(0)
    teacher, student = Frozen(nn.Linear(4, 3)), nn.Linear(4, 3)
    x, optimizer = torch.randn(16, 4), torch.optim.Adam(student.parameters(), lr=0.05)
    labels = teacher(x).argmax(1)
    before = teacher.module.weight.clone()
    losses = []
    for _ in range(40):
        loss = loss_of(name, student(x), teacher(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert torch.equal(teacher.module.weight, before)


# --- precision ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        # Distances 600 and 600, squared and summed 720000: far beyond float16's 65504. Cross-entropy 600.
        (lambda s, t: ddn_loss(s, t, torch.tensor([1])), 720_600),
        (squared_distance, 720_000),
        # The teacher is sure of class 1, of which the student says log p = -600.
        (lambda s, t: kl_distillation(s, t.softmax(1)), 600),
        (lambda s, t: kd_loss(s, t, torch.tensor([1])), 600),
        # At T = 2 the logits are 150 and KL is 300, times 4.
        (lambda s, t: kd_loss(s, t, torch.tensor([1]), temperature=2, alpha=1), 1200),
    ],
    ids=["ddn", "distance", "kl", "kd", "kd-soft"],
)
def test_half_precision_logits_of_300_do_not_overflow(loss, expected, dtype):
    student = torch.tensor([[300.0, -300.0]], dtype=dtype, requires_grad=True)
    value = loss(student, -student)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected)
    assert student.grad.dtype == dtype
    assert student.grad.isfinite().all()


def test_half_precision_logits_stay_finite_at_a_low_temperature():
    student = torch.tensor([[300.0, -300.0]], dtype=torch.float16)
    # 300 / 0.004 = 75000 is infinite in float16. KL is 600 / T, times T²: 600 T.
    assert kd_loss(student, -student, torch.tensor([1]), 0.004, alpha=1).item() == pytest.approx(2.4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_batches_of_many_samples_do_not_overflow(dtype):
    # 512 samples of cross-entropy 600: their sum is 307200.
    student = torch.tensor([[300.0, -300.0]], dtype=dtype).repeat(512, 1)
    loss = cross_entropy(student, torch.ones(512, dtype=torch.long))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(600)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_of_many_pixels_do_not_overflow(dtype):
    # 70000 pixels: neither their sum nor their number fits into float16.
    student = torch.zeros(1, 70_000, dtype=dtype, requires_grad=True)
    loss = rmsle(student, torch.ones(1, 70_000, dtype=dtype))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(LN2, rel=1e-5)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_precisions_may_be_mixed(name):
    student, teacher, labels = random_logits(4, 3), random_logits(4, 3, seed=1), torch.tensor([0, 1, 2, -100])
    expected = loss_of(name, student, teacher, labels).item()
    mixed = loss_of(name, student.half(), teacher.float(), labels)
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(expected, rel=1e-2)
    assert loss_of(name, student.float(), teacher, labels).item() == pytest.approx(expected, rel=1e-5)


# --- refusals ----------------------------------------------------------------------------------------------------

LOGITS = torch.zeros(3, 4)
LABELS = torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ddn_loss(LOGITS, LOGITS[:2], LABELS), "student_logits and teacher_logits must have the same shape"),
        (lambda: ddn_loss(LOGITS, LOGITS[:1], LABELS), "student_logits and teacher_logits"),  # it would broadcast
        (lambda: squared_distance(LOGITS, LOGITS[:1]), "student_logits and teacher_logits must have the same shape"),
        (lambda: kl_distillation(LOGITS, LOGITS[:, :1]), "student_logits and teacher_probs must have the same shape"),
        (lambda: kl_distillation(LOGITS, LOGITS.softmax(1), LABELS[:2] > 0), "of a class and mask must have the same"),
        (lambda: kd_loss(LOGITS, LOGITS[:1], LABELS), "student_logits and teacher_"),
        (lambda: rmsle(LOGITS, LOGITS[:1]), "student_uncertainty and teacher_uncertainty must have the same shape"),
        (lambda: rmsle(LOGITS, LOGITS, LOGITS[:1] == 0), "student_uncertainty and mask must have the same shape"),
    ],
    ids=["ddn", "ddn-broadcast", "distance", "kl", "kl-mask", "kd", "rmsle", "rmsle-mask"],
)
def test_unequal_shapes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("loss", [ddn_loss, kd_loss])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 1, 4]), r"labels must lie in \[0, 4\).*labels\[2\] is 4"),
        (torch.tensor([0, -1, 2]), r"labels must lie in \[0, 4\).*labels\[1\] is -1"),
        (torch.tensor([255, 1, 2]), r"labels must lie in \[0, 4\).*labels\[0\] is 255"),
        (torch.tensor([0.0, 1.0, 2.0]), "labels must be integers"),
    ],
    ids=["too-large", "negative", "void-255", "float"],
)
def test_bad_labels_are_refused(loss, labels, message):
    with pytest.raises(ValueError, match=message):
        loss(LOGITS, LOGITS, labels)


@pytest.mark.parametrize("loss", [ddn_loss, kd_loss])
@pytest.mark.parametrize("shape", [(2,), (3, 4), (3, 1)], ids=str)
def test_labels_of_another_shape_are_refused(loss, shape):
    with pytest.raises(ValueError, match="labels"):
        loss(LOGITS, LOGITS, torch.zeros(shape, dtype=torch.long))


def test_kd_names_its_own_argument():
    with pytest.raises(ValueError, match="student_logits and teacher_logits"):
        kd_loss(LOGITS, LOGITS[:1], LABELS)


def test_a_mask_of_numbers_is_refused_by_name():
    with pytest.raises(ValueError, match="mask"):
        rmsle(LOGITS, LOGITS, torch.ones(3, 4))


@pytest.mark.parametrize("temperature", [0, -1, NAN, math.inf])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be positive and finite, got"):
        kd_loss(LOGITS, LOGITS, LABELS, temperature=temperature)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, NAN])
def test_an_alpha_outside_0_to_1_is_refused(alpha):
    with pytest.raises(ValueError, match=r"alpha must lie in \[0, 1\], got"):
        kd_loss(LOGITS, LOGITS, LABELS, alpha=alpha)


# --- deviations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_beta_nll_is_a_weighted_likelihood(beta):
    error, log_std = torch.randn(5, 4), torch.randn(5, 4, requires_grad=True)
    std = log_std.detach().exp()
    loss = beta_nll(error, log_std, beta)
    nll = -torch.distributions.Normal(0.0, std).log_prob(error) - math.log(2 * math.pi) / 2
    torch.testing.assert_close(loss, (std ** (2 * beta) * nll).mean())
    loss.backward()
    # d/dl (e² exp(-2l) / 2 + l) = 1 - e² / std², weighted, over 20 numbers
    torch.testing.assert_close(log_std.grad, std ** (2 * beta) * (1 - (error / std) ** 2) / 20)


def test_beta_nll_is_least_at_the_error_itself_and_teaches_no_error():
    error = torch.tensor([2.0, -0.5], requires_grad=True)
    log_std = error.detach().abs().log().requires_grad_()
    beta_nll(error, log_std).backward()
    assert error.grad is None
    torch.testing.assert_close(log_std.grad, torch.zeros(2))
    assert beta_nll(torch.zeros(0, 4), torch.zeros(0, 4)) == 0


def test_the_energy_score_by_hand():
    # e = 0: std · (2 phi(0) - 1 / sqrt(pi)) = 2 · 0.233695 = 0.467390. A far error counts nearly as far as it is: 10
    # less std / sqrt(pi), which is 0.564190 for std 1.
    log_std = torch.tensor([math.log(2), 0.0], requires_grad=True)
    loss = crps(torch.tensor([0.0, 10.0]), log_std)
    assert loss.item() == pytest.approx((0.467390 + 9.435810) / 2, abs=1e-5)
    loss.backward()
    # by log std: std · (2 phi(e / std) - 1 / sqrt(pi)), over 2 numbers
    assert log_std.grad.tolist() == pytest.approx([0.467390 / 2, -0.564190 / 2], abs=1e-5)
    assert crps(torch.zeros(0, 4), torch.zeros(0, 4)) == 0


def test_the_energy_score_is_least_at_the_true_deviation():
    error = 3 * torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    losses = [crps(error, torch.full_like(error, std).log()).item() for std in (2.5, 3, 3.5)]
    assert losses[1] < min(losses[0], losses[2])
