"""Kill runs of a scenario, start them again, compare."""

import random
import re
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from forked_tools import KILLED, Outcome, fork, run, wait

from .content import contents, differences
from .scenarios import Scenario

STEP = re.compile(r"^\[\d+/\d+\] ([^:\n]*)", re.MULTILINE)


class FailedRunError(Exception):
    """A run that nobody killed failed."""


@dataclass
class Finding:
    """How many kills hit which step, how many runs that were, and what was wrong with them."""

    steps: Counter = field(default_factory=Counter)
    runs: int = 0
    faults: list[str] = field(default_factory=list)


def kill_runs(scenario: Scenario, folder: Path, kills: int, draw: random.Random) -> Finding:
    """Kill runs of a scenario in `folder`, which must not exist, so many times at moments from `draw`."""
    expected, life = _undisturbed(scenario, folder)
    finding = Finding()
    while finding.steps.total() < kills:
        shutil.rmtree(folder)
        shutil.copytree(_start(folder), folder)  # at the same place: paths are in some files
        finding.runs += 1
        outcome = _run_to_its_end(scenario, folder, kills, life, draw, finding.steps)
        if outcome.code != 0:
            finding.faults.append(outcome.err.strip().splitlines()[-1])
        else:
            finding.faults += differences(contents(folder), expected)
    return finding


def _start(folder: Path) -> Path:
    """Where the files are that every run in `folder` begins with."""
    return folder.with_name(f"{folder.name}, start")


def _undisturbed(scenario: Scenario, folder: Path) -> tuple[dict[str, str], float]:
    """What a run that nobody kills ends with, and the seconds that it takes."""
    folder.mkdir()
    for function in (scenario.prepare, scenario.work):
        began = time.monotonic()
        outcome = run(function, folder=folder)
        if outcome.code != 0:
            raise FailedRunError(outcome.err)
        if function is scenario.prepare:
            shutil.copytree(folder, _start(folder))
    return contents(folder), time.monotonic() - began


def _run_to_its_end(
    scenario: Scenario, folder: Path, kills: int, life: float, draw: random.Random, steps: Counter
) -> Outcome:
    """Start a run, kill it, start it again, until it ends by itself or `steps` count `kills`."""
    while True:
        process = fork(scenario.work, folder=folder)
        if steps.total() < kills:
            process.join(draw.random() * life)
            process.kill()
        outcome = wait(process, folder)
        if outcome.code != KILLED:
            return outcome
        found = STEP.findall(outcome.out)
        steps[found[-1] if found else "before the first step"] += 1
