"""Monte-Carlo sampling of a chain of stages against plain full passes."""

import pytest
import torch
from torch import nn

from classification.models import MODELS, build_model
from classification.models.staged import InputCheck, Staged
from classification.sampling import enumerate_rows, mc_outputs
from uncertainty_core import derive_seed, dropout_modules, split_at_dropout, state_dict_sha256
from uncertainty_core.sampling import mc_dropout

DRAWS, SEED = 3, 5
KEYS = ["a", 7, "c", 0, "e"]


def softmax(logits):
    return logits.softmax(1)


def a_network(name):
    """A narrow network in eval mode, and images that it takes."""
    torch.manual_seed(0)
    model = build_model(name, width=0.1).eval()
    first = next(module for module in model.modules() if isinstance(module, InputCheck))
    size = 16 if first.or_larger else first.size
    return model, torch.randn(len(KEYS), first.channels, size, size)


def full_passes(model, images, transform=lambda logits: logits, keys=KEYS):
    passes = []
    for draw in range(DRAWS):
        with torch.no_grad(), mc_dropout(model, seeds=[derive_seed(SEED, key, draw) for key in keys]):
            passes.append(transform(model(images)))
    return torch.stack(passes)


@pytest.mark.parametrize("name", MODELS)
def test_mean_is_that_of_full_passes(name):
    model, images = a_network(name)
    before = state_dict_sha256(model.state_dict())
    passes = full_passes(model, images)
    assert passes.std(0).max() > 1e-3  # there is something to average
    for sub_batch in (2, 16):
        mean = mc_outputs(model, images, DRAWS, seed=SEED, keys=KEYS, sub_batch=sub_batch)
        torch.testing.assert_close(mean, passes.mean(0), rtol=1e-5, atol=1e-5)
    assert state_dict_sha256(model.state_dict()) == before
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("sub_batch", [1, 3, 5, 100])
def test_mean_is_independent_of_the_sub_batch(sub_batch):
    model, images = a_network("digits")
    mean = mc_outputs(model, images, DRAWS, seed=SEED, keys=KEYS, sub_batch=sub_batch)
    torch.testing.assert_close(mean, full_passes(model, images).mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"channels_last": True}, 1e-5),
        ({"precision": "bfloat16"}, 0.03),  # eight bits: 0.4 % in every layer
        ({"precision": "bfloat16", "channels_last": True}, 0.03),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_faster_draws_are_the_same_draws(name, options, tolerance):
    model, images = a_network(name)
    before = {key: (value.clone(), value.stride()) for key, value in model.state_dict().items()}
    exact = mc_outputs(model, images, DRAWS, seed=SEED, keys=KEYS)
    fast = mc_outputs(model, images, DRAWS, seed=SEED, keys=KEYS, **options)
    assert fast.dtype == torch.float32
    scale = exact.abs().max().item()
    torch.testing.assert_close(fast, exact, rtol=0, atol=tolerance * scale)
    other = mc_outputs(model, images, DRAWS, seed=SEED + 1, keys=KEYS)
    assert (other - exact).abs().max() > 2 * (fast - exact).abs().max()  # other masks would be further away
    for key, value in model.state_dict().items():  # nothing of it stays behind
        assert torch.equal(value, before[key][0])
        assert value.stride() == before[key][1]
    assert torch.equal(mc_outputs(model, images, DRAWS, seed=SEED, keys=KEYS), exact)


def test_probabilities_in_bfloat16_are_averaged_in_float32():
    model, images = a_network("lenet")
    mean = mc_outputs(model, images, 7, softmax, seed=SEED, keys=KEYS, precision="bfloat16")
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean.sum(1), torch.ones(len(KEYS)), rtol=0, atol=1e-6)


def test_transform_comes_before_the_average():
    model, images = a_network("digits")
    mean = mc_outputs(model, images, DRAWS, transform=softmax, seed=SEED, keys=KEYS)
    passes = full_passes(model, images)
    torch.testing.assert_close(mean, passes.softmax(2).mean(0))
    assert not torch.allclose(mean, passes.mean(0).softmax(1), atol=1e-4)


def test_keys_are_positions_by_default():
    model, images = a_network("digits")
    assert torch.equal(mc_outputs(model, images, 2, seed=1), mc_outputs(model, images, 2, seed=1, keys=range(5)))


def test_without_a_seed_the_global_state_decides():
    model, images = a_network("digits")
    torch.manual_seed(4)
    first = mc_outputs(model, images, 2)
    assert not torch.equal(first, mc_outputs(model, images, 2))
    torch.manual_seed(4)
    assert torch.equal(first, mc_outputs(model, images, 2))


@pytest.mark.parametrize("name", MODELS)
def test_the_shared_prefix_runs_once(name):
    model, images = a_network(name)
    calls = [0] * len(model.stages)

    def count(stage):
        def hook(*_):
            calls[stage] += 1

        return hook

    for k, stage in enumerate(model.stages):
        stage.register_forward_hook(count(k))
    mc_outputs(model, images, DRAWS, seed=SEED, keys=KEYS, sub_batch=2)
    first = next(k for k, stage in enumerate(model.stages) if dropout_modules(stage))
    assert calls[:first] == [1] * first
    assert set(calls[first:]) == {DRAWS * 3}  # 5 images in sub-batches of 2


def test_split_shares_the_weights_and_loses_no_stage():
    model, images = a_network("lenet")
    shared, sampled = split_at_dropout(model.stages)
    assert [*shared, *sampled] == list(model.stages)
    assert not dropout_modules(shared)
    assert isinstance(sampled[0], nn.Dropout)
    assert torch.equal(sampled(shared(images)), model(images))


def test_no_images_give_no_outputs():
    model, images = a_network("digits")
    assert mc_outputs(model, images[:0], 2, seed=0, keys=[]).shape == (0, 10)


def test_a_network_without_dropout_is_refused():
    with pytest.raises(ValueError, match="dropout"):
        mc_outputs(Staged(nn.Flatten(), nn.Linear(4, 2)).eval(), torch.ones(1, 1, 2, 2), 2)


def test_a_network_in_training_mode_is_refused():
    model, images = a_network("digits")
    with pytest.raises(ValueError, match="eval mode"):
        mc_outputs(model.train(), images, 2)


def test_rows_are_numbered():
    pieces = list(enumerate_rows(torch.arange(5), 2))
    assert [(start, piece.tolist()) for start, piece in pieces] == [(0, [0, 1]), (2, [2, 3]), (4, [4])]
