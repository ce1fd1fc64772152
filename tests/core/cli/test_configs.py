"""Configs and command lines that are refused before any framework is imported."""

import sys

import pytest

from uncertainty_core.cli.configs import CONFIGS, check_config, find_config, package_folder, read_yaml
from uncertainty_core.cli.flags import check_detector_arguments, detector_parser
from uncertainty_core.errors import UserError

SHIPPED = {"ddn": "ddn_R50.yaml", "dudes": "quick/streets_student.py", "classification": "quick/digits.yaml"}


@pytest.mark.parametrize("kind", SHIPPED)
def test_a_shipped_config_by_name_and_every_other_kind_refused(kind):
    path = find_config(SHIPPED[kind], kind)
    assert path == CONFIGS / kind / SHIPPED[kind] == find_config(path, kind)
    assert find_config(SHIPPED[kind].rpartition(".")[0], kind) == path
    check_config(path, kind)
    for other in SHIPPED.keys() - {kind}:
        with pytest.raises(UserError, match=f"{path.name} is .* takes? it"):
            check_config(path, other)


def test_every_shipped_config_is_of_its_kind():
    for kind in SHIPPED:
        for path in (CONFIGS / kind).rglob("*.*"):
            if path.suffix in (".py", ".yaml") and not (kind == "dudes" and "_base_" in path.parts):
                check_config(path, kind)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match=r"^config 'nope' is neither a file, nor one of baseline_R101.yaml, .*ddn_R50"):
        find_config("nope", "ddn")


def test_packages_are_found_without_importing_them():
    assert package_folder("xml").name == "xml" and package_folder("no_such_package") is None
    assert package_folder("antigravity") is None and "antigravity" not in sys.modules  # a module, not a folder


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            "MODEL: {WEIGHTS: !!python/object/apply:os.system ['exit 1']}",
            "wants to run code, which no config may unasked",
        ),
        ("MODEL: [1, 2", "is not YAML: .*line 1"),
        ("- MODEL", "must hold keys and values, not a list"),
        ("_BASE_: gone.yaml", "No such file"),
        ("_BASE_: it.yaml", "is a base of itself, through _BASE_: it.yaml"),
        ("_BASE_: [ok.yaml, 'http://127.0.0.1:9/a.yaml']", "is built on http.*, which would be downloaded: get it"),
        ("data: {name: digits}", "is an experiment with classifiers"),
    ],
)
def test_damaged_configs(tmp_path, content, sentence):
    path = tmp_path / "it.yaml"
    path.write_text(content)
    (tmp_path / "ok.yaml").write_text("VERSION: 2")
    with pytest.raises((UserError, OSError), match=sentence):
        check_config(path, "ddn")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("model = dict(\n", r"it.py, line 1, is not Python: "),
        ("import torch\nlr = 1\n", "it.py is no config of a segmentor: it sets neither model nor _base_"),
        ("_base_ = ['gone.py']\n", "it.py is built on .*gone.py, which is no file"),
        ("_base_ = './it.py'\n", r"is a base of itself, through _base_ = './it.py'"),
        ("_base_ = 'bad.py'\n", r"bad.py, line 1, is not Python"),
    ],
)
def test_damaged_python_configs(tmp_path, content, sentence):
    (tmp_path / "bad.py").write_text("model =")
    (tmp_path / "it.py").write_text(content)
    with pytest.raises(UserError, match=sentence):
        check_config(tmp_path / "it.py", "dudes")


@pytest.mark.parametrize(
    "content",
    [
        "_base_ = ['mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py']\n",
        "folder = '.'\n_base_ = folder + '/gone.py'\n",  # mmengine's to refuse
        "from mmengine.config import read_base\nwith read_base():\n    from .other import *\n",
    ],
)
def test_python_configs_that_mmengine_reads(tmp_path, content):
    (tmp_path / "it.py").write_text(content)
    check_config(tmp_path / "it.py", "dudes")


def test_a_lazy_config_is_for_those_that_take_it(tmp_path):
    path = tmp_path / "lazy.py"
    path.write_text("from detectron2.config import LazyCall as L\n")
    with pytest.raises(UserError, match="LazyConfig"):
        check_config(path, "ddn")
    check_config(path, "lazy")
    path.write_text("_base_ = './fcn.py'\n")
    with pytest.raises(UserError, match="is a config of mmsegmentation"):
        check_config(path, "lazy")


@pytest.fixture
def annotations(tmp_path):
    (tmp_path / "good.json").write_text("{}")
    (tmp_path / "bad.json").write_text('{"images": [')
    return tmp_path


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--val-json {}/good.json", "--val-json and --val-images go together"),
        ("--val-json {}/bad.json --val-images {}", "bad.json is not JSON"),
        ("--val-json {}/gone.json --val-images {}", "No such file"),
        ("--val-json {}/good.json --val-images {}/no", "there is no folder .*/no"),
        ("MODEL.WEIGHTS x --ddn y", "--ddn must stand before the values of the config, which begin with MODEL.WEIGHTS"),
        ("MODEL.WEIGHTS", "must come in pairs KEY VALUE, got MODEL.WEIGHTS"),
    ],
)
def test_damaged_command_lines_of_detectors(annotations, words, sentence):
    words = words.replace("{}", str(annotations)).split()
    args = detector_parser("").parse_args(["--config-file", "ddn_R50.yaml", *words])
    with pytest.raises((UserError, OSError), match=sentence):
        check_detector_arguments(args)


def test_further_configs_are_checked(annotations):
    args = detector_parser("").parse_args(["--config-file", "ddn_R50.yaml", "SEED", "1"])
    check_detector_arguments(args, "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml")
    with pytest.raises(UserError, match="config 'nope' is neither a file, nor in the model zoo"):
        check_detector_arguments(args, "nope")


BOMB = "a: &a [0,0,0,0,0,0,0,0,0,0]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcde", "bcdef", strict=True)
)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("x: 1\nx: 2\n", "x is there twice"),
        ("x: 2020-99-99\n", "is not YAML: month must be in 1..12"),
        ("x: " + "[" * 101 + "]" * 101, "nested too deeply"),
        ("- " * 1000, "nested too deeply"),
        ("x: &x [*x]\n", "an alias stands for what it is in"),
        (BOMB, "its aliases stand for more than 100,000 values"),
        ("? [a]\n: 1\n", "unhashable key"),
        ("x: !!python/object/apply:os.system [touch ran]\n", "wants to run code, which no config may"),
    ],
)
def test_yaml_is_small_data_of_one_meaning(content, sentence, tmp_path):
    path = tmp_path / "odd.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=sentence) as refusal:
        read_yaml(path)
    assert "\n" not in str(refusal.value)
    assert ("run code" in str(refusal.value)) is ("python" in content)
