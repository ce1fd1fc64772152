"""ensemble: hand-derived numbers, and numpy on the whole stack of members."""

import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uncertainty_core.sampling.ensemble import ensemble

# Three members, one sample, three classes. They disagree: 0, 1, 0.
MEMBERS = torch.tensor([[[0.7, 0.2, 0.1]], [[0.3, 0.6, 0.1]], [[0.5, 0.1, 0.4]]], dtype=torch.float64)


def reference(members, ddof):
    """Mean, prediction, its deviation, every class's deviation, from the stack (M, N, C, ...)."""
    members = np.asarray(members, np.float64)
    mean, class_std = members.mean(0), members.std(0, ddof=ddof)
    prediction = mean.argmax(1)
    std = np.empty(prediction.shape)
    for index in np.ndindex(*prediction.shape):
        std[index] = class_std[(index[0], prediction[index], *index[1:])]
    return mean, prediction, std, class_std


def random_members(num, shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(num, *shape, generator=generator, dtype=torch.float64)).softmax(2)


@pytest.mark.parametrize(
    ("ddof", "class_std"),
    [
        # Class 0: mean 0.5, deviations 0.2, -0.2, 0, squares sum to 0.08.
        # Class 1: mean 0.3, deviations -0.1, 0.3, -0.2, squares sum to 0.14.
        # Class 2: mean 0.2, deviations -0.1, -0.1, 0.2, squares sum to 0.06.
        (0, [0.08 / 3, 0.14 / 3, 0.06 / 3]),
        (1, [0.04, 0.07, 0.03]),
    ],
)
def test_hand_derived_example(ddof, class_std):
    result = ensemble(MEMBERS, ddof)
    assert result.mean[0].tolist() == pytest.approx([0.5, 0.3, 0.2])
    assert result.prediction.tolist() == [0]
    assert result.class_std.square()[0].tolist() == pytest.approx(class_std)
    assert result.std.square().tolist() == pytest.approx(class_std[:1])


def test_std_is_of_the_class_the_mean_picks():
    # Not the deviation of the members' own confidences 0.7, 0.6, 0.5 (that is 0.1), nor the largest one (0.265).
    assert ensemble(MEMBERS).std.item() == pytest.approx(0.2)


def test_the_mean_may_pick_what_few_members_pick():
    # Two of three members pick class 1; the means are 1.5 / 3, 1.4 / 3 and 0.1 / 3.
    members = torch.tensor([[[0.9, 0.05, 0.05]], [[0.3, 0.675, 0.025]], [[0.3, 0.675, 0.025]]])
    result = ensemble(members)
    assert result.prediction.item() == 0
    # Class 0 deviates from 0.5 by 0.4, -0.2, -0.2: sqrt(0.24 / 2).
    assert result.std.item() == pytest.approx(0.12**0.5)


def test_ddof_is_1_by_default():
    assert torch.equal(ensemble(MEMBERS).std, ensemble(MEMBERS, ddof=1).std)


@given(
    num=st.integers(2, 6),
    samples=st.integers(0, 4),
    classes=st.integers(1, 5),
    pixels=st.sampled_from([(), (3,), (2, 3)]),
    ddof=st.sampled_from([0, 1]),
    seed=st.integers(0, 2**32),
)
def test_equals_the_stack(num, samples, classes, pixels, ddof, seed):
    members = random_members(num, (samples, classes, *pixels), seed)
    result = ensemble(iter(members), ddof)
    for ours, theirs in zip(result, reference(members, ddof), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert result.prediction.dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_members_in_lower_precision_are_combined_in_float32(dtype):
    members = random_members(4, (5, 3, 2, 2), seed=1).to(dtype)
    result = ensemble(members)
    assert result.mean.dtype == result.std.dtype == torch.float32
    np.testing.assert_allclose(result.std, reference(members.double(), 1)[2], atol=1e-6)


def test_equal_members_do_not_deviate():
    members = MEMBERS[:1].expand(4, -1, -1)
    assert ensemble(members).class_std.tolist() == [[0, 0, 0]]


def test_one_member_without_ddof_does_not_deviate():
    result = ensemble(MEMBERS[:1], ddof=0)
    assert result.std.tolist() == [0]
    assert torch.equal(result.mean, MEMBERS[0])


def test_members_are_taken_one_at_a_time():
    made, alive = [], []

    def members():
        for seed in range(5):
            alive.append(sum(ref() is not None for ref in made))
            member = random_members(1, (2, 3), seed)[0]
            made.append(weakref.ref(member))
            yield member
            del member

    result = ensemble(members())
    assert len(alive) == 5
    assert max(alive) <= 1
    assert all(ref() is None for ref in made)
    assert result.mean.shape == (2, 3)


def test_members_are_left_as_they_were():
    members = MEMBERS.clone()
    ensemble(list(members))
    assert torch.equal(members, MEMBERS)


def test_no_graph_is_kept():
    result = ensemble(MEMBERS.clone().requires_grad_())
    assert not result.mean.requires_grad
    assert not result.std.requires_grad


@pytest.mark.parametrize(("count", "ddof"), [(1, 1), (0, 1), (0, 0), (3, 3)])
def test_too_few_members_are_refused(count, ddof):
    with pytest.raises(ValueError, match=f"ddof={ddof} needs more than {ddof} samples, got {count}"):
        ensemble(MEMBERS[:count], ddof)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (torch.tensor([[2.0, -1.0, 0.5]]), r"probabilities must lie in \[0, 1\].*are these logits"),
        (torch.tensor([[0.2, 0.2, 0.2]]), r"probabilities must sum to 1 .*are these logits"),
        (torch.tensor([[float("nan"), 0.5, 0.5]]), r"probabilities\[0, 0\] is nan"),
        (torch.tensor([[1, 0, 0]]), "probabilities must be floating point"),
        (torch.tensor([0.5, 0.5]), r"probabilities must have shape \(N, C, ...\)"),
        (torch.tensor([[0.5, 0.5]]), "values must have shape"),  # a member with another number of classes
    ],
    ids=["logits", "sum", "nan", "integer", "no-class-dimension", "other-classes"],
)
def test_a_bad_member_is_refused_wherever_it_stands(member, message):
    with pytest.raises(ValueError, match=message):
        ensemble([MEMBERS[0], member, MEMBERS[1]])
