"""Configurations: what is read from YAML and overrides, and one sentence for each way to get it wrong."""

from pathlib import Path

import pytest

from classification.config import Config, ConfigError, Training, load_config
from classification.engine import learning_rate
from classification.methods import DDN, KD, METHODS, DropoutDistillation, Standard
from classification.models import MODELS, build_model

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
        # cached targets belong to images that are the same in every epoch
        assert not (run.method.from_store and (config.data.flip or config.data.crop_padding))
    rows = {"baseline", *config.students, *(f"MC-{m}" for m in config.evaluation.mc_samples)}
    assert config.paper.keys() <= rows  # else the report would have nowhere to put the paper's values


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


@pytest.mark.parametrize("written", ["1e-3", "1.0e-3", "0.001", "'0.001'"])
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
paper: {A: {ece: 1e-2}}
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
    assert config.paper == {"A": {"ece": 0.01}}


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
        ("paper: {A: {ece: low}}", ["paper.A.ece", "a number", "'low'"]),
        ("- 1", ["my_experiment.yaml", "keys and values", "list"]),
        ("a: [", ["my_experiment.yaml", "not YAML"]),
        ("a: !!python/object:os.system {}", ["my_experiment.yaml", "not YAML"]),
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


def test_a_missing_file_is_named(tmp_path):
    assert "nowhere.yaml cannot be read: No such file" in refusal(tmp_path / "nowhere.yaml")
    assert "Is a directory" in refusal(tmp_path)


def test_models_of_configs_are_registered():
    assert {run.model.name for path in SHIPPED for run in load_config(path).students.values()} <= MODELS.keys()
