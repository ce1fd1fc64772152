"""What README and docs/ tell a reader to type works as it stands there, and what they name exists."""

import functools
import operator
import os
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from detectron2.config import get_cfg
from experiments import rank_environments, run_classification
from forked_tools import fork, run, tool, wait

import classification.experiment  # noqa: F401 (what the processes that are forked here need)
import uncertainty_core.plots  # noqa: F401
from ddn_detectron2.config import add_ddn_config
from uncertainty_core.roles import student_name

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TOOLS = sorted((ROOT / "tools").glob("*.py"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A block whose first line is the comment "# needs ..." asks for data or hardware, one that begins with a file's name
# alone is that file, and "text" is to be looked at. All others are run.
NEEDS = re.compile(r"# needs \w+")
FILE = re.compile(r"# (\S+\.\w+)\n")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def make(*arguments):
    """What make prints, as if no other make had started the tests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_two_commands_come_first():
    assert [block.strip() for block in blocks("sh")[:2]] == ["make demo", "make test"]


def test_set_up_is_done_once(tmp_path):
    plan = make("--dry-run", "setup", f"VENV={tmp_path}")
    assert "bootstrap.py" in plan
    Path(re.search(r"--stamp (\S+)", plan)[1]).touch()
    assert "bootstrap.py" not in make("--dry-run", "setup", f"VENV={tmp_path}")


def test_the_first_demo_leaves_its_pictures(tmp_path):
    """Its command with shorter trainings and fewer passes; .ci/run runs all demos as they are."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    words = re.search(r" -m classification (.*)", make("--dry-run", "demo-classification"))[1]
    config = yaml.safe_load((ROOT / "configs/classification/quick/digits.yaml").read_text())
    shorter = ["evaluation.mc_samples=[2]", "teacher.training.epochs=2"]
    for name, student in config["students"].items():
        shorter.append(f"students.{name}.training.epochs=2")
        if "mc_samples" in student["method"]:
            shorter.append(f"students.{name}.method.mc_samples=2")
    outcome = run(run_classification, *shlex.split(words), *shorter, folder=tmp_path)
    assert outcome.code == 0, outcome.err
    assert "\r" not in outcome.err  # a progress bar is for terminals
    for row in ("baseline", "MC-2", *map(student_name, config["students"])):
        assert re.search(rf"^\| {re.escape(row)} +\| [12] +\| \d+\.\d\d ", outcome.out, re.MULTILINE)  # in the table
    pictures = re.findall(r"demo/\S+\.(?:png|html)", outcome.out)
    assert len(pictures) == 3
    assert all((tmp_path / picture).stat().st_size > 10_000 for picture in pictures)


def test_ci_runs_the_demos_and_the_tests():
    assert "demo: demo-classification demo-detection demo-segmentation " in (ROOT / "Makefile").read_text()
    commands = (ROOT / ".ci" / "run").read_text().splitlines()
    assert commands[-4:] == [
        "make lint",
        "make demo",
        'make test PYTEST_ARGS="--cov --cov-fail-under=95"',
        "make fuzz SEED=0 COUNT=200",
    ]


def test_python_examples_run(tmp_path):
    script = "\n".join(block for block in blocks("python") if not block.startswith("# my_"))  # that is a file
    outcome = run(exec, script, {}, folder=tmp_path)
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "reliability.png").exists()


def test_every_target_is_explained():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE).group(1).split()
    assert set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE)) == set(phony)
    assert make("help").count("\n") == len(phony)


@pytest.fixture
def page_folder(tmp_path, monkeypatch):
    """Where a page's commands run: they write there, and read nothing of the checkout but docs/."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_python(program, arguments, environment):
    """What `distilled-uncertainty <arguments>` or `python <arguments>` does, in this process."""
    os.environ.update(environment)
    if program == "distilled-uncertainty":
        tool("__main__", *arguments)
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


def run_line(line, folder):
    """Run a line of a shell block in `folder`; Python in forked processes, which have paid for their imports."""
    program, *arguments = shlex.split(line)
    environments = [{}]
    if program == "torchrun":
        processes, no_python, program, *arguments = arguments
        assert no_python == "--no-python"
        environments = rank_environments(int(processes.removeprefix("--nproc-per-node=")))
    if program in ("distilled-uncertainty", "python"):
        processes = [fork(run_python, program, arguments, environment, folder=folder) for environment in environments]
        for outcome in [wait(process, folder) for process in processes]:
            assert outcome.code == 0, outcome.err
    else:
        subprocess.run(["bash", "-c", line], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def of_pages(pages=PAGES):
    """Repeat a test for each page."""
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


def is_run(language, block):
    return language in ("sh", "python") and not NEEDS.match(block) and not FILE.match(block)


@of_pages()
def test_blocks_of_a_page_run_in_order(page, page_folder):
    names = {"__name__": "__main__"}
    for language, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        if file := FILE.match(block):
            (page_folder / file[1]).write_text(block, encoding="utf-8")
        elif language == "python" and is_run(language, block):
            exec(compile(block, page.name, "exec"), names)
        elif is_run(language, block):
            for line in block.replace("\\\n", " ").splitlines():
                run_line(line, page_folder)


@of_pages([ROOT / "README.md", *PAGES, *TOOLS])
def test_commands_exist(page):
    named = re.findall(r"distilled-uncertainty ([a-z][a-z-]*)", page.read_text(encoding="utf-8"))
    assert set(named) <= {tool.stem.replace("_", "-") for tool in TOOLS} | {"classification", "report"}


@of_pages([ROOT / "README.md", *PAGES])
def test_blocks_say_what_they_are(page):
    languages = {language for language, _ in BLOCK.findall(page.read_text(encoding="utf-8"))}
    assert languages <= {"sh", "python", "yaml", "text"}


def prose(page):
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def first_words(page):
    """Of all that stands in backticks."""
    return {quoted.split()[0] for quoted in re.findall(r"`([^`\n]+)`", prose(page))}


@of_pages()
def test_what_a_page_names_exists(page):
    cfg = get_cfg()
    add_ddn_config(cfg)
    for word in first_words(page):
        if re.fullmatch(r"(uncertainty_core|classification|ddn_detectron2|dudes_mmseg)(\.\w+)+", word):
            pkgutil.resolve_name(word)
        elif re.fullmatch(r"(MODEL|SOLVER)(\.\w+)+", word):
            assert functools.reduce(operator.getitem, word.split("."), cfg) is not None
        elif re.fullmatch(r"(configs|docs|tests|tools)/[\w./-]+", word):
            assert (ROOT / word).exists(), word


@of_pages()
def test_links_of_a_page_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#\s]+)", prose(page)):
        assert link.startswith("https://") or (page.parent / link).exists(), link


def test_every_page_is_linked_from_the_index():
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / link).resolve() for link in re.findall(r"\]\(([^)#\s]+)", prose(index))}
    assert linked >= set(PAGES) - {index}
