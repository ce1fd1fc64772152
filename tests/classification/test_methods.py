"""What teachers give and students minimise."""

import itertools

import pytest
import torch
from torch import nn

from classification.methods import DDN, KD, METHODS, DropoutDistillation, Share, Standard
from classification.models.staged import Staged
from classification.sampling import Ensemble, diversified
from uncertainty_core import derive_seed, drawn_dropout, state_dict_sha256
from uncertainty_core.functional.losses import IGNORE_INDEX
from uncertainty_core.sampling import mc_dropout

UNITS, RATE = 4, 0.3
TAUGHT = [DDN(mc_samples=4), DropoutDistillation(), KD(), DDN(mc_samples=4, average="probs")]


def named(methods):
    return [pytest.param(method, id=type(method).__name__) for method in methods]


def a_teacher():
    """Batch norm and dropout, in eval mode."""
    torch.manual_seed(0)
    network = Staged(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Dropout(0.4),
        nn.Flatten(),
        nn.Linear(12, 6),
        nn.ReLU(),
        nn.Dropout(0.4),
        nn.Linear(6, 3),
    )
    network(torch.randn(8, 1, 4, 4))  # batch norm has seen something
    return network.eval()


def an_ensemble():
    """Three teachers of different weights; each by itself would drop units."""
    members = []
    for factor in (1, 2, -1):
        member = a_teacher()
        member.stages[-1].weight.data *= factor
        members.append(member)
    return Ensemble(members).eval()


def some_images(count=6):
    return torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(1))


# --- theorem 1-ii: every mask of a small network


def tiny_network():
    """Four units behind one dropout: 16 masks."""
    layers = nn.Linear(3, UNITS), nn.ReLU(), nn.Dropout(RATE), nn.Linear(UNITS, 3)
    return nn.Sequential(*layers).double()


@pytest.fixture
def enumerated():
    """Teacher, student, images (2, 3), and of every mask its probability and the teacher's probabilities (2, 3)."""
    torch.manual_seed(3)
    teacher, student = tiny_network().eval(), tiny_network().eval()
    for layer in (teacher[0], teacher[3]):
        layer.weight.data *= 2  # far apart predictions
    teacher[0].bias.data += 2  # no unit is idle
    images = torch.randn(2, 3, dtype=torch.float64)
    draws = []
    for mask in itertools.product((0.0, 1.0), repeat=UNITS):
        probability = (1 - RATE) ** sum(mask) * RATE ** (UNITS - sum(mask))
        values = torch.tensor(mask, dtype=torch.float64)
        with mc_dropout(teacher), drawn_dropout(teacher, lambda empty, _, v=values: empty.copy_(v)), torch.no_grad():
            draws.append((probability, teacher(images).softmax(1)))
    return teacher, student, images, draws


def gradient(loss, student):
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(student.parameters()))])


def expected_and_of_mean(loss, student, images, draws):
    """The expected gradient over all masks, and the gradient to the mean prediction."""
    expected = sum(p * gradient(loss(student(images), probabilities), student) for p, probabilities in draws)
    mean = sum(p * probabilities for p, probabilities in draws)
    return expected, gradient(loss(student(images), mean), student)


def test_gradient_of_one_pass_is_unbiased(enumerated):
    _, student, images, draws = enumerated
    assert sum(p for p, _ in draws) == pytest.approx(1, abs=1e-12)
    expected, of_mean = expected_and_of_mean(
        lambda logits, targets: DropoutDistillation().loss(logits, targets, torch.zeros(2, dtype=torch.int64)),
        student,
        images,
        draws,
    )
    assert of_mean.abs().max() > 0.05
    torch.testing.assert_close(expected, of_mean, rtol=1e-12, atol=1e-13)


def test_single_passes_differ_from_their_mean(enumerated):
    # else the theorem would hold trivially
    _, student, images, draws = enumerated
    mean = sum(p * probabilities for p, probabilities in draws)
    loss = DropoutDistillation().loss
    exact = gradient(loss(student(images), mean, None), student)
    worst = max((gradient(loss(student(images), one, None), student) - exact).abs().max() for _, one in draws)
    assert worst > 0.05


def test_absolute_difference_is_biased(enumerated):
    # it is no Bregman divergence, so it leads to the median, not to the mean
    _, student, images, draws = enumerated
    expected, of_mean = expected_and_of_mean(
        lambda logits, targets: (logits.softmax(1) - targets).abs().sum(1).mean(), student, images, draws
    )
    assert (expected - of_mean).abs().max() > 0.01


def test_targets_draw_each_mask_with_its_probability(enumerated):
    teacher, _, images, draws = enumerated
    count = 8000
    targets = DropoutDistillation().targets(teacher, images[:1].expand(count, -1), range(count), seed=0)
    predictions = torch.stack([probabilities[0] for _, probabilities in draws])
    assert torch.pdist(predictions).min() > 1e-6  # so that a prediction tells its mask
    distance, mask = (targets[:, None] - predictions).abs().amax(2).min(1)
    assert distance.max() < 1e-12  # each is one of the enumerated
    expected = count * torch.tensor([p for p, _ in draws])
    statistic = ((mask.bincount(minlength=16) - expected) ** 2 / expected).sum()
    assert statistic < 37.7  # 99.9 % quantile of chi-squared with 15 degrees of freedom


# --- targets


@pytest.mark.parametrize("method", named(TAUGHT))
def test_targets_leave_the_teacher_alone(method):
    teacher, images = a_teacher(), some_images().requires_grad_()
    before = state_dict_sha256(teacher.state_dict())
    targets = method.targets(teacher, images, range(6), seed=0)
    assert targets.shape == (6, 3)
    assert not targets.requires_grad
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert state_dict_sha256(teacher.state_dict()) == before  # batch norm's buffers, too
    assert not any(module.training for module in teacher.modules())


@pytest.mark.parametrize("method", named(TAUGHT))
def test_targets_do_not_depend_on_the_batch(method):
    teacher, images = a_teacher(), some_images()
    keys = ["a", 5, "c", 7, 0, "f"]
    whole = method.targets(teacher, images, keys, seed=3)
    torch.rand(5)  # nor on the global state
    order = [4, 0, 2]
    part = method.targets(teacher, images[order], [keys[k] for k in order], seed=3)
    torch.testing.assert_close(part, whole[order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", named([TAUGHT[0], TAUGHT[1], TAUGHT[3]]))
def test_targets_depend_on_seed_and_key(method):
    teacher, images = a_teacher(), some_images()
    first = method.targets(teacher, images, range(6), seed=0)
    assert torch.equal(first, method.targets(teacher, images, range(6), seed=0))
    assert not torch.allclose(first, method.targets(teacher, images, range(6), seed=1))
    assert not torch.allclose(first, method.targets(teacher, images, range(10, 16), seed=0))


def test_ddn_targets_are_the_mean_of_a_plain_loop():
    teacher, images, keys = a_teacher(), some_images(), ["a", "b", "c", "d", "e", "f"]
    draws = []
    for draw in range(4):
        with torch.no_grad(), mc_dropout(teacher, seeds=[derive_seed(9, key, draw) for key in keys]):
            draws.append(teacher(images))
    assert not torch.allclose(draws[0], draws[1])
    targets = DDN(mc_samples=4).targets(teacher, images, keys, seed=9)
    torch.testing.assert_close(targets, torch.stack(draws).mean(0), rtol=1e-5, atol=1e-6)


def test_ddn_targets_are_the_centred_logarithm_of_the_mean_probabilities():
    teacher, images, keys = a_teacher(), some_images(), ["a", "b", "c", "d", "e", "f"]
    draws = []
    for draw in range(4):
        with torch.no_grad(), mc_dropout(teacher, seeds=[derive_seed(9, key, draw) for key in keys]):
            draws.append(teacher(images).softmax(1))
    mean = torch.stack(draws).mean(0)
    targets = DDN(mc_samples=4, average="probs").targets(teacher, images, keys, seed=9)
    torch.testing.assert_close(targets.softmax(1), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(targets.sum(1), torch.zeros(6), rtol=0, atol=1e-5)
    assert targets.dtype == torch.float32


def test_targets_of_an_ensemble_are_means_over_its_members_without_dropout():
    teacher, images = an_ensemble(), some_images()
    logits = torch.stack([member(images) for member in teacher.members]).detach()
    probabilities = logits.softmax(2).mean(0)
    for method in TAUGHT:
        targets = method.targets(teacher, images, range(6), seed=0)
        assert not targets.requires_grad
        if method == TAUGHT[0]:
            torch.testing.assert_close(targets, logits.mean(0))
            continue
        given = targets if isinstance(method, DropoutDistillation) else targets.softmax(1)
        torch.testing.assert_close(given, probabilities)


def test_images_move_to_where_teachers_disagree():
    teacher, images, keys = an_ensemble(), some_images(), ["a", 5, "c", 7, 0, "f"]
    before = state_dict_sha256(teacher.state_dict())
    moved = KD(ods=0.1).inputs(teacher, images, keys, 3)
    assert not moved.requires_grad
    assert all(parameter.grad is None for parameter in teacher.parameters())
    member = teacher.members[derive_seed(3, "member") % 3]
    for k, key in enumerate(keys):  # one image at a time, by the definition
        weights = 2 * torch.rand(3, generator=torch.Generator().manual_seed(derive_seed(3, "ods", key))) - 1
        image = images[k : k + 1].clone().requires_grad_()
        probabilities = member(image).softmax(1)
        (weights * probabilities).sum().backward()
        change = 0.1 * probabilities.max() * image.grad / image.grad.square().mean().sqrt()
        torch.testing.assert_close(moved[k : k + 1], image + change)
    assert state_dict_sha256(teacher.state_dict()) == before


def test_images_move_by_passes_of_a_single_teacher():
    teacher, images = a_teacher(), some_images()
    first = diversified(teacher, images, range(6), 0, 0.1)
    assert torch.equal(first, diversified(teacher, images, range(6), 0, 0.1))
    assert not torch.allclose(first, diversified(teacher, images, range(6), 1, 0.1))
    torch.testing.assert_close(first[[4, 0]], diversified(teacher, images[[4, 0]], [4, 0], 0, 0.1))
    assert KD().inputs(teacher, images, range(6), 0) is images  # no step, no copy
    flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    flat[1].weight.data.zero_()
    assert torch.equal(diversified(flat, images, range(6), 0, 0.1), images)  # no gradient, no step


@pytest.mark.parametrize(
    ("options", "message"),
    [({"ods": -1.0}, "ods must be 0 or positive"), ({"ods": 0.1, "from_store": True}, "set from_store=false")],
)
def test_steps_that_cannot_be_taken(options, message):
    with pytest.raises(ValueError, match=message):
        KD(**options)


def test_the_mean_of_logits_of_a_linear_tail_is_an_empty_lesson():
    # dropout right before the last layer: the mean of many logits is the baseline's; that of probabilities is softer
    torch.manual_seed(0)
    teacher = Staged(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3)).eval()
    teacher.stages[2].weight.data *= 6
    images, keys = some_images(), range(6)
    baseline = teacher(images).softmax(1).amax(1).mean()
    logits, probs = (
        DDN(mc_samples=2000, average=average).targets(teacher, images, keys, seed=0).softmax(1).amax(1).mean()
        for average in ("logits", "probs")
    )
    assert abs(logits - baseline) < 0.02
    assert probs < baseline - 0.05


def test_targets_are_finite_where_a_class_is_all_but_impossible():
    teacher = Staged(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3)).eval()
    teacher.stages[2].bias.data = torch.tensor([0.0, -200.0, -2000.0])  # 0 in float32, and 0 in float64
    targets = DDN(mc_samples=3, average="probs").targets(teacher, some_images(), range(6), seed=0)
    assert targets.isfinite().all()
    assert (targets[:, 0] - targets[:, 1] - 200).abs().max() < 20


def test_kd_targets_are_the_plain_logits():
    teacher, images = a_teacher(), some_images()
    assert torch.equal(KD().targets(teacher, images, range(6), seed=0), teacher(images))


def test_one_pass_gives_a_distribution():
    targets = DropoutDistillation().targets(a_teacher(), some_images(), range(6), seed=0)
    torch.testing.assert_close(targets.sum(1), torch.ones(6))


@pytest.mark.parametrize("method", named(TAUGHT))
def test_no_images_give_no_targets(method):
    assert method.targets(a_teacher(), torch.empty(0, 1, 4, 4), [], seed=0).shape == (0, 3)


# --- losses


def test_ddn_distance_is_zero_at_the_targets():
    logits = torch.randn(5, 3, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0, IGNORE_INDEX])
    loss = DDN(gt_weight=0.0).loss(logits, logits.detach().clone(), labels)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(5, 3))


def test_ddn_loss_by_hand():
    # distances² 4 and 0, mean 2; cross-entropy of the one labelled image with equal logits: log 2
    logits, targets = torch.tensor([[0.0, 0.0], [1.0, 2.0]]), torch.tensor([[2.0, 0.0], [1.0, 2.0]])
    loss = DDN(dd_weight=0.5, gt_weight=3.0).loss(logits, targets, torch.tensor([1, IGNORE_INDEX]))
    assert loss.item() == pytest.approx(0.5 * 2 + 3 * 0.6931472)


def test_dropout_distillation_needs_no_labels():
    logits, targets = torch.randn(4, 3), torch.randn(4, 3).softmax(1)
    loss = DropoutDistillation().loss
    assert loss(logits, targets, torch.full((4,), IGNORE_INDEX)) == loss(logits, targets, torch.arange(4) % 3)
    assert loss(targets.log(), targets, None).item() == pytest.approx(0, abs=1e-6)


def test_standard_loss_by_hand():
    # -log softmax of equal logits over 4 classes
    assert Standard().loss(torch.zeros(3, 4), None, torch.tensor([0, 1, 2])).item() == pytest.approx(1.3862944)


@pytest.mark.parametrize("method", named([Standard(), *TAUGHT]))
@pytest.mark.parametrize("cut", [0, 1, 3, 6])
def test_shares_of_a_batch_add_up_to_the_whole(method, cut):
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64).softmax(1)
    labels = torch.tensor([0, IGNORE_INDEX, IGNORE_INDEX, 2, 1, IGNORE_INDEX])  # unevenly spread
    whole = method.loss(logits, targets, labels)
    parts = 0
    for rows in (slice(0, cut), slice(cut, 6)):
        share = Share(len(labels[rows]) / 6, (labels[rows] != IGNORE_INDEX).sum() / 3)
        parts += method.loss(logits[rows], targets[rows], labels[rows], share)
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=0)


@pytest.mark.parametrize("method", named([Standard(), *TAUGHT]))
def test_losses_are_finite_at_equality_and_on_nothing(method):
    for count in (0, 4):
        logits = torch.randn(count, 3, requires_grad=True)
        targets = logits.detach().softmax(1) if isinstance(method, DropoutDistillation) else logits.detach()
        loss = method.loss(logits, targets, torch.arange(count) % 3)
        loss.backward()
        assert loss.isfinite()
        assert logits.grad.isfinite().all()


def test_only_dropout_distillation_turns_the_students_dropout_off():
    assert {name: kind.student_dropout for name, kind in METHODS.items()} == {
        "standard": True,
        "ddn": True,
        "dropout_distillation": False,
        "kd": True,
    }
