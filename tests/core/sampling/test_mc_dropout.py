"""mc_dropout, the masks it draws, derive_seed and mc_mean_std."""

import itertools
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from uncertainty_core.sampling.mc_dropout import (
    derive_seed,
    drawn_dropout,
    dropout_modules,
    masks_by_row,
    masks_of_shard,
    mc_dropout,
    mc_mean_std,
    split_at_dropout,
)

# Read off torch itself, so that a new kind of dropout shows up here.
ALL_KINDS = [
    kind
    for kind in vars(nn.modules.dropout).values()
    if isinstance(kind, type) and issubclass(kind, nn.modules.dropout._DropoutNd) and not kind.__name__.startswith("_")
]
KEYED_KINDS = [nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d]
SHAPES = {nn.Dropout1d: (40, 5), nn.Dropout2d: (40, 3, 2), nn.Dropout3d: (40, 2, 3, 2)}  # of one row, 40 channels


def named(kinds):
    return [pytest.param(kind, id=kind.__name__) for kind in kinds]


def make_network():
    """Dropout of two kinds and rates between layers that have modes and weights of their own."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.Dropout2d(0.3),
        nn.ReLU(),
        nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 3)),
    ).eval()


def make_elementwise():
    """Every output is one product, so that rows can be compared bit by bit whatever the batch."""
    return nn.Sequential(nn.Dropout(0.4), nn.ReLU(), nn.Dropout1d(0.3)).eval()


class Twice(nn.Module):
    """One dropout module, used twice in forward."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(x), self.dropout(x)


def images(num=6):
    return 2 + torch.randn(num, 1, 5, 5, generator=torch.Generator().manual_seed(1))


def condition(model):
    """Everything mc_dropout touches, of every module."""
    return [(m.training, getattr(m, "p", None), m.__dict__.get("forward")) for m in model.modules()]


def sample(model, x, seeds, rate=None):
    with mc_dropout(model, rate, seeds):
        return model(x)


# --- which modules -----------------------------------------------------------------------------------------------


def test_torch_has_the_kinds_we_know():
    assert {kind.__name__ for kind in ALL_KINDS} == {
        *(kind.__name__ for kind in KEYED_KINDS),
        "AlphaDropout",
        "FeatureAlphaDropout",
    }


@pytest.mark.parametrize("kind", named(ALL_KINDS))
def test_every_kind_is_found_and_sampled(kind):
    model = nn.Sequential(nn.Identity(), kind(0.5)).eval()
    x = torch.ones(2, *SHAPES.get(kind, (40, 3)))
    assert dropout_modules(model) == [model[1]]
    assert torch.equal(model(x), x)
    with mc_dropout(model):
        assert not torch.equal(model(x), x)
    assert torch.equal(model(x), x)


def test_the_model_itself_subclasses_and_shared_modules_are_found_once():
    class Own(nn.Dropout):
        pass

    own = Own()
    assert dropout_modules(own) == [own]
    assert dropout_modules(nn.Sequential(own, nn.Sequential(own, nn.ReLU()))) == [own]
    assert dropout_modules(nn.Linear(2, 2)) == []


def test_only_dropout_changes_mode():
    model = make_network()
    with mc_dropout(model):
        for module in model.modules():
            assert module.training == isinstance(module, nn.Dropout | nn.Dropout2d)


@pytest.mark.parametrize("seeds", [None, range(6)])
def test_sampling_changes_no_buffer_and_no_weight(seeds):
    model = make_network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    outputs = [sample(model, images(), seeds) for _ in range(3)]
    assert not torch.equal(outputs[0], model(images()))
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


# --- what is put back --------------------------------------------------------------------------------------------


@pytest.fixture
def mixed():
    """A network in which the flags, the rates and one forward are not what a plain .eval() leaves."""
    model = make_network()
    model[2].training = True
    model[1].training = True  # batch norm: none of mc_dropout's business
    model[4][1].p = 0.125
    model[4][1].forward = lambda values: values + 1
    return model


@pytest.mark.parametrize("seeds", [None, range(6)])
@pytest.mark.parametrize("rate", [None, 0.75])
def test_everything_is_put_back(mixed, rate, seeds):
    before = condition(mixed)
    with mc_dropout(mixed, rate, seeds):
        assert condition(mixed) != before
        assert mixed[1].training
    assert condition(mixed) == before


@pytest.mark.parametrize("seeds", [None, range(6)])
def test_everything_is_put_back_after_an_exception(mixed, seeds):
    before = condition(mixed)
    with pytest.raises(KeyError, match="in the body"), mc_dropout(mixed, 0.75, seeds):
        raise KeyError("in the body")
    assert condition(mixed) == before


@pytest.mark.parametrize("kind", named([nn.AlphaDropout, nn.FeatureAlphaDropout]))
def test_kinds_that_cannot_be_keyed_are_refused_and_everything_is_put_back(mixed, kind):
    mixed.append(kind(0.25))  # the last one, when all others have been switched
    mixed.eval()
    before = condition(mixed)
    with pytest.raises(ValueError, match=f"seeds work with .*, not with {kind.__name__}"), mc_dropout(mixed, 0.5, [1]):
        pytest.fail("entered")
    assert condition(mixed) == before


def test_no_forward_is_left_behind():
    model = make_network()
    sample(model, images(), range(6))
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("seeds", [(None, None), (None, range(6)), (range(6), None), (range(6), range(6, 12))])
def test_nested_contexts_put_back_what_each_found(mixed, seeds):
    before = condition(mixed)
    with mc_dropout(mixed, 0.25, seeds[0]):
        outer = condition(mixed)
        with pytest.raises(KeyError), mc_dropout(mixed, 0.75, seeds[1]):
            assert [module.p for module in dropout_modules(mixed)] == [0.75, 0.75]
            raise KeyError
        assert condition(mixed) == outer
        assert [module.p for module in dropout_modules(mixed)] == [0.25, 0.25]
    assert condition(mixed) == before


def test_an_inner_context_on_a_part_leaves_the_rest_on():
    model = make_network()
    with mc_dropout(model), mc_dropout(model[4], rate=0.75):
        assert model[2].training
        assert (model[2].p, model[4][1].p) == (0.3, 0.75)


# --- rates and refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [None, [7, 8]])
@pytest.mark.parametrize(("rate", "expected"), [(None, 0.5), (0.1, 0.1), (0.9, 0.9)])
def test_rate_overrides_the_modules_own(rate, expected, seeds):
    torch.manual_seed(0)
    x = torch.ones(2, 10_000)
    output = sample(nn.Dropout(0.5).eval(), x, seeds, rate)
    # Standard error at most 0.5 / sqrt(20000) = 0.0035.
    assert (output == 0).double().mean().item() == pytest.approx(expected, abs=0.02)
    assert output.max().item() == pytest.approx(1 / (1 - expected))


@pytest.mark.parametrize("seeds", [None, range(6)])
def test_rate_0_is_the_deterministic_output(seeds):
    model = make_network()
    assert torch.equal(sample(model, images(), seeds, rate=0), model(images()))


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan")])
def test_a_rate_outside_0_to_1_is_refused(rate):
    model = make_network()
    before = condition(model)
    with pytest.raises(ValueError, match=r"rate must lie in \[0, 1\), got"), mc_dropout(model, rate):
        pytest.fail("entered")
    assert condition(model) == before


def test_a_model_without_dropout_is_refused():
    with pytest.raises(ValueError, match=r"model must hold dropout modules.*Linear"), mc_dropout(nn.Linear(2, 2)):
        pytest.fail("entered")


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(ValueError, match="model must be in eval mode"), mc_dropout(make_network().train()):
        pytest.fail("entered")


@pytest.mark.parametrize("seeds", [[], [1], [1, 2, 3]])
def test_another_number_of_seeds_than_rows_is_refused(seeds):
    model = make_elementwise()
    with pytest.raises(ValueError, match=f"seeds must hold one seed per row: {len(seeds)} seeds for 2 rows"):
        sample(model, torch.ones(2, 3, 4), seeds)
    assert not any(module.training for module in model.modules())


# --- keyed masks -------------------------------------------------------------------------------------------------


@given(rows=st.lists(st.integers(0, 5), min_size=1, max_size=10), noise=st.integers(0, 1000))
def test_a_row_depends_on_its_seed_alone(rows, noise):
    # Any batch made of any rows in any order, each as if it were alone.
    model, x = make_elementwise(), torch.rand(6, 4, 3, generator=torch.Generator().manual_seed(0)) + 0.5
    alone = torch.cat([sample(model, x[i : i + 1], [100 + i]) for i in range(6)])
    torch.manual_seed(noise)
    assert torch.equal(sample(model, x[rows], [100 + i for i in rows]), alone[rows])


def test_a_network_gives_a_row_the_same_in_every_batch():
    model, x = make_network(), images()
    batch = sample(model, x, range(6))
    halves = torch.cat([sample(model, x[:2], [0, 1]), sample(model, x[2:], [2, 3, 4, 5])])
    backwards = sample(model, x.flip(0), range(5, -1, -1)).flip(0)
    # Matrix products may round differently by batch size; another mask would differ by far more.
    torch.testing.assert_close(halves, batch, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(backwards, batch, rtol=1e-4, atol=1e-5)


def test_the_global_random_state_is_neither_read_nor_moved():
    model = make_network()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = sample(model, images(), range(6))
    mc_mean_std(model, images(), num_samples=2, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert torch.equal(sample(model, images(), range(6)), first)


@pytest.mark.parametrize("kind", named(KEYED_KINDS))
def test_other_seeds_give_other_masks(kind):
    x = torch.ones(50, *SHAPES.get(kind, (40, 3)))
    output = sample(kind(0.5).eval(), x, range(50))
    # Two masks of 40 channels agree by chance once in 2^40.
    assert len({tuple((row.flatten() != 0).tolist()) for row in output}) == 50


def test_equal_seeds_give_equal_masks():
    output = sample(nn.Dropout(0.5).eval(), torch.ones(3, 100), [5, 6, 5])
    assert torch.equal(output[0], output[2])
    assert not torch.equal(output[0], output[1])


@pytest.mark.parametrize("kind", named(KEYED_KINDS))
@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_kept_values_are_scaled_and_as_many_as_they_should(kind, p):
    channels, *rest = SHAPES.get(kind, (40, 3))
    x = torch.rand(4, 100 * channels, *rest, generator=torch.Generator().manual_seed(0)) + 0.5
    output = sample(kind(p).eval(), x, [derive_seed("kept", row) for row in range(4)])
    kept = output != 0
    torch.testing.assert_close(output[kept], x[kept] / (1 - p))
    # 16000 draws (48000 for plain dropout): standard error at most 0.004, so this is more than five of them.
    assert kept.double().mean().item() == pytest.approx(1 - p, abs=0.022)


def test_masks_of_neighbouring_seeds_are_independent():
    kept = (sample(nn.Dropout(0.3).eval(), torch.ones(2000, 8), range(2000)) != 0).double()
    # 2000 draws a position: standard error 0.01; 16000 pairs: 0.004.
    np.testing.assert_allclose(kept.mean(0), 0.7, atol=0.055)
    assert (kept[1:] * kept[:-1]).mean().item() == pytest.approx(0.49, abs=0.03)
    assert (kept[:, 1:] * kept[:, :-1]).mean().item() == pytest.approx(0.49, abs=0.03)


@pytest.mark.parametrize("kind", named(KEYED_KINDS[1:]))
def test_whole_channels_are_dropped(kind):
    x = torch.rand(3, *SHAPES[kind], generator=torch.Generator().manual_seed(0)) + 0.5
    kept = (sample(kind(0.5).eval(), x, [1, 2, 3]) != 0).flatten(2)
    assert (kept.all(2) | ~kept.any(2)).all()
    assert kept.any(2).any(1).all()  # in each row some channels stay
    assert (~kept.any(2)).any(1).all()  # and some go


def test_plain_dropout_drops_single_values():
    kept = (sample(nn.Dropout(0.5).eval(), torch.ones(3, 40, 5, 5), [1, 2, 3]) != 0).flatten(2)
    assert not (kept.all(2) | ~kept.any(2)).any()


def test_a_module_used_twice_draws_twice():
    first, second = sample(Twice().eval(), torch.ones(2, 40), [1, 2])
    assert not (first == second).all(1).any()
    again = sample(Twice().eval(), torch.ones(1, 40), [2])
    assert torch.equal(again[0], first[1:])
    assert torch.equal(again[1], second[1:])


def test_two_modules_draw_differently():
    first, second = nn.Dropout(0.5), nn.Dropout(0.5)
    model = nn.ModuleList([first, second]).eval()
    with mc_dropout(model, seeds=[1]):
        assert not torch.equal(first(torch.ones(1, 40)), second(torch.ones(1, 40)))


def test_each_context_starts_its_seeds_anew():
    model = Twice().eval()
    for one, other in zip(
        sample(model, torch.ones(2, 40), [1, 2]), sample(model, torch.ones(2, 40), [1, 2]), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("p", [0.25, 0.9])
def test_keyed_masks_work_in_every_precision(dtype, p):
    x = torch.full((3, 2000), 2.0, dtype=dtype)
    output = sample(nn.Dropout(p).eval(), x, [1, 2, 3])
    assert output.dtype == dtype
    assert x.eq(2).all()
    kept = output[output != 0].double()
    # The scale is rounded once, the product once.
    np.testing.assert_allclose(kept, 2 / (1 - p), rtol=2 * torch.finfo(dtype).eps)
    # Standard error at most 0.0056.
    assert len(kept) / 6000 == pytest.approx(1 - p, abs=0.03)


@pytest.mark.parametrize("kind", named(KEYED_KINDS))
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_module_that_drops_all_gives_zeros(kind, dtype):
    x = torch.ones(2, *SHAPES.get(kind, (40, 3)), dtype=dtype)
    output = sample(kind(1.0).eval(), x, [1, 2])
    assert output.dtype == dtype
    assert torch.equal(output, torch.zeros_like(x))


def test_rows_may_be_single_numbers_or_none_at_all():
    output = sample(nn.Dropout(0.5).eval(), torch.ones(200), range(200))
    assert set(output.tolist()) == {0, 2}
    assert sample(nn.Dropout(0.5).eval(), torch.ones(0, 3), []).shape == (0, 3)


def test_gradients_pass_where_values_are_kept():
    x = torch.ones(2, 40, requires_grad=True)
    output = sample(nn.Dropout(0.75).eval(), x, [1, 2])
    output.sum().backward()
    assert torch.equal(x.grad, output.detach())  # 0 or 4, as for an input of ones
    assert set(x.grad.flatten().tolist()) == {0, 4}


# --- masks from elsewhere ----------------------------------------------------------------------------------------


def drawn(model, x, draw):
    with drawn_dropout(model, draw):
        return model(x)


def ones(mask, keep):
    return mask.fill_(1)


@pytest.mark.parametrize("kind", named(KEYED_KINDS))
def test_what_draw_gives_is_the_mask(kind):
    x, asked = torch.ones(2, *SHAPES.get(kind, (40, 3))), []

    def draw(mask, keep):
        asked.append((tuple(mask.shape), keep))
        mask.fill_(1)[0] = 0
        return mask

    output = drawn(kind(0.75).train(), x, draw)
    assert (output[0] == 0).all()
    assert (output[1] == 4).all()
    # One number a channel where whole channels go.
    assert asked == [(x.shape if kind is nn.Dropout else (2, 40, *(1 for _ in x.shape[2:])), 0.25)]


def test_modules_that_are_off_or_drop_nothing_or_all_draw_nothing():
    def draw(mask, keep):
        pytest.fail("drew")

    x = torch.ones(2, 3)
    assert torch.equal(drawn(nn.Dropout(0.5).eval(), x, draw), x)
    assert torch.equal(drawn(nn.Dropout(0).train(), x, draw), x)
    assert torch.equal(drawn(nn.Dropout(1).train(), x, draw), 0 * x)


def test_drawn_masks_change_neither_modes_nor_rates_and_are_put_back(mixed):
    before = condition(mixed)
    with pytest.raises(KeyError), drawn_dropout(mixed, ones):
        assert [state[:2] for state in condition(mixed)] == [state[:2] for state in before]
        with drawn_dropout(mixed, ones):
            pass
        assert mixed[2](torch.ones(1, 1)).item() == pytest.approx(1 / 0.7)  # on, with ones for a mask
        raise KeyError
    assert condition(mixed) == before


@pytest.mark.parametrize("kind", named([nn.AlphaDropout, nn.FeatureAlphaDropout]))
def test_kinds_that_cannot_be_drawn_are_refused_untouched(mixed, kind):
    mixed.append(kind(0.25))
    before = condition(mixed)
    with pytest.raises(ValueError, match=f"not with {kind.__name__}"), drawn_dropout(mixed, ones):
        pytest.fail("entered")
    assert condition(mixed) == before


def test_a_model_without_dropout_needs_no_masks():
    model, x = nn.Linear(3, 3), torch.ones(2, 3)
    assert torch.equal(drawn(model, x, ones), model(x))


def test_seeds_of_mc_dropout_are_masks_by_row():
    model = make_network()
    expected = sample(model, images(), range(6))
    for module in dropout_modules(model):
        module.training = True
    assert torch.equal(drawn(model, images(), masks_by_row(range(6))), expected)


# --- blocks of rows ----------------------------------------------------------------------------------------------


@given(counts=st.lists(st.integers(0, 4), max_size=5), noise=st.integers(0, 1000))
def test_a_block_depends_on_its_seed_alone(counts, noise):
    # Each block, empty ones too, is what it would be as the whole batch.
    model, seeds = make_elementwise(), range(50, 50 + len(counts))
    x = torch.rand(sum(counts), 4, 3, generator=torch.Generator().manual_seed(noise)) + 0.5
    torch.manual_seed(noise)
    with mc_dropout(model, seeds=seeds, counts=counts):
        found = model(x)
    alone = []
    for block, seed in zip(x.split(counts), seeds, strict=True):
        with mc_dropout(model, seeds=[seed], counts=[len(block)]):
            alone.append(model(block))
    assert torch.equal(found, torch.cat([torch.empty(0, 4, 3), *alone]))


def test_blocks_of_one_row_are_rows():
    model = make_network()
    with mc_dropout(model, seeds=range(6), counts=[1] * 6):
        assert torch.equal(model(images()), sample(model, images(), range(6)))


def test_rows_of_a_block_get_masks_of_their_own():
    # 0.5 ** 64: two rows of 64 values that are dropped alike by chance do not happen.
    mask = masks_by_row([3, 3], counts=[2, 1])(torch.empty(3, 64), 0.5)
    assert not torch.equal(mask[0], mask[1])
    assert torch.equal(mask[0], mask[2])  # the same seed, the same first row


def test_masks_of_a_block_follow_one_another():
    draw, whole = (
        masks_by_row([3], counts=[2]),
        torch.empty(4, 8).bernoulli_(0.5, generator=torch.Generator().manual_seed(3)),
    )
    assert torch.equal(torch.cat([draw(torch.empty(2, 8), 0.5) for _ in range(2)]), whole)


@pytest.mark.parametrize("counts", [[], [1], [1, 1, 1]])
def test_another_number_of_counts_than_seeds_is_refused(counts):
    with pytest.raises(ValueError, match=f"counts must hold one count per seed: {len(counts)} counts for 2 seeds"):
        masks_by_row([1, 2], counts)


def test_counts_that_do_not_add_up_to_the_rows_are_refused():
    model = make_elementwise()
    message = "seeds must hold one seed per row: 3 seeds for 4 rows"
    with pytest.raises(ValueError, match=message), mc_dropout(model, seeds=[1, 2], counts=[1, 2]):
        model(torch.ones(4, 3, 2))


# --- split_at_dropout --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([], 0),
        ([nn.Linear(3, 3), nn.ReLU()], 2),
        ([nn.Dropout(), nn.Linear(3, 3)], 0),
        ([nn.Linear(3, 3), nn.Dropout(), nn.Linear(3, 3), nn.Dropout()], 1),
        ([nn.Linear(3, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 3), nn.Dropout())], 2),
    ],
    ids=["empty", "none", "first", "two", "inside-a-stage"],
)
def test_the_cut_is_before_the_first_stage_with_dropout(stages, expected):
    first, rest = split_at_dropout(nn.Sequential(*stages))
    assert list(first) == stages[:expected]
    assert list(rest) == stages[expected:]


def test_the_parts_are_the_whole_and_only_the_rest_is_random():
    stages, x = make_network(), images()
    first, rest = split_at_dropout(stages)
    assert torch.equal(rest(first(x)), stages(x))
    with mc_dropout(rest, seeds=range(6)):
        assert torch.equal(rest(first(x)), sample(stages, x, range(6)))
    with pytest.raises(ValueError, match="must hold dropout modules"), mc_dropout(first):
        pytest.fail("entered")


@pytest.mark.parametrize("training", [True, False])
def test_the_parts_come_in_the_mode_of_the_stages(training):
    stages = make_network().train(training)
    stages[1].eval()  # batch norm, which stays as it is
    modes = [module.training for module in stages]
    first, rest = split_at_dropout(stages)
    assert first.training == rest.training == training
    assert [module.training for module in [*first, *rest]] == modes
    assert stages.training == training


# --- shards ------------------------------------------------------------------------------------------------------


@given(cuts=st.sets(st.integers(1, 5)), seed=st.integers(0, 2**63 - 1), noise=st.integers(0, 1000))
def test_shards_draw_what_one_batch_would(cuts, seed, noise):
    model, x = make_elementwise().train(), torch.rand(6, 4, 3, generator=torch.Generator().manual_seed(0)) + 0.5
    whole = drawn(model, x, masks_of_shard(seed, 0, 6))
    torch.manual_seed(noise)
    before = torch.get_rng_state()
    for start, stop in itertools.pairwise([0, *sorted(cuts), 6]):
        assert torch.equal(drawn(model, x[start:stop], masks_of_shard(seed, start, 6)), whole[start:stop])
    assert torch.equal(torch.get_rng_state(), before)


def test_shards_train_as_one_batch_would():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2)), images()
    x = x.flatten(1)[:, :8]
    gradients = []
    for size in (6, 2):
        model.zero_grad()
        for start in range(0, 6, size):
            drawn(model, x[start : start + size], masks_of_shard(3, start, 6)).square().sum().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_masks_of_a_shard_differ_by_row_by_module_and_by_seed():
    model, x = Twice().train(), torch.ones(3, 40)
    first, second = drawn(model, x, masks_of_shard(0, 0, 3))
    other, _ = drawn(model, x, masks_of_shard(1, 0, 3))
    assert len({tuple(row.tolist()) for row in (*first, *second, *other)}) == 9


@pytest.mark.parametrize(("start", "rows"), [(3, 2), (4, 1), (7, 1)])
def test_a_shard_past_the_end_of_the_batch_is_refused(start, rows):
    with pytest.raises(ValueError, match="rows"):
        drawn(nn.Dropout(0.5).train(), torch.ones(rows, 40), masks_of_shard(0, start, 4))


# --- derive_seed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "seed"),
    [
        # From a shell, halved: printf '[0, "a", 1]' | b2sum -l 64
        ((), 4090036724241674979),
        ((0,), 6197007067532723406),
        ((-1,), 6457465443309831270),
        ((0, "a", 1), 1532760995434174994),
        (("ab", "c"), 1688925456089113551),
        ((123, "000000397133.jpg", 9), 2112112865219208715),
        (("é",), 2037677974496098380),  # hashed as "\\u00e9"
    ],
)
def test_seeds_are_the_same_on_every_machine(key, seed):
    assert derive_seed(*key) == seed


KEYS = st.lists(st.integers(-(2**70), 2**70) | st.text(), max_size=4).map(tuple)


@settings(max_examples=200)
@given(one=KEYS, other=KEYS)
def test_seeds_fit_63_bits_and_differ_with_the_key(one, other):
    assert 0 <= derive_seed(*one) < 2**63
    assert derive_seed(*one) == derive_seed(*one)
    assert (derive_seed(*one) == derive_seed(*other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c"), ("a", "bc")),
        (("ab",), ("a", "b")),
        ((1, 2), (2, 1)),
        ((12,), (1, 2)),
        ((1,), ("1",)),
        (("a",), ("a", "")),
        ((1, 2), ("1, 2",)),
        (('a", "b',), ("a", "b")),
        ((0, 1, 2), (1, 1, 2)),
        ((0, 1, 2), (0, 2, 2)),
        ((0, 1, 2), (0, 1, 3)),
    ],
)
def test_each_part_counts(one, other):
    assert derive_seed(*one) != derive_seed(*other)


def test_consecutive_keys_give_no_equal_seeds():
    assert len({derive_seed(0, f"{image}", draw) for image in range(300) for draw in range(30)}) == 9000


# --- mc_mean_std -------------------------------------------------------------------------------------------------


def stack_passes(model, x, num_samples, seed, keys, rate=None, transform=lambda z: z):
    passes = []
    for draw in range(num_samples):
        with torch.no_grad():
            passes.append(transform(sample(model, x, [derive_seed(seed, key, draw) for key in keys], rate)).double())
    return np.stack(passes)


@pytest.mark.parametrize("transform", [lambda z: z, lambda z: z.softmax(1)], ids=["logits", "softmax"])
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("rate", [None, 0.8])
def test_equals_the_stack_of_all_passes(transform, ddof, rate):
    model, keys = make_network(), ["a", "b", 3, "d", 5, "f"]
    mean, std = mc_mean_std(
        model, images(), num_samples=7, transform=transform, rate=rate, seed=11, keys=keys, ddof=ddof
    )
    stack = stack_passes(model, images(), 7, 11, keys, rate, transform)
    np.testing.assert_allclose(mean, stack.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(std, stack.std(0, ddof=ddof), rtol=1e-4, atol=1e-5)
    assert (std > 0).all()


def test_without_a_seed_the_global_random_state_decides():
    model = make_network()
    torch.manual_seed(5)
    mean, std = mc_mean_std(model, images(), num_samples=4)
    torch.manual_seed(5)
    stack = np.stack([sample(model, images(), None).detach().double() for _ in range(4)])
    np.testing.assert_allclose(mean, stack.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(std, stack.std(0), rtol=1e-4, atol=1e-5)


def test_every_input_reaches_the_model():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.dropout = nn.Dropout(0.5)

        def forward(self, x, y):
            return self.dropout(x) + y

    mean, _ = mc_mean_std(Sum().eval(), torch.zeros(2, 3), torch.full((2, 3), 5.0), num_samples=2)
    assert (mean == 5).all()


def test_softmax_inside_averages_probabilities():
    model = make_network()
    options = {"num_samples": 20, "seed": 0}
    logits, _ = mc_mean_std(model, images(), **options)
    probabilities, _ = mc_mean_std(model, images(), transform=lambda z: z.softmax(1), **options)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert (probabilities - logits.softmax(1)).abs().max() > 1e-3


@given(order=st.permutations(range(6)), cuts=st.sets(st.integers(1, 5)), seed=st.integers(0, 2**40))
def test_shards_in_any_order_give_the_same(order, cuts, seed):
    model, x = make_elementwise(), torch.rand(6, 4, 3, generator=torch.Generator().manual_seed(0)) + 0.5
    keys = [f"{i}.png" for i in range(6)]
    whole = mc_mean_std(model, x, num_samples=3, seed=seed, keys=keys)
    bounds = [0, *sorted(cuts), 6]
    for start, stop in itertools.pairwise(bounds):
        rows = list(order[start:stop])
        shard = mc_mean_std(model, x[rows], num_samples=3, seed=seed, keys=[keys[i] for i in rows])
        for ours, theirs in zip(shard, whole, strict=True):
            assert torch.equal(ours, theirs[rows])


def test_keys_are_positions_unless_given():
    model = make_network()
    given, _ = mc_mean_std(model, images(), num_samples=3, seed=0, keys=[0, 1, 2, 3, 4, 5])
    default, _ = mc_mean_std(model, images(), num_samples=3, seed=0)
    assert torch.equal(given, default)


@pytest.mark.parametrize("other", [{"seed": 1, "keys": ["a"]}, {"seed": 0, "keys": ["b"]}])
def test_seed_and_key_both_count(other):
    model, x = nn.Dropout(0.5).eval(), torch.ones(1, 40)
    one, _ = mc_mean_std(model, x, num_samples=1, seed=0, keys=["a"])
    two, _ = mc_mean_std(model, x, num_samples=1, **other)
    assert not torch.equal(one, two)


def test_draws_differ():
    _, std = mc_mean_std(nn.Dropout(0.5).eval(), torch.ones(1, 40), num_samples=2, seed=0)
    assert std.max() > 0


def test_a_linear_models_mean_is_its_deterministic_output():
    torch.manual_seed(0)
    linear = nn.Linear(8, 3)
    model, x, p, num = nn.Sequential(nn.Dropout(0.4), linear).eval(), torch.randn(2, 8), 0.4, 2000
    mean, std = mc_mean_std(model, x, num_samples=num, seed=0, ddof=1)
    # Each term w x m / (1 - p) has mean w x and variance (w x)² p / (1 - p); the terms are independent.
    expected = ((x.square() @ linear.weight.detach().square().T) * p / (1 - p)).sqrt()
    assert ((mean - model(x)).abs() < 5 * expected / num**0.5).all()
    np.testing.assert_allclose(std, expected.detach(), rtol=0.1)


def test_a_nonlinear_models_mean_is_not():
    class Square(nn.Module):
        def forward(self, x):
            return x.square()

    model, x = nn.Sequential(nn.Dropout(0.5), Square()).eval(), torch.tensor([[1.0, 2.0, 3.0]])
    mean, _ = mc_mean_std(model, x, num_samples=2000, seed=0)
    # (m x / (1 - p))² is (x / (1 - p))² with probability 1 - p, else 0: mean x² / (1 - p), and as large a deviation.
    np.testing.assert_allclose(mean, 2 * x.square(), rtol=5 / 2000**0.5)


def test_one_sample_has_a_mean_and_no_deviation():
    model, x = nn.Dropout(0.5).eval(), torch.ones(1, 40)
    mean, std = mc_mean_std(model, x, num_samples=1, seed=0, keys=["a"])
    assert torch.equal(mean, sample(model, x, [derive_seed(0, "a", 0)]))
    assert (std == 0).all()
    with pytest.raises(ValueError, match="num_samples must be more than ddof=1, got 1"):
        mc_mean_std(model, x, num_samples=1, ddof=1)


@pytest.mark.parametrize("num", [0, -1, 2.0, True, None])
def test_a_bad_number_of_samples_is_refused(num):
    with pytest.raises(ValueError, match="num_samples must be an integer >= 1"):
        mc_mean_std(make_network(), images(), num_samples=num)


def test_keys_without_a_seed_are_refused():
    with pytest.raises(ValueError, match="keys must come with a seed"):
        mc_mean_std(make_network(), images(), num_samples=2, keys=range(6))


def test_too_few_keys_are_refused():
    with pytest.raises(ValueError, match="one seed per row: 2 seeds for 6 rows"):
        mc_mean_std(make_network(), images(), num_samples=2, seed=0, keys=["a", "b"])


def test_a_model_in_training_mode_is_refused_by_mc_mean_std():
    with pytest.raises(ValueError, match="model must be in eval mode"):
        mc_mean_std(make_network().train(), images(), num_samples=2)


def test_no_gradient_is_kept_and_the_model_is_put_back():
    model, seen = make_network(), []
    before = condition(model)

    def transform(logits):
        seen.append(logits.requires_grad)
        return logits

    mean, std = mc_mean_std(model, images(), num_samples=2, seed=0, transform=transform)
    assert seen == [False, False]
    assert not mean.requires_grad
    assert not std.requires_grad
    assert torch.is_grad_enabled()
    assert condition(model) == before


def test_one_pass_at_a_time_is_in_memory():
    made, alive = [], []

    def transform(logits):
        alive.append(sum(ref() is not None for ref in made))
        made.append(weakref.ref(logits))
        return logits

    mc_mean_std(make_network(), images(), num_samples=6, transform=transform)
    assert len(alive) == 6
    assert max(alive) == 0
