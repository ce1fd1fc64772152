"""What README tells a newcomer to type works as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def make(*arguments):
    """Run make on the environment that runs the tests, as if no other make had started them."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment["VENV"] = sys.prefix
    return subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


needs_set_up = pytest.mark.skipif(
    not list(Path(sys.prefix).glob(".ready-*")), reason="this environment was not set up by make"
)


def test_the_two_commands_come_first():
    assert [block.strip() for block in blocks("sh")[:2]] == ["make demo", "make test"]


@needs_set_up
def test_demo_runs_and_leaves_its_pictures():
    done = make("demo-classification")  # the other half of `make demo` takes minutes, and is run by .ci/run itself
    assert done.returncode == 0, done.stderr
    assert "Setting up" not in done.stdout  # the environment was ready: nothing is set up twice
    assert "image/s" in done.stderr  # a progress bar
    assert re.search(r"MC-100 +100 +0\.", done.stdout)  # the table
    pictures = re.findall(r"demo/\S+\.(?:png|html)", done.stdout)
    assert len(pictures) == 3
    assert all((ROOT / picture).stat().st_size > 10_000 for picture in pictures)


def test_ci_runs_both_halves_of_the_demo_and_the_tests():
    assert "demo: demo-classification demo-detection" in (ROOT / "Makefile").read_text()
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-2:] == ["make demo-detection", "make test"]


def test_python_examples_run(tmp_path):
    script = "\n".join(blocks("python"))
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    assert (tmp_path / "reliability.png").exists()


def test_every_target_is_explained():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE).group(1).split()
    assert set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE)) == set(phony)
    assert make("help").stdout.count("\n") == len(phony)


@pytest.mark.parametrize("tool", sorted(path.name for path in (ROOT / "tools").glob("*.py")))
def test_tools_explain_themselves(tool):
    done = subprocess.run([sys.executable, ROOT / "tools" / tool, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert len(done.stdout) > 200
