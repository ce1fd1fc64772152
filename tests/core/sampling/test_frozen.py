"""Frozen: a teacher inside a student that nothing finds, trains or saves."""

import copy
import pickle

import pytest
import torch
from torch import nn

from uncertainty_core.sampling.frozen import Frozen
from uncertainty_core.sampling.mc_dropout import mc_dropout


def make_teacher():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


class Student(nn.Module):
    def __init__(self, teacher=None):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
        if teacher is not None:
            self.teacher = Frozen(teacher)

    def forward(self, x):
        return self.net(x), self.teacher(x)


@pytest.fixture
def student():
    return Student(make_teacher())


@pytest.fixture
def x():
    return 3 + torch.randn(6, 4, generator=torch.Generator().manual_seed(2))


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(before, after):
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def assert_frozen(frozen):
    assert not list(frozen.parameters())
    assert not frozen.state_dict()
    assert not any(module.training for module in frozen.module.modules())
    assert not any(parameter.requires_grad for parameter in frozen.module.parameters())


@pytest.mark.parametrize("find", ["named_parameters", "named_buffers", "state_dict"])
def test_a_teacher_adds_nothing_to_find(student, find):
    assert dict(getattr(student, find)()).keys() == dict(getattr(Student(), find)()).keys()


def test_only_the_holder_is_among_the_modules(student):
    added = set(dict(student.named_modules())) - set(dict(Student().named_modules()))
    assert added == {"teacher"}
    assert not list(student.teacher.children())


def test_it_is_frozen_from_the_start(student):
    assert_frozen(student.teacher)


def test_the_holder_says_so_from_the_start(student):
    assert not student.teacher.training


def test_an_optimizer_leaves_it_alone(student, x):
    before = state(student.teacher.module)
    student_before = state(student)
    # Weight decay moves even parameters that have no gradient to speak of.
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, weight_decay=0.5)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in student.net.parameters()}
    output, target = student.train()(x)
    (output - target).square().mean().backward()
    optimizer.step()
    assert same(before, state(student.teacher.module))
    assert not same(student_before, state(student))


def test_weights_load_strictly_with_and_without_it(student):
    plain = Student()
    with torch.no_grad():
        plain.net[0].weight.fill_(7)
    teacher = state(student.teacher.module)
    student.load_state_dict(plain.state_dict(), strict=True)
    assert (student.net[0].weight == 7).all()
    assert same(teacher, state(student.teacher.module))
    Student().load_state_dict(student.state_dict(), strict=True)


@pytest.mark.parametrize(
    "switch",
    [lambda s: s.train(), lambda s: s.eval(), lambda s: s.teacher.train(True), lambda s: s.eval().train()],
    ids=["train", "eval", "own", "back-and-forth"],
)
def test_it_stays_in_eval_mode(student, switch):
    switch(student)
    assert_frozen(student.teacher)
    assert not student.teacher.training


def test_train_returns_the_module_and_reaches_the_student(student):
    assert student.train() is student
    assert student.teacher.train() is student.teacher
    assert student.net.training


def test_train_brings_a_strayed_teacher_back(student):
    student.teacher.module.train()
    student.train()
    assert_frozen(student.teacher)


def test_a_forward_in_training_changes_no_buffer_and_drops_nothing(student, x):
    student.train()
    before, student_before = state(student.teacher.module), state(student)
    first, second = student(x)[1], student(x)[1]
    assert torch.equal(first, second)
    assert same(before, state(student.teacher.module))
    assert not same(student_before, state(student))  # the student's batch norm did move


def test_its_output_is_the_modules(x):
    teacher = make_teacher()
    expected = copy.deepcopy(teacher).eval()(x).detach()
    assert torch.equal(Frozen(teacher)(x), expected)


def test_arguments_and_results_of_any_kind_pass_through():
    class Echo(nn.Module):
        def forward(self, *args, **kwargs):
            return args, kwargs

    assert Frozen(Echo())(1, "a", key=[2]) == ((1, "a"), {"key": [2]})


def test_no_gradient_passes(student, x):
    x.requires_grad_()
    assert not student.teacher(x).requires_grad
    student(x)[0].square().sum().backward()
    assert all(parameter.grad is None for parameter in student.teacher.module.parameters())


def test_gradients_stay_on_around_it(student, x):
    student.teacher(x)
    assert torch.is_grad_enabled()
    assert student(x)[0].requires_grad


def test_requires_grad_of_the_student_does_not_reach_it(student):
    student.requires_grad_(False).requires_grad_(True)
    assert_frozen(student.teacher)


@pytest.mark.parametrize(
    ("move", "dtype", "device"),
    [
        (lambda s: s.half(), torch.float16, "cpu"),
        (lambda s: s.double(), torch.float64, "cpu"),
        (lambda s: s.to(torch.bfloat16), torch.bfloat16, "cpu"),
        (lambda s: s.double().float(), torch.float32, "cpu"),
        (lambda s: s.to("meta"), torch.float32, "meta"),
    ],
    ids=["half", "double", "to-dtype", "float", "to-device"],
)
def test_it_moves_with_the_student(student, move, dtype, device):
    assert move(student) is student
    held = [*student.teacher.module.parameters(), *student.teacher.module.buffers()]
    assert {tensor.dtype for tensor in held if tensor.is_floating_point()} == {dtype}
    assert {tensor.device.type for tensor in held} == {device}
    assert_frozen(student.teacher)


def test_it_computes_in_the_new_dtype(student, x):
    assert student.double()(x.double())[1].dtype == torch.float64


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))], ids=["deep", "pickle"])
def test_a_copy_is_its_own_and_as_frozen(student, x, duplicate):
    expected = student.eval()(x)[1]
    other = duplicate(student)
    assert torch.equal(other(x)[1], expected)
    assert_frozen(other.train().teacher)
    assert other.state_dict().keys() == student.state_dict().keys()
    with torch.no_grad():
        other.teacher.module[0].weight.zero_()
    assert torch.equal(student(x)[1], expected)
    assert not torch.equal(other(x)[1], expected)


def test_it_works_inside_sequential(x):
    model = nn.Sequential(Frozen(make_teacher()), nn.Linear(3, 2)).train()
    model(x).sum().backward()
    assert {name for name, _ in model.named_parameters()} == {"1.weight", "1.bias"}
    assert model[1].weight.grad is not None
    assert_frozen(model[0])


def test_it_samples_when_asked(student, x):
    student.train()
    baseline = student.teacher(x)
    with mc_dropout(student.teacher.module):
        assert not torch.equal(student.teacher(x), student.teacher(x))
    assert torch.equal(student.teacher(x), baseline)
    assert_frozen(student.teacher)


def test_sampling_the_student_does_not_sample_it(student, x):
    student.net.append(nn.Dropout(0.5))
    student.eval()
    with mc_dropout(student):
        (first, teacher), (second, again) = student(x), student(x)
    assert not torch.equal(first, second)
    assert torch.equal(teacher, again)


def test_apply_does_not_reach_it(student):
    before, seen = state(student.teacher.module), []

    def reset(module):
        seen.append(type(module))
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)

    student.apply(reset)
    assert (student.net[0].weight == 0).all()
    assert seen.count(nn.Linear) == 1
    assert same(before, state(student.teacher.module))


def test_zero_grad_and_repr(student):
    student.zero_grad()
    assert "(teacher): Frozen(Sequential)" in repr(student)
