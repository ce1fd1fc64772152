"""Passes that share a prefix against whole passes with the same masks, on every box head."""

import pytest
import torch
from tiny_detectors import ddn_model, every_head, images, plain_model, pooling

from ddn_detectron2.teaching.sampling import SpatialMean, joint_logits, mc_predictions, predict_boxes
from uncertainty_core import derive_seed, dropout_modules, masks_by_row
from uncertainty_core.sampling import mc_dropout

POSITIONS = [
    ("C4", ("block1",)),
    ("C4", ("block2",)),
    ("C4", ("residual",)),
    ("C4", ("predictor",)),
    ("C4", ("block1", "block2", "residual", "predictor")),
    ("DC5", ("fc1",)),
    ("FPN", ("fc1",)),
    ("FPN", ("predictor",)),
    ("FPN", ("fc1", "predictor")),
    ("Cascade", ("fc1",)),
    ("Cascade", ("predictor",)),
    ("Cascade", ("fc1", "predictor")),
]
every_position = pytest.mark.parametrize(
    ("name", "positions"), [pytest.param(n, p, id="-".join([n, *p])) for n, p in POSITIONS]
)


def model_with_dropout_at(name, positions):
    # "probs", since dropout before the predictor alone is refused with "logits"
    keys = {"DROPOUT.POSITIONS": positions, "TARGETS.AVERAGE": "probs", "DROPOUT.RATE": 0.4}
    return ddn_model(name, *(word for key, value in keys.items() for word in (f"MODEL.DDN.{key}", value)))


def branches_of(model, count=2):
    _, features, proposals = pooling(model, images(count))
    with torch.no_grad():
        return model.roi_heads.box_branches(features, proposals)


def heads_and_predictors(roi_heads):
    """The box head and the predictor of each branch, as the framework has them."""
    if hasattr(roi_heads, "res5"):
        return [(torch.nn.Sequential(roi_heads.res5, SpatialMean()), roi_heads.box_predictor)]
    if hasattr(roi_heads, "num_cascade_stages"):
        return list(zip(roi_heads.box_head, roi_heads.box_predictor, strict=True))
    return [(roi_heads.box_head, roi_heads.box_predictor)]


@torch.no_grad()
def naive_passes(model, branches, num_samples, seed, keys):
    """Every pass through the whole head and predictor, which take no notice of what could be shared."""
    passes = []
    for draw in range(num_samples):
        outputs = []
        for number, (branch, parts) in enumerate(zip(branches, heads_and_predictors(model.roi_heads), strict=True)):
            seeds = [derive_seed(seed, key, draw, number) for key in keys]
            chain = torch.nn.Sequential(*parts).eval()
            with mc_dropout(chain, seeds=seeds, counts=[len(p) for p in branch.proposals]):
                outputs.append(chain(branch.features))
        passes.append(outputs)
    return passes


def equal(passes, others):
    """Bit for bit, logits and boxes of every branch of every pass."""
    return all(
        torch.equal(mine, its)
        for outputs, expected in zip(passes, others, strict=True)
        for pair, other in zip(outputs, expected, strict=True)
        for mine, its in zip(pair, other, strict=True)
    )


# --- mc_predictions ----------------------------------------------------------------------------------------------


@every_position
def test_sharing_the_prefix_changes_no_bit(name, positions):
    model = model_with_dropout_at(name, positions)
    branches = branches_of(model)
    passes = list(mc_predictions(branches, 3, seed=5, keys=["a", 7]))
    assert equal(passes, naive_passes(model, branches, 3, 5, ["a", 7]))
    assert len(branches) == (3 if name == "Cascade" else 1)
    assert not equal(passes[:1], passes[1:2])


@every_position
def test_what_comes_before_dropout_runs_once(name, positions):
    branches = branches_of(model_with_dropout_at(name, positions))
    calls = {}
    for number, branch in enumerate(branches):
        for place, layer in enumerate(branch.layers):
            key = number, place, bool(dropout_modules(layer))
            calls[key] = 0
            layer.register_forward_hook(lambda *_, key=key: calls.__setitem__(key, calls[key] + 1))
    list(mc_predictions(branches, 4))
    for number in range(len(branches)):
        of_branch = [(random, count) for (n, _, random), count in calls.items() if n == number]
        first = [random for random, _ in of_branch].index(True)
        assert [count for _, count in of_branch] == [1] * first + [4] * (len(of_branch) - first)


@every_head
def test_passes_depend_on_seed_key_and_number_alone(name):
    model = ddn_model(name)
    both, [alone] = branches_of(model), [branches_of(model, 1)]
    passes = list(mc_predictions(both, 2, seed=0, keys=["x", "y"]))
    torch.manual_seed(99)
    first = [b.proposals[0] for b in both]
    for outputs, single in zip(passes, mc_predictions(alone, 2, seed=0, keys=["x"]), strict=True):
        for (logits, deltas), (logits_alone, deltas_alone), proposals in zip(outputs, single, first, strict=True):
            # not bitwise: a convolution of another batch may add in another order
            torch.testing.assert_close(logits[: len(proposals)], logits_alone, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(deltas[: len(proposals)], deltas_alone, rtol=1e-4, atol=1e-4)
    for change in ({"seed": 1}, {"keys": ["z", "w"]}):
        assert not equal(passes, list(mc_predictions(both, 2, **({"seed": 0, "keys": ["x", "y"]} | change))))
    assert equal(passes, list(mc_predictions(both, 2, seed=0, keys=["x", "y"])))


def test_the_masks_themselves_do_not_depend_on_the_batch():
    # As above, but of a network whose rows cannot influence each other even in the last bit.
    model = ddn_model("FPN")
    [branch] = branches_of(model)
    counts = [len(p) for p in branch.proposals]
    seeds = [derive_seed(3, key, 0, 0) for key in ("a", "b")]
    both = masks_by_row(seeds, counts)(torch.empty(sum(counts), 16), 0.8)
    second = masks_by_row(seeds[1:], counts[1:])(torch.empty(counts[1], 16), 0.8)
    assert torch.equal(both[counts[0] :], second)


def test_without_keys_images_get_the_same_masks():
    model = ddn_model("FPN")
    twice = [images(1)[0], images(1)[0]]
    _, features, proposals = pooling(model, twice)
    with torch.no_grad():
        branches = model.roi_heads.box_branches(features, proposals)
    [[(logits, _)]] = mc_predictions(branches, 1, seed=0)
    torch.testing.assert_close(*logits.split([len(p) for p in proposals]))


def test_without_a_seed_the_global_random_state_decides():
    branches = branches_of(ddn_model("FPN"))
    torch.manual_seed(4)
    passes = list(mc_predictions(branches, 2))
    assert not equal(passes, list(mc_predictions(branches, 2)))
    torch.manual_seed(4)
    assert equal(passes, list(mc_predictions(branches, 2)))


def test_a_seed_leaves_the_global_random_state_alone():
    branches = branches_of(ddn_model("FPN"))
    before = torch.random.get_rng_state()
    list(mc_predictions(branches, 2, seed=0))
    assert torch.equal(torch.random.get_rng_state(), before)


@every_head
def test_no_gradient_is_kept_and_the_model_is_put_back(name):
    model = ddn_model(name)
    branches = branches_of(model)
    for outputs in mc_predictions(branches, 2):
        assert not any(value.requires_grad for pair in outputs for value in pair)
        # between passes, too: whoever consumes them may run the model
        assert not any(module.training for module in model.modules())


@every_head
def test_no_proposals_no_predictions(name):
    model = ddn_model(name)
    _, features, proposals = pooling(model, images())
    branches = model.roi_heads.box_branches(features, [p[:0] for p in proposals])
    for outputs in mc_predictions(branches, 2, seed=0):
        assert all(len(logits) == 0 for logits, _ in outputs)
    prediction = predict_boxes(branches, 2, seed=0)
    assert [len(p) for p in prediction.probs] == [len(b) for b in prediction.boxes] == [0, 0]


def test_a_head_without_dropout_cannot_be_sampled():
    model = ddn_model("FPN")
    for module in dropout_modules(model):
        module.__class__ = torch.nn.Identity
    with pytest.raises(ValueError, match="must hold dropout modules"):
        list(mc_predictions(branches_of(model), 1))


# --- predict_boxes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["C4", "DC5", "FPN"])
def test_one_pass_is_the_frameworks_own_inference(name):
    model, plain = ddn_model(name), plain_model(name)
    _, features, proposals = pooling(plain, images())
    heads = plain.roi_heads
    with torch.no_grad():
        prediction = predict_boxes(model.roi_heads.box_branches(features, proposals))
        if name == "C4":
            box_features = heads._shared_roi_transform([features["res4"]], [p.proposal_boxes for p in proposals])
            outputs = heads.box_predictor(box_features.mean(dim=[2, 3]))
        else:
            maps = [features[f] for f in heads.box_in_features]
            outputs = heads.box_predictor(heads.box_head(heads.box_pooler(maps, [p.proposal_boxes for p in proposals])))
        boxes = heads.box_predictor.predict_boxes(outputs, proposals)
        probs = heads.box_predictor.predict_probs(outputs, proposals)
    assert all(map(torch.equal, prediction.boxes, boxes))
    assert all(map(torch.equal, prediction.probs, probs))
    assert prediction.std is None


def test_one_pass_of_a_cascade_is_the_mean_of_its_stages():
    model = ddn_model("Cascade")
    branches = branches_of(model)
    with torch.no_grad():
        outputs = [branch.predict() for branch in branches]
        prediction = predict_boxes(branches)
    mean = sum(logits.softmax(1) for logits, _ in outputs) / 3
    torch.testing.assert_close(torch.cat(prediction.probs), mean)
    last = branches[-1].predictor.predict_boxes(outputs[-1], branches[-1].proposals)
    assert all(map(torch.equal, prediction.boxes, last))


@every_head
@pytest.mark.parametrize("num_samples", [1, 2, 5])
def test_many_passes_are_averaged(name, num_samples):
    branches = branches_of(ddn_model(name))
    passes = list(mc_predictions(branches, num_samples, seed=2))
    probs = torch.stack([torch.stack([z.softmax(1) for z, _ in outputs]).mean(0) for outputs in passes]).double()
    deltas = torch.stack([outputs[-1][1] for outputs in passes]).mean(0)
    prediction = predict_boxes(branches, num_samples, seed=2)
    torch.testing.assert_close(torch.cat(prediction.probs), probs.mean(0).float(), rtol=1e-4, atol=1e-5)
    expected = probs.std(0, correction=0).float()
    torch.testing.assert_close(torch.cat(prediction.std), expected, rtol=1e-3, atol=1e-5)
    assert (torch.cat(prediction.std).max() > 1e-3) == (num_samples > 1)
    last = branches[-1]
    boxes = last.predictor.predict_boxes((prediction.probs, deltas), last.proposals)
    torch.testing.assert_close(list(prediction.boxes), list(boxes), rtol=1e-4, atol=1e-3)


@every_head
def test_dropout_that_drops_nothing_deviates_by_nothing(name):
    model = ddn_model(name)
    for module in dropout_modules(model):
        module.p = 0.0
    branches = branches_of(model)
    with torch.no_grad():
        once = predict_boxes(branches)
    sampled = predict_boxes(branches, 3, seed=0)
    assert torch.cat(sampled.std).max() < 1e-6
    torch.testing.assert_close(sampled.probs, once.probs)
    torch.testing.assert_close(sampled.boxes, once.boxes)


# --- joint_logits ------------------------------------------------------------------------------------------------


def test_a_single_branch_speaks_for_itself():
    logits = torch.randn(3, 4)
    assert joint_logits([logits]) is logits


def test_branches_together_by_hand():
    # (1/4, 3/4) and (3/4, 1/4): softmax of what they say together is (1/2, 1/2).
    log3 = torch.tensor(3.0).log()
    one, other = torch.tensor([[0, log3]]), torch.tensor([[log3, 0]])
    torch.testing.assert_close(joint_logits([one, other]).softmax(1), torch.tensor([[0.5, 0.5]]))


def test_branches_that_agree_say_together_what_each_says():
    # A constant on all logits is not seen by softmax, but by the distance that each stage is taught by.
    logits = torch.tensor([[5.0, 3.0, 1.0, 0.0, -1.0], [0.0, -2.0, 4.0, 4.0, 4.0]])
    torch.testing.assert_close(joint_logits([logits, logits, logits]), logits)


def test_branches_that_rule_a_class_out_leave_finite_logits():
    sure = torch.tensor([[500.0, -500.0]])
    logits = joint_logits([sure, sure, sure])
    assert logits.isfinite().all()
    torch.testing.assert_close(logits.softmax(1), torch.tensor([[1.0, 0.0]]))
