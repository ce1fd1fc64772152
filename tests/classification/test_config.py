"""Configurations: what is read from YAML and overrides, and one sentence for each way to get it wrong."""

import re
from pathlib import Path

import pytest
import torch
from experiments import command

from classification.config import Config, ConfigError, Training, load_config
from classification.data import to_float
from classification.engine import learning_rate
from classification.experiment import Experiment
from classification.methods import DDN, KD, METHODS, DropoutDistillation, Standard
from classification.models import MODELS, build_model
from uncertainty_core.roles import short_names, student_name

SHIPPED = sorted((Path(__file__).parents[2] / "configs" / "classification").glob("**/*.yaml"))
TWO_RUNS = """
teacher:
  training: &schedule {epochs: 5, lr: 0.1}
students:
  A: {training: *schedule, method: {name: ddn, mc_samples: 7}}
  B: {training: *schedule}
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="my_experiment.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def refusal(path, overrides=()):
    with pytest.raises(ConfigError) as caught:
        load_config(path, list(overrides))
    message = str(caught.value)
    assert "\n" not in message
    assert message
    return message


# --- shipped


def test_there_are_shipped_configs():
    assert len(SHIPPED) > 10


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_shipped_config_loads_and_can_be_run(path):
    config = load_config(path)
    assert config.name == path.stem
    assert config.students
    classes = 100 if config.data.name == "cifar100" else 10
    for run in (config.teacher, *config.students.values()):
        model = run.model
        build_model(model.name, classes, width=model.width, dropout=model.dropout, penultimate=model.penultimate)
        assert all(milestone < run.training.epochs for milestone in run.training.milestones)
    rows = {"baseline", *config.students, *(f"MC-{m}" for m in config.evaluation.mc_samples)}
    assert config.paper_rows.keys() <= rows  # else the report would have nowhere to put the paper's values


PAPERS = [path for path in SHIPPED if path.parent.name != "quick"]


@pytest.mark.parametrize("paper", PAPERS, ids=lambda path: path.stem)
def test_every_config_of_a_paper_has_a_quick_twin(paper):
    path = paper.parent / "quick" / paper.name
    config, twin = load_config(paper), load_config(path)
    assert twin.data.name == "digits"
    assert twin.folder != config.folder  # it must not replace what took days
    assert twin.teacher.model.name == config.teacher.model.name
    assert twin.paper is None  # whose values are of other images
    if paper.stem != "dd_quick_compress":  # which has two points of each line
        assert list(twin.students) == list(config.students)
        for student, run in twin.students.items():
            assert run.model.name == config.students[student].model.name
            assert type(run.method) is type(config.students[student].method)
    assert {type(run.method) for run in twin.students.values()} == {type(r.method) for r in config.students.values()}
    assert re.search(r"^# Expected, seed 0, .* s\b", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", [path for path in SHIPPED if path.parent.name == "quick"], ids=lambda path: path.stem)
def test_quick_networks_take_the_images(path):
    experiment = Experiment(load_config(path, ["data.limit=4"]), torch.device("cpu"))
    for run in (experiment.config.teacher, *experiment.config.students.values()):
        logits = experiment.build(run).eval()(to_float(experiment.train_set.images, *experiment.statistics))
        assert logits.shape == (4, 10)


@pytest.mark.parametrize("name", ["dd_lenet_all_mnist", "kd_vgg_mnist"])
def test_quick_configs_run_from_end_to_end(name, tmp_path):
    path = next(path for path in SHIPPED if path.parent.name == "quick" and path.stem == name)
    config = load_config(path)
    overrides = [f"output={tmp_path}", "data.limit=32", "evaluation.mc_samples=2", "evaluation.repetitions=1"]
    overrides += [f"evaluation.mc_students={2 if config.evaluation.mc_students else 0}"]
    for run in ("teacher", *(f"students.{student}" for student in config.students)):
        overrides += [f"{run}.training.epochs=1", f"{run}.training.milestones=[]", f"{run}.model.width=0.1"]
    outcome = command("run", "--config", path, *overrides)
    assert outcome.code == 0, outcome.err
    students = short_names(student_name(student) for student in config.students)
    for row in ("baseline", "MC-2", *students.values()):
        assert re.search(rf"^\| {re.escape(row)} +\| [12] +\| \d+\.\d\d +\| 0\.\d{{4}} ", outcome.out, re.MULTILINE)
    assert (tmp_path / name / "report.html").stat().st_size > 10_000


def test_dropout_distillation_continues_at_the_last_rate():
    # the paper: 20 epochs at the baseline's last rate, 10 at a tenth of it
    for path in SHIPPED:
        if not path.stem.startswith("dd_") or path.parent.name == "quick":
            continue
        config = load_config(path)
        last = learning_rate(config.teacher.training, config.teacher.training.epochs - 1)
        for run in config.students.values():
            if isinstance(run.method, DropoutDistillation):
                rates = [learning_rate(run.training, epoch) for epoch in range(run.training.epochs)]
                assert rates == pytest.approx([last] * 20 + [last / 10] * 10), path.stem


# --- what is read


def test_an_empty_file_gives_the_defaults(write):
    assert load_config(write("")) == Config(name="my_experiment")


def test_name_is_the_stem_unless_given(write):
    assert load_config(write("")).name == "my_experiment"
    assert load_config(write("name: other")).folder == Path("output/other")


@pytest.mark.parametrize("written", ["1e-3", "1.0e-3", "1E-03", "0.001", "+1.e-3"])
def test_a_rate_is_a_number_however_it_is_written(write, written):
    path = write(f"teacher: {{training: {{lr: {written}}}}}")
    assert load_config(path).teacher.training.lr == 0.001
    assert load_config(path, [f"teacher.training.lr={written}"]).teacher.training.lr == 0.001


def test_whole_numbers_do_for_fractions(write):
    width = load_config(write("teacher: {model: {width: 2}}")).teacher.model.width
    assert isinstance(width, float)
    assert width == 2


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_a_name_or_a_record(write, name):
    short = load_config(write(f"students: {{A: {{method: {name}}}}}"))
    long = load_config(write(f"students: {{A: {{method: {{name: {name}}}}}}}"))
    assert short.students["A"].method == long.students["A"].method == METHODS[name]()


def test_everything_is_read(write):
    config = load_config(
        write("""
data: {name: "folder:x", limit: 5, flip: true, bad_images: skip, image_size: null}
teacher: {model: {name: quick, dropout: 0.1, penultimate: 8}, seeds: [3, 4]}
students:
  A: {method: {name: kd, temperature: 2, alpha: 0.25}, training: {optimizer: adam, milestones: [1, 2]}, seeds: 7}
evaluation: {ood: digits, corruptions: [noise, blur], edges: left}
paper: KD/MNIST
""")
    )
    student = config.students["A"]
    assert student.method == KD(temperature=2.0, alpha=0.25)
    assert student.training == Training(optimizer="adam", milestones=(1, 2))
    assert student.seeds == (7,)
    assert config.teacher.method == Standard()
    assert config.teacher.seeds == (3, 4)
    assert config.data.image_size is None
    assert config.evaluation.ood == ("digits",)
    assert config.paper_rows["KD-SN1"].metrics["ece"] == 0.0064


# --- upon a base


def test_a_file_changes_what_its_base_says(write, tmp_path):
    (tmp_path / "deeper").mkdir()
    write(TWO_RUNS + "data: {name: mnist, limit: 7}\nevaluation: {mc_samples: [3, 4]}", "first.yaml")
    write("base: first.yaml\nteacher: {training: {lr: 0.5}}", "second.yaml")
    path = write(
        """
base: ../second.yaml
data: {limit: null, image_size: 28}
teacher: {training: {epochs: 2}}
students: {A: {method: {mc_samples: 9}}, B: null, C: {method: kd}}
evaluation: {mc_samples: [5]}
""",
        "deeper/third.yaml",
    )
    config = load_config(path, ["teacher.training.momentum=0.5"])
    assert config.name == "third"
    assert (config.data.name, config.data.limit, config.data.image_size) == ("mnist", None, 28)
    assert config.teacher.training == Training(epochs=2, lr=0.5, momentum=0.5)  # from all three, and an override
    assert list(config.students) == ["A", "C"]
    assert config.students["A"].training == Training(epochs=5, lr=0.1)  # an anchor of the base is not changed with it
    assert config.students["A"].method == DDN(mc_samples=9)
    assert config.evaluation.mc_samples == (5,)  # lists are replaced


def test_an_experiment_is_called_as_its_own_file(write):
    write("name: other", "base.yaml")
    assert load_config(write("base: base.yaml")).name == "my_experiment"
    assert load_config(write("{base: base.yaml, name: mine}")).name == "mine"


def test_a_base_may_be_a_name(write, tmp_path):
    heir = write("base: quick/digits.yaml\nname: digits")
    assert load_config(heir) == load_config(next(path for path in SHIPPED if path.match("quick/digits.yaml")))
    (tmp_path / "quick").mkdir()
    write("data: {limit: 3}", "quick/digits.yaml")
    assert load_config(heir).data.limit == 3  # a file of one's own comes first


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base: nowhere.yaml", ["nowhere.yaml cannot be read"]),
        ("base: my_experiment.yaml", ["my_experiment.yaml is a base of itself"]),
        ("base: heir.yaml", ["heir.yaml is a base of itself, through base: my_experiment.yaml"]),
        ("base: 3", ["base of", "my_experiment.yaml must be the name of a file, got 3"]),
        ("base: list.yaml", ["list.yaml must hold keys and values"]),
        ("base: wrong.yaml", ["there is no key techer", "teacher"]),
    ],
)
def test_a_base_that_cannot_be_is_named(write, text, words):
    write("base: my_experiment.yaml", "heir.yaml")
    write("- 1", "list.yaml")
    write("techer: {}", "wrong.yaml")
    message = refusal(write(text))
    for word in words:
        assert word in message


# --- overrides


def test_an_override_changes_one_value(write):
    path = write(TWO_RUNS)
    config = load_config(path, ["students.A.method.mc_samples=3", "evaluation.mc_samples=[1, 2]", "data.limit=9"])
    assert config.students["A"].method == DDN(mc_samples=3)
    assert config.evaluation.mc_samples == (1, 2)
    assert config.data.limit == 9


def test_an_override_does_not_reach_through_an_anchor(write):
    # the three schedules are one object to YAML
    config = load_config(write(TWO_RUNS), ["students.A.training.epochs=1"])
    assert (config.teacher.training.epochs, config.students["B"].training.epochs) == (5, 5)
    assert config.students["A"].training == Training(epochs=1, lr=0.1)


def test_an_override_makes_what_is_not_there(write):
    config = load_config(write("evaluation:"), ["evaluation.num_bins=5", "students.new.method=kd", "output=a=b"])
    assert config.evaluation.num_bins == 5
    assert config.students["new"].method == KD()
    assert config.output == "a=b"


def test_the_last_override_wins(write):
    assert load_config(write(""), ["data.limit=1", "data.limit=null"]).data.limit is None


# --- refusals


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("techer: {}", ["techer", "teacher"]),
        ("teacher: {trainin: {}}", ["teacher.trainin", "did you mean training"]),
        ("students: {A: {training: {epoch: 3}}}", ["students.A.training.epoch", "did you mean epochs"]),
        ("data: {zzz: 1}", ["data.zzz", "known are", "image_size"]),
        ("students: {A: {method: {name: ddn, mc_sample: 3}}}", ["students.A.method.mc_sample", "mc_samples"]),
        ("students: {A: {method: {name: kd, dd_weight: 3}}}", ["students.A.method.dd_weight", "temperature"]),
        ("students: {A: {method: dnd}}", ["students.A.method", "'dnd'", "did you mean ddn"]),
        ("students: {A: {method: }}", ["students.A.method", "ddn"]),
        ("students: {A: {method: {mc_samples: 3}}}", ["students.A.method", "name a method", "kd"]),
        ("students: {A: {method: 3}}", ["students.A.method", "3"]),
        ("students: {A: {method: [ddn]}}", ["students.A.method", "['ddn']"]),
        ("students: {A: {method: {name: [ddn]}}}", ["students.A.method", "['ddn']"]),
        ("teacher: {training: {epochs: many}}", ["teacher.training.epochs", "a whole number", "'many'"]),
        ("teacher: {training: {lr: '0.1'}}", ["teacher.training.lr", "a number", "'0.1'"]),
        ("teacher: {training: {epochs: 1.5}}", ["teacher.training.epochs", "a whole number", "1.5"]),
        ("teacher: {training: {epochs: true}}", ["teacher.training.epochs", "a whole number", "True"]),
        ("teacher: {training: {lr: fast}}", ["teacher.training.lr", "a number", "'fast'"]),
        ("teacher: {training: {lr: true}}", ["teacher.training.lr", "a number"]),
        ("teacher: {training: {lr: }}", ["teacher.training.lr", "a number", "None"]),
        ("teacher: {training: {milestones: [1, x]}}", ["teacher.training.milestones[1]", "a whole number", "'x'"]),
        ("teacher: {training: {optimizer: sdg}}", ["teacher.training.optimizer", "sgd, adam", "'sdg'"]),
        ("teacher: {training: 3}", ["teacher.training", "keys and values", "3"]),
        ("data: {flip: 1}", ["data.flip", "true or false", "1"]),
        ("data: {name: 3}", ["data.name", "a word", "3"]),
        ("data: {image_size: big}", ["data.image_size", "a whole number", "'big'"]),
        ("data: {bad_images: ignore}", ["data.bad_images", "stop, skip", "'ignore'"]),
        ("evaluation: {corruptions: [fog]}", ["evaluation.corruptions[0]", "noise", "'fog'"]),
        ("students: [A]", ["students", "keys and values"]),
        ("paper: {A: {ece: low}}", ["paper", "a word"]),
        ("paper: KD/minst", ["paper: no paper has a table 'KD/minst'", "KD/MNIST"]),
        ("- 1", ["my_experiment.yaml", "keys and values", "list"]),
        ("a: [", ["my_experiment.yaml", "not YAML"]),
        ("a: !!python/object:os.system {}", ["my_experiment.yaml", "wants to run code"]),
        (b"\xff\xfe\x00a", ["my_experiment.yaml", "not YAML"]),
    ],
)
def test_a_mistake_is_named_in_one_sentence(write, text, words):
    message = refusal(write(text))
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("teacher", ["'teacher'", "key=value"]),
        ("data.name.x=1", ["data.name.x", "goes through name"]),
        ("data.limit=[1", ["data.limit", "not YAML", "'[1'"]),
        ("data.limt=1", ["data.limt", "did you mean limit"]),
        ("students.A.trainin.epochs=1", ["students.A.trainin", "did you mean training"]),
        ("=3", ["no key"]),
    ],
)
def test_a_malformed_override_is_named(write, override, words):
    message = refusal(write("data: {name: digits}"), [override])
    for word in words:
        assert word in message


def test_an_ensemble_has_members(write):
    assert load_config(write(TWO_RUNS), ["teacher.ensemble=true", "teacher.seeds=[0, 1]"]).teacher.ensemble
    message = refusal(write(TWO_RUNS), ["teacher.ensemble=true", "teacher.seeds=[0]"])
    assert message == "teacher.ensemble needs two seeds or more, for example seeds=[0,1,2], got [0]"


@pytest.mark.parametrize(
    "override",
    [
        "teacher.seeds=[]",
        "teacher.training.batch_size=0",
        "teacher.training.epochs=0",
        "students.A.method.mc_samples=0",
        "evaluation.mc_samples=[10, 0]",
        "evaluation.num_bins=0",
        "data.limit=0",
    ],
)
def test_nothing_to_do_is_refused(write, override):
    assert refusal(write(TWO_RUNS), [override]).startswith(f"{override.split('=')[0]} must ")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["teacher.training.nesterov=true", "teacher.training.momentum=0"],
            "teacher.training.nesterov needs a momentum",
        ),
        (["teacher.training.lr=-0.1"], "teacher.training.lr must not be negative, got -0.1"),
        (["teacher.training.weight_decay=.nan"], "teacher.training.weight_decay must not be negative, got nan"),
        (["data.flip=true"], "students.A.method.from_store needs the same images in every epoch"),
        (["data.crop_padding=1"], "students.A.method.from_store needs the same images in every epoch"),
        (["teacher.method=kd"], "teacher.method must be standard"),
        (["students.B.method={name: kd, temperature: 0}"], "students.B.method.temperature must be positive"),
        (["students.B.method={name: kd, alpha: 1.5}"], "students.B.method.alpha must lie in [0, 1], got 1.5"),
        (["students.A.method.average=median"], "students.A.method.average must be one of logits, probs"),
        (["evaluation.precision=float16"], "evaluation.precision must be one of float32, bfloat16"),
    ],
)
def test_what_does_not_go_together_is_refused(write, overrides, words):
    assert refusal(write(TWO_RUNS), overrides).startswith(words)


def test_what_goes_together_is_not_refused(write):
    load_config(write(TWO_RUNS), ["data.flip=true", "students.A.method.from_store=false"])
    load_config(write(TWO_RUNS), ["teacher.training={nesterov: true, momentum: 0, optimizer: adam}"])


def test_a_missing_file_is_named(tmp_path):
    assert "nowhere.yaml cannot be read: No such file" in refusal(tmp_path / "nowhere.yaml")
    assert "Is a directory" in refusal(tmp_path)


def test_models_of_configs_are_registered():
    assert {run.model.name for path in SHIPPED for run in load_config(path).students.values()} <= MODELS.keys()
