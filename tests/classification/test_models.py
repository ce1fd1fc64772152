"""The networks: sizes, where dropout is, and what they do with the images they are given."""

import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from classification.models import MODELS, build_model
from classification.models.densenet import DenseLayer
from classification.models.staged import InputCheck, Staged, scaled
from uncertainty_core import dropout_modules

MNIST, CIFAR, DIGITS = (1, 28, 28), (3, 32, 32), (1, 8, 8)
MNIST_PADDED = (1, 32, 32)

# name: shape of an image, number of parameters
FACTS = {
    "allconv": (CIFAR, 1_369_738),
    # A dense layer on c channels has 2 c (batch norm) + 9 * 12 c = 110 c parameters; c runs over 16, 28, ..., 148, then
    # 160, ..., 292, then 304, ..., 436: 110 (984 + 2712 + 4440) = 894,960. First convolution 27 * 16 = 432; transitions
    # 2 c + c^2 for c = 160 and 304: 25,920 + 93,024; last batch norm 2 * 448 = 896; classifier 449 * 10 = 4,490.
    "densenet40": (CIFAR, 1_019_722),
    # (9 + 1) 32 + (9 * 32 + 1) 64 + (64 * 4 * 4 + 1) 128 + 129 * 10 = 320 + 18,496 + 131,200 + 1,290
    "digits": (DIGITS, 151_306),
    # (25 + 1) 20 + (25 * 20 + 1) 50 + (50 * 4 * 4 + 1) 500 + 501 * 10 = 520 + 25,050 + 400,500 + 5,010
    "lenet": (MNIST, 431_080),
    "lenet_all": (MNIST, 431_080),
    "nin": (CIFAR, 966_986),
    # 76 * 32 + 801 * 32 + 801 * 64 + (64 * 4 * 4 + 1) 64 + 65 * 10 = 2,432 + 25,632 + 51,264 + 65,600 + 650
    "quick": (CIFAR, 145_578),
    # 10 * 64 + (64 * 16 * 16 + 1) 256 + 257 * 256 + 257 * 10 = 640 + 4,194,560 + 65,792 + 2,570; the paper: 4,265,066
    "sn1": (MNIST_PADDED, 4_263_562),
    "sn2": (MNIST_PADDED, 4_721_610),
    "vgg16_mnist": (MNIST_PADDED, 14_913_226),
}
FIXED_SIZE = ["digits", "lenet", "lenet_all", "quick", "sn1", "sn2", "vgg16_mnist"]
SMALLEST = {"allconv": 9, "densenet40": 4, "nin": 4}

# What each kind of module is called in LAYOUT; the rest (containers, flattening, the check of the input) is left out.
WORDS = {
    nn.Conv2d: "conv",
    nn.Linear: "fc",
    nn.BatchNorm2d: "norm",
    nn.ReLU: "relu",
    nn.Dropout: "drop",
    nn.MaxPool2d: "max",
    nn.AvgPool2d: "avg",
    nn.AdaptiveAvgPool2d: "global",
}
DENSE = "norm relu conv drop " * 12
TRANSITION = "norm relu conv drop avg "
HIDDEN_FC = "fc relu drop "
LAYOUT = {
    # dropout on the input and after each convolution with stride
    "allconv": "drop " + "conv relu " * 3 + "drop " + "conv relu " * 3 + "drop " + "conv relu " * 3 + "global",
    # after every convolution but the first
    "densenet40": f"conv {DENSE}{TRANSITION}{DENSE}{TRANSITION}{DENSE}norm relu global fc",
    "digits": f"conv relu max drop conv relu drop {HIDDEN_FC}fc",
    # after the penultimate layer alone; after every layer but the last
    "lenet": f"conv relu max conv relu max {HIDDEN_FC}fc",
    "lenet_all": f"conv relu drop max conv relu drop max {HIDDEN_FC}fc",
    # after all mlpconv blocks but the last
    "nin": "conv relu " * 3 + "max drop " + "conv relu " * 3 + "avg drop " + "conv relu " * 3 + "global",
    "quick": f"conv relu drop max conv relu drop avg conv relu drop avg {HIDDEN_FC}fc",
    # after each hidden fully connected layer
    "sn1": f"conv relu max {HIDDEN_FC * 2}fc",
    "sn2": "conv relu conv relu max " * 2 + f"{HIDDEN_FC * 2}fc",
    "vgg16_mnist": "conv relu conv relu max " * 2 + "conv relu conv relu conv relu max " * 3 + f"{HIDDEN_FC * 2}fc",
}
RATES = {
    "allconv": [0.2, 0.5, 0.5],
    "densenet40": [0.2] * 38,
    "digits": [0.25] * 3,
    "lenet": [0.5],
    "lenet_all": [0.5] * 3,
    "nin": [0.5] * 2,
    "quick": [0.5] * 4,
    "sn1": [0.5] * 2,
    "sn2": [0.5] * 2,
    "vgg16_mnist": [0.5] * 2,
}

every_model = pytest.mark.parametrize("name", FACTS)


def count(name, **arguments):
    """Number of parameters; nothing is allocated."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(name, **arguments).parameters())


def make(name, width=0.2, **arguments):
    """A narrow network, the same each time."""
    torch.manual_seed(0)
    return build_model(name, width=width, **arguments)


def images(name, num=2, **changes):
    channels, height, width = FACTS[name][0]
    shape = {"channels": channels, "height": height, "width": width} | changes
    return torch.rand(num, *shape.values(), generator=torch.Generator().manual_seed(1))


def split(model):
    """The stages before the first one with dropout, and the rest, as whoever samples the model does it."""
    first = next(k for k, stage in enumerate(model.stages) if dropout_modules(stage))
    return model.stages[:first], model.stages[first:]


# --- names ---------------------------------------------------------------------------------------------------------


def test_the_tables_above_know_every_model():
    assert set(MODELS) == set(FACTS) == set(LAYOUT) == set(RATES) == {*FIXED_SIZE, *SMALLEST}


@every_model
def test_a_name_is_its_functions(name):
    assert MODELS[name].__name__ == name
    assert isinstance(make(name), Staged)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("densenet", "densenet40"), ("LeNet-All", "lenet_all"), ("NIN", "nin"), ("vgg16", "vgg16_mnist")],
)
def test_an_unknown_name_suggests_the_nearest(name, nearest):
    with pytest.raises(
        ValueError, match=f"unknown model '{name}', did you mean '{nearest}'.* allconv, .*, vgg16_mnist"
    ):
        build_model(name)


def test_what_a_model_does_not_take_is_an_error_unless_it_is_none():
    with pytest.raises(ValueError, match="model 'lenet' takes no penultimate"):
        build_model("lenet", penultimate=8)
    assert count("lenet", penultimate=None) == FACTS["lenet"][1]
    assert count("quick", penultimate=None) == FACTS["quick"][1]


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_classes": 0},
        {"num_classes": 2.0},
        {"in_channels": 0},
        {"width": 0},
        {"width": -1.0},
        {"width": math.nan},
        {"width": math.inf},
        {"dropout": 1.5},
        {"penultimate": 0},
    ],
    ids=str,
)
def test_bad_arguments(arguments):
    (argument,) = arguments
    with pytest.raises(ValueError, match=argument):
        build_model("quick", **arguments)


# --- sizes ---------------------------------------------------------------------------------------------------------


@every_model
def test_parameter_count(name):
    assert count(name) == FACTS[name][1]
    assert f"{FACTS[name][1]:,} parameters" in " ".join(inspect.getdoc(MODELS[name]).split())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("densenet40", 1_019_722 + 449 * 90),  # 449 more for each class: 448 channels and a bias
        ("nin", 966_986 + 193 * 90),  # a 1x1 convolution from 192 channels
        ("allconv", 1_369_738 + 193 * 90),
    ],
)
def test_hundred_classes(name, expected):
    assert count(name, num_classes=100) == expected
    assert make(name, num_classes=100).eval()(images(name)).shape == (2, 100)


@pytest.mark.parametrize(
    ("name", "width", "expected"),
    [
        # 16-16-32 maps, 32 units: 76 * 16 + 401 * 16 + 401 * 32 + (32 * 4 * 4 + 1) 32 + 33 * 10
        ("quick", 0.5, 1_216 + 6_416 + 12_832 + 16_416 + 330),
        # 40-100 maps, 1000 units: 26 * 40 + (25 * 40 + 1) 100 + (100 * 4 * 4 + 1) 1000 + 1001 * 10
        ("lenet", 2.0, 1_040 + 100_100 + 1_601_000 + 10_010),
        # stem 8, growth 6: a layer has 2 c + 9 * 6 c for c channels, half as many as above, 56 (984 + 2712 + 4440) / 2;
        # then 27 * 8; 2 c + c^2 for c = 80 and 152; 2 * 224; 225 * 10
        ("densenet40", 0.5, 227_808 + 216 + 6_560 + 23_408 + 448 + 2_250),
        # one channel everywhere: 13 convolutions of which each has 9 + 1, layers 1-1-1-10
        ("vgg16_mnist", 1e-9, 13 * 10 + 2 + 2 + 20),
    ],
)
def test_width_scales_every_hidden_layer(name, width, expected):
    assert count(name, width=width) == expected


@every_model
def test_the_narrowest_network_works(name):
    model = make(name, width=1e-9).eval()
    assert model(images(name)).shape == (2, 10)
    hidden = [layer.weight.shape[0] for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)][:-1]
    if name == "densenet40":  # its transitions keep what the dense layers have gathered: 1 + 12, + 12 more
        assert {size for size in hidden if size > 1} == {13, 25}
    else:
        assert set(hidden) == {1}


@pytest.mark.parametrize(("width", "expected"), [(1.0, 12), (0.5, 6), (0.2, 2), (0.22, 3), (1e-9, 1), (3, 36)])
def test_scaled(width, expected):
    assert scaled(12, width) == expected


@pytest.mark.parametrize(
    ("penultimate", "expected"),
    # 79,328 before it, then 1024 weights and a bias for each of its units, each of which has 10 weights; 10 biases
    [(64, 145_578), (8, 79_328 + 8 * 1035 + 10), (1, 79_328 + 1035 + 10)],
)
def test_penultimate_layer_of_quick(penultimate, expected):
    assert count("quick", penultimate=penultimate) == expected
    small, whole = make("quick", penultimate=penultimate).state_dict(), make("quick").state_dict()
    # a student takes all other layers over from its teacher, under the same names
    differ = {key.rpartition(".")[0] for key in whole if small[key].shape != whole[key].shape}
    layers = [key.rpartition(".")[0] for key in whole if key.endswith("weight")]
    assert small.keys() == whole.keys()
    assert differ == (set() if penultimate == 64 else set(layers[-2:]))


# --- images in, logits out -----------------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("num", [0, 1, 3])
def test_logits_and_forward_is_the_chain_of_stages(name, num):
    model, x = make(name).eval(), images(name, num)
    logits = model(x)
    assert logits.shape == (num, 10)
    assert logits.isfinite().all()
    assert type(model).forward is Staged.forward
    for stage in model.stages:
        before = x.clone()
        out = stage(x)
        assert torch.equal(x, before)  # no stage works in place
        x = out
    assert torch.equal(logits, x)


@every_model
def test_an_empty_batch_trains(name):
    model = make(name).train()
    model(images(name, 0)).sum().backward()
    assert all(parameter.grad.count_nonzero() == 0 for parameter in model.parameters())
    assert all(value.isfinite().all() for value in model.state_dict().values())


@every_model
def test_other_classes_and_channels(name):
    model = make(name, num_classes=7, in_channels=2).eval()
    assert model(images(name, channels=2)).shape == (2, 7)
    assert make(name, num_classes=1).eval()(images(name)).shape == (2, 1)


@every_model
def test_channels_are_checked(name):
    with pytest.raises(ValueError, match=r"must have shape \(N, 5, .*\), got \(2, 4, \d+, \d+\)"):
        make(name, in_channels=5)(images(name, channels=4))
    with pytest.raises(ValueError, match="must have shape"):
        make(name)(images(name)[0])


@pytest.mark.parametrize("name", FIXED_SIZE)
@pytest.mark.parametrize("change", [{"height": 30}, {"width": 30}, {"height": 7, "width": 7}], ids=str)
def test_wrong_size(name, change):
    channels, size, _ = FACTS[name][0]
    x = images(name, **change)
    with pytest.raises(ValueError) as error:
        make(name)(x)
    assert str(error.value) == f"images must have shape (N, {channels}, {size}, {size}), got {tuple(x.shape)}"


@pytest.mark.parametrize("name", SMALLEST)
def test_networks_that_end_in_global_averages_take_larger_images_and_smaller_ones_to_a_limit(name):
    smallest, model = SMALLEST[name], make(name).eval()
    for height, width in [(smallest, smallest), (smallest, smallest + 5), (37, 33)]:
        assert model(images(name, height=height, width=width)).shape == (2, 10)
    with pytest.raises(
        ValueError, match=rf"shape \(N, 3, >= {smallest}, >= {smallest}\), got \(2, 3, 40, {smallest - 1}\)"
    ):
        model(images(name, height=40, width=smallest - 1))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # of the feature maps, after every stage that changes it, until there is one value per channel
        ("allconv", [32, 16, 8, 6]),  # "global averaging over 6x6 spatial dimensions"
        ("densenet40", [32, 16, 8]),
        ("digits", [8, 4]),
        ("lenet", [28, 24, 12, 8, 4]),
        ("nin", [32, 16, 8]),
        ("quick", [32, 16, 8, 4]),
        ("sn1", [32, 16]),
        ("sn2", [32, 16, 8]),
        ("vgg16_mnist", [32, 16, 8, 4, 2, 1]),
    ],
)
def test_feature_map_sizes(name, expected):
    x, sizes = images(name, 1), []
    for stage in make(name).eval().stages:
        if isinstance(stage, nn.AdaptiveAvgPool2d | nn.Flatten):
            break
        x = stage(x)
        assert x.shape[2] == x.shape[3]
        if sizes[-1:] != [x.shape[2]]:
            sizes.append(x.shape[2])
    assert sizes == expected


# --- dropout -------------------------------------------------------------------------------------------------------


@every_model
def test_layout(name):
    model = make(name)
    assert [WORDS[type(module)] for module in model.modules() if type(module) in WORDS] == LAYOUT[name].split()
    others = {type(module).__name__ for module in model.modules() if type(module) not in WORDS}
    assert others <= {"Staged", "Sequential", "InputCheck", "Flatten", "DenseLayer"}


@every_model
def test_rates(name):
    assert [module.p for module in dropout_modules(make(name))] == RATES[name]
    assert [module.p for module in dropout_modules(make(name, dropout=0.3))] == [0.3] * len(RATES[name])
    assert [module.p for module in dropout_modules(make(name, dropout=0.0))] == [0.0] * len(RATES[name])


@every_model
def test_without_dropout_training_and_evaluation_agree(name):
    model, x = make(name, dropout=0.0), images(name)
    logits = model.eval()(x)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert torch.equal(model(x), logits)


@every_model
def test_with_dropout_passes_differ(name):
    model, x = make(name, width=0.5), images(name)
    for module in dropout_modules(model.eval()):
        module.train()
    assert not torch.equal(model(x), model(x))


@every_model
def test_the_shared_prefix_can_be_run_once(name):
    model, x = make(name).eval(), images(name)
    prefix, rest = split(model)
    prefix.eval()
    rest.eval()
    features = prefix(x)
    before = features.clone()
    assert torch.equal(rest(features), model(x))
    assert torch.equal(features, before)  # the second pass starts from the same
    rest.train()(features)
    assert torch.equal(features, before)


@pytest.mark.parametrize("name", ["vgg16_mnist", "sn2", "sn1", "lenet"])
def test_all_convolutions_are_in_the_shared_prefix(name):
    _, rest = split(make(name))
    assert not any(isinstance(module, nn.Conv2d) for module in rest.modules())


# --- against the obvious -------------------------------------------------------------------------------------------


def obvious_densenet40(model, x):
    """DenseNet-40 from its description: every layer reads everything before it in its block. Evaluation mode."""
    values = iter(model.state_dict().values())

    def norm_relu(x):
        weight, bias, mean, variance, _ = (next(values)[..., None, None] for _ in range(5))
        return ((x - mean) / (variance + 1e-5).sqrt() * weight + bias).clamp(min=0)

    x = F.conv2d(x, next(values), padding=1)
    for block in range(3):
        if block > 0:
            x = F.conv2d(norm_relu(x), next(values))
            x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))
        outputs = [x]
        for _ in range(12):
            outputs.append(F.conv2d(norm_relu(torch.cat(outputs, 1)), next(values), padding=1))
        x = torch.cat(outputs, 1)
    x = norm_relu(x).mean((2, 3))
    return x @ next(values).T + next(values)


def test_densenet40_computes_what_its_paper_describes():
    model, x = make("densenet40").double().eval(), images("densenet40").double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                nn.init.uniform_(values, 0.5, 2)
            for values in (module.bias, module.running_mean):
                nn.init.normal_(values)
    with torch.no_grad():
        torch.testing.assert_close(model(x), obvious_densenet40(model, x))


def test_a_dense_layer_passes_its_input_on_untouched():
    layer = next(stage for stage in make("densenet40", dropout=0.9).stages if isinstance(stage, DenseLayer))
    x = torch.randn(2, layer[0].num_features, 5, 5)
    out = layer.train()(x)
    assert torch.equal(out[:, : x.shape[1]], x)
    assert 0.7 < (out[:, x.shape[1] :] == 0).float().mean() < 1


def test_pooling_windows():
    windows = {
        name: [m.kernel_size for m in make(name).stages if isinstance(m, nn.MaxPool2d | nn.AvgPool2d)] for name in FACTS
    }
    overlapping = {"nin": [3, 3], "quick": [3, 3, 3]}
    assert windows == {name: overlapping.get(name, [2] * len(found)) for name, found in windows.items()}


# --- weights -------------------------------------------------------------------------------------------------------


@every_model
def test_a_seed_decides_the_weights(name):
    first, second = make(name).state_dict(), make(name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    torch.manual_seed(1)
    other = build_model(name, width=0.2).state_dict()
    weights = [key for key, value in first.items() if key.endswith("weight") and value.dim() > 1]
    assert not any(torch.equal(first[key], other[key]) for key in weights)


@every_model
def test_weights_start_as_he_et_al_have_it(name):
    for layer in make(name, width=0.5).modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        weight = layer.weight.detach()
        fan_out = name == "densenet40" and isinstance(layer, nn.Conv2d)
        fan = weight.shape[0] * weight[0, 0].numel() if fan_out else weight[0].numel()
        # the error of an estimated standard deviation is 1 / sqrt(2 n) of it
        assert abs(weight.std() * (fan / 2) ** 0.5 - 1) < 5 / (2 * weight.numel()) ** 0.5
        assert layer.bias is None or layer.bias.count_nonzero() == 0


@every_model
def test_every_parameter_gets_a_finite_gradient(name):
    model = make(name, width=0.5).train()
    F.cross_entropy(model(images(name, 4)), torch.arange(4)).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.count_nonzero() > 0, key


def test_the_check_of_images_has_no_state():
    assert not InputCheck(3, 32).state_dict()
    assert str(InputCheck(3, 32)) == "InputCheck(3, 32, 32)"
    assert str(InputCheck(3, 4, or_larger=True)) == "InputCheck(3, >= 4, >= 4)"
