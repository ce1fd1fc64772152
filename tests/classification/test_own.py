"""Networks of one's own, by import path: found, checked for what is required, trained, and known again."""

import sys

import pytest
import torch
from experiments import SCHEDULE, command, tree, write_config
from torch import nn

from classification.experiment import check_dropout
from classification.models import build_model
from classification.models.own import build_own, check_own
from classification.sampling import mc_outputs
from uncertainty_core import derive_seed, mc_dropout

NETS = """
from torch import nn

class MyNet(nn.Module):
    def __init__(self, num_classes, in_channels, units=8, rate=0.5, softmax=False):
        super().__init__()
        self.hidden = nn.Linear(in_channels * 64, units)
        self.drop, self.last = nn.Dropout(rate), nn.Linear(units, num_classes)
        self.softmax = softmax

    def forward(self, images):
        logits = self.last(self.drop(self.hidden(images.flatten(1)).relu()).relu())
        return logits.softmax(1) if self.softmax else logits

class Grey(MyNet):
    def __init__(self, num_classes):
        super().__init__(num_classes, 1)

class TwoOutputs(MyNet):
    def forward(self, images):
        return super().forward(images), images

def make(num_classes):
    return MyNet(num_classes, 1)
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """The current folder holds the package `own_package` with the file nets.py above; its path."""
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nets.py").write_text(NETS)
    (package / "broken.py").write_text("import nothing_of_that_name")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield package / "nets.py"
    for name in [name for name in sys.modules if name.startswith("own_package")]:
        del sys.modules[name]


def model(name="MyNet", **options):
    return {"name": f"own_package.nets:{name}", "options": options}


def own_config(folder, teacher=None, **sections):
    run = {"model": teacher or model(), "training": SCHEDULE}
    students = {"DDN": run | {"method": {"name": "ddn", "mc_samples": 2}}, "distilled": run | {"method": "kd"}}
    return write_config(
        folder, teacher=run, students=students, evaluation={"mc_samples": [2], "mc_students": 2}, **sections
    )


def test_a_whole_experiment_with_own_networks(nets, tmp_path):
    config = own_config(tmp_path, teacher=model(units=12), data={"name": "digits", "limit": 50})
    done = command("run", "--config", config)
    assert done.code == 0, done.err
    page = (tmp_path / "out/tiny/report.html").read_text()
    assert "own_package.nets:MyNet, units 12" in page
    # parameters: (64 + 1) 12 + (12 + 1) 10
    assert ">910<" in page
    # another class under the same name is another network
    nets.write_text(NETS.replace("relu()).relu()", "relu()).tanh()"))
    del sys.modules["own_package.nets"]
    refused = command("run", "--config", config)
    assert refused.code == 2
    assert "teacher/seed-0 holds the work of other settings: model.source (there " in refused.err


def test_arguments_go_where_they_are_taken(nets):
    assert build_model("own_package.nets:Grey", 3, in_channels=1).last.out_features == 3
    network = build_model("own_package.nets:MyNet", 4, in_channels=2, units=5, dropout=None)
    assert (network.hidden.in_features, network.last.in_features) == (128, 5)


def test_a_network_without_stages_is_sampled_whole(nets):
    torch.manual_seed(0)
    network = build_model("own_package.nets:MyNet", 3, in_channels=1).eval()
    images = torch.rand(5, 1, 8, 8)
    passes = []
    for draw in range(3):
        with torch.no_grad(), mc_dropout(network, seeds=[derive_seed(4, key, draw) for key in range(5)]):
            passes.append(network(images))
    torch.testing.assert_close(mc_outputs(network, images, 3, seed=4), torch.stack(passes).mean(0))
    assert not network.training


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("own_package.nets:MyNt", "nets.py MyNt is not there; did you mean MyNet?"),
        ("own_package.nets:make", "make is no class of torch.nn.Module"),
        ("own_package.net:MyNet", "there is no module net in own_package; did you mean nets?"),
        ("own_pakage.nets:MyNet", "and is not installed; did you mean own_package?"),
        ("own_package.broken:MyNet", "module own_package.broken cannot be imported: ModuleNotFoundError"),
        ("own_package/nets.py:MyNet", "is no import path: write package.module:Class"),
        ("os:system", "system is no class of torch.nn.Module"),  # a configuration calls nothing else
    ],
)
def test_a_network_that_is_not_there_is_refused(nets, tmp_path, path, words):
    before = tree(tmp_path)
    done = command("train", "--config", own_config(tmp_path, teacher={"name": path}))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert words in done.err
    assert {name for name in tree(tmp_path) if "__pycache__" not in name} == before.keys() | {"tiny.yaml"}


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("MyNet", {"unit": 5}, "takes no unit; did you mean units?"),
        ("MyNet", {"units": -1}, "cannot be built with num_classes=3, in_channels=1, units=-1: RuntimeError"),
        ("TwoOutputs", {}, "must return logits (2, 3) for 2 images (N, 1, 8, 8), not a tuple"),
        ("MyNet", {"softmax": True}, "returns probabilities: leave out its softmax"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(nets, name, options, words):
    path = f"own_package.nets:{name}"
    with pytest.raises(ValueError) as caught:
        network = build_own(path, {"num_classes": 3, "in_channels": 1, **options})
        check_own(path, network, torch.rand(2, 1, 8, 8), 3)
    assert words in str(caught.value)


def test_other_outputs_and_images_are_refused(nets):
    network = build_model("own_package.nets:MyNet", 3, in_channels=1)
    with pytest.raises(ValueError, match=r"must return logits \(2, 5\) for 2 images \(N, 1, 8, 8\), not \(2, 3\)"):
        check_own("x:Y", network, torch.rand(2, 1, 8, 8), 5)
    with pytest.raises(ValueError, match=r"fails on images \(N, 1, 9, 9\): RuntimeError: mat1 and mat2"):
        check_own("x:Y", network, torch.rand(2, 1, 9, 9), 3)
    assert network.training  # as a new network is


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["teacher.model.options={rate: 0}"],
            "teacher.model drops nothing, its rate being 0, and evaluation.mc_samples",
        ),
        (["teacher.model.options={rate: 0}", "evaluation.mc_samples=[]"], "and students.DDN.method needs Monte-Carlo"),
        (["students.distilled.model.options={rate: 0}"], "and evaluation.mc_students needs Monte-Carlo dropout"),
        (["teacher.model.options={num_classes: 3}"], "teacher.model.options.num_classes is not to be set"),
        (["teacher.model.options={dropout: 3}"], "teacher.model.options.dropout is a key of its own"),
    ],
)
def test_dropout_is_there_where_it_is_needed(nets, tmp_path, overrides, words):
    done = command("train", "--config", own_config(tmp_path), *overrides)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert words in done.err
    assert not (tmp_path / "out").exists()


def test_a_network_without_dropout_is_named():
    with pytest.raises(ValueError, match=r"has no nn\.Dropout, and x needs Monte-Carlo dropout of it: add one"):
        check_dropout("teacher.model", nn.Linear(1, 1), "x")


def test_dropout_that_takes_no_seeds_is_refused(nets, tmp_path):
    nets.write_text(NETS.replace("nn.Dropout(", "nn.AlphaDropout("))
    done = command("train", "--config", own_config(tmp_path))
    assert (done.code, done.out) == (2, "")
    assert "teacher.model 'own_package.nets:MyNet' cannot be trained repeatably: seeds work with" in done.err
