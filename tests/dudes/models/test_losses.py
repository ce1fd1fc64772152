"""The loss that configs name."""

import math

import pytest
import torch
from mmseg.registry import MODELS

from dudes_mmseg import RMSLELoss


def test_value_by_hand():
    # image 1: (log(1 + z) - log(1 + q))² is log(2/1)² at one of its two pixels and 0 at the other: root of the mean
    # log 2 / sqrt 2; image 2: log(1.5) at both
    student = torch.tensor([[[[0.0, 0.5]]], [[[0.0, 0.5]]]])
    teacher = torch.tensor([[[[1.0, 0.5]]], [[[0.5, 1.25]]]])
    loss = MODELS.build({"type": "RMSLELoss", "loss_weight": 3.0})(student, teacher)
    assert loss.item() == pytest.approx(3 * (math.log(2) / math.sqrt(2) + math.log(1.5)) / 2, rel=1e-6)


def test_masked_pixels_are_left_out():
    student = torch.tensor([[[[0.0, 0.3]]]], requires_grad=True)
    teacher = torch.tensor([[[[1.0, 255.0]]]])
    loss = RMSLELoss()(student, teacher, teacher <= 1)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)
    assert student.grad.flatten().tolist() == [-1, 0]  # d/dq of log 2 - log(1 + q), at q = 0


def test_gradient_is_zero_where_student_and_teacher_agree():
    student = torch.rand(2, 1, 3, 3, requires_grad=True)
    loss = RMSLELoss()(student, student.detach())
    loss.backward()
    assert loss == 0
    assert not student.grad.any()


def test_the_name_is_that_of_the_config():
    assert MODELS.build({"type": "RMSLELoss"}).loss_name == "loss_rmsle"
    assert MODELS.build({"type": "RMSLELoss", "loss_name": "loss_other"}).loss_name == "loss_other"
