"""The wheel holds all that a user needs, and works where there is no checkout."""

import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"uncertainty_core", "ddn_detectron2", "dudes_mmseg", "classification"}


def build(kind, source, folder):
    """The wheel (`bdist_wheel`) or source distribution (`sdist`) of a checkout, all by-products in `folder`."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", folder, "build", "--build-base", folder]
    subprocess.run([*command, kind, "--dist-dir", folder / kind], cwd=source, check=True, capture_output=True)
    (built,) = (folder / kind).iterdir()
    return built


def hashes(wheel):
    """Of each file's content."""
    with zipfile.ZipFile(wheel) as files:
        return {name: hashlib.sha256(files.read(name)).hexdigest() for name in files.namelist()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build("bdist_wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def test_holds_what_is_installed_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == PACKAGES | {
        "distilled_uncertainty",
        "distilled_uncertainty-0.1.0.dist-info",
    }
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    sources = {
        f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
        for package, folder in {
            **{name: name for name in PACKAGES},
            "distilled_uncertainty/configs": "configs",
        }.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    } | {f"distilled_uncertainty/{path.name}" for path in (ROOT / "tools").glob("*.py")}
    assert {name for name in names if "dist-info" not in name} == sources


def test_description_leads_nowhere_outside_the_repository(wheel):
    with zipfile.ZipFile(wheel) as files:
        (name,) = (name for name in files.namelist() if name.endswith("/METADATA"))
        metadata = files.read(name).decode()
    assert "# distilled-uncertainty\n" in metadata
    assert "](" not in metadata


def test_a_wheel_of_the_source_distribution_is_the_same(wheel, tmp_path):
    with tarfile.open(build("sdist", ROOT, tmp_path / "first")) as archive:
        archive.extractall(tmp_path, filter="data")
    again = build("bdist_wheel", tmp_path / "distilled_uncertainty-0.1.0", tmp_path / "second")
    assert hashes(again) == hashes(wheel)


@pytest.fixture(scope="module")
def run(wheel, tmp_path_factory):
    """Runs a program of an environment that has the wheel, in a folder that sets a trap."""
    environment, folder = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("elsewhere")
    venv.create(environment, symlinks=True)
    # everything else comes from the environment of the tests, whose own .pth files, and so the checkout, are not read
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    install = [sys.executable, "-m", "uv", "pip", "install", "--offline", "--no-deps", "--python"]
    subprocess.run([*install, environment / "bin" / "python", wheel], check=True, capture_output=True)
    (folder / "classification.py").write_text("raise AssertionError('somebody else has such a module')")

    def run(program, *arguments, code=0):
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        command = [environment / "bin" / program, *arguments]
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    run.folder = folder
    return run


def test_lists_its_commands(run):
    listed = run("distilled-uncertainty", "--help")
    for tool in (ROOT / "tools").glob("[!_]*.py"):
        assert f"  {tool.stem.replace('_', '-')} " in listed
    assert "  classification        Train, distil, evaluate and report an experiment" in listed


def test_suggests_a_command(run):
    error = run("distilled-uncertainty", "train-nte", code=2)
    assert "there is no command 'train-nte'; did you mean train-net?" in error


HELP = """
from distilled_uncertainty.__main__ import commands, main

for name in commands():
    try:
        main([name, "--help"])
    except SystemExit as end:
        assert not end.code
"""


def test_commands_explain_themselves(run):
    explained = run("python", "-I", "-c", HELP)
    for tool in (ROOT / "tools").glob("[!_]*.py"):
        if tool.stem != "generate_targets":  # which explains its tasks one after the other
            assert f"usage: distilled-uncertainty {tool.stem.replace('_', '-')} " in explained


READ_CONFIGS = """
from fvcore.common.config import CfgNode
from mmengine.config import Config
from uncertainty_core.cli.configs import find_config

detector = CfgNode.load_yaml_with_base(str(find_config("ddn_R50.yaml", "ddn")))
segmentor = Config.fromfile(find_config("quick/streets_student.py", "dudes"), import_custom_modules=False)
print(detector["MODEL"]["RPN"]["PRE_NMS_TOPK_TEST"], segmentor.model.decode_head.type)
"""


def test_configs_find_their_bases(run):
    assert run("python", "-I", "-c", READ_CONFIGS) == "6000 DepthwiseSeparableASPPHead\n"


def test_evaluates_detections(run):
    truth = {
        "images": [{"id": 1, "width": 9, "height": 9}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "area": 16, "iscrowd": 0}],
    }
    (run.folder / "truth.json").write_text(json.dumps(truth))
    found = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "score": 0.9}]
    (run.folder / "found.json").write_text(json.dumps(found))
    table = run("distilled-uncertainty", "evaluate-detections", "truth.json", "found.json")
    assert re.search(r"^D-ECE +0\.1000 ", table, re.MULTILINE), table  # |0.9 - 1|
