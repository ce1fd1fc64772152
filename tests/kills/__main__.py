"""Kill every kind of run at random moments, start it again, and compare what it ends with.

    python tests/kills --kills 200 --seed 0

A run is killed at a moment drawn evenly from its whole life, and again after each restart, until one lives to its end. It
must then have left what an undisturbed run leaves: the same files with the same bytes, but for logs and times. The exit
code is 1 if any differs.
"""

import argparse
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:1] = [str(ROOT), str(ROOT / "tests")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

from forked_tools import KILLED, fork, run, wait  # noqa: E402
from kills.content import contents, differences  # noqa: E402
from kills.scenarios import SCENARIOS, Scenario, import_frameworks  # noqa: E402

STEP = re.compile(r"^\[\d+/\d+\] ([^:\n]*)", re.MULTILINE)


class Broken(Exception):
    """A run that fails, undisturbed or when it is started again."""


def undisturbed(scenario: Scenario, folder: Path) -> tuple[dict[str, str], float]:
    """What a run that nobody kills ends with, and the seconds that it takes; what it begins with is kept beside it."""
    folder.mkdir()
    _lived(run(scenario.prepare, folder=folder))
    shutil.copytree(folder, start_of(folder))
    began = time.monotonic()
    _lived(run(scenario.work, folder=folder))
    return contents(folder), time.monotonic() - began


def start_of(folder: Path) -> Path:
    """Where the files are that every run in `folder` begins with."""
    return folder.with_name(f"{folder.name}, start")


def killed_runs(scenario: Scenario, folder: Path, kills: int, draw: random.Random) -> tuple[Counter, int, list[str]]:
    """Kill runs of a scenario so many times: kills by step, how many runs that were, and which files differed."""
    expected, life = undisturbed(scenario, folder)
    steps, runs, different = Counter(), 0, []
    while sum(steps.values()) < kills:
        shutil.rmtree(folder)
        shutil.copytree(start_of(folder), folder)  # at the same place: paths are in some files
        runs += 1
        while True:
            process = fork(scenario.work, folder=folder)
            if sum(steps.values()) < kills:
                process.join(draw.random() * life)
                process.kill()
            outcome = wait(process, folder)
            if outcome.code != KILLED:
                break
            found = STEP.findall(outcome.out)
            steps[found[-1] if found else "before the first step"] += 1
        _lived(outcome)
        different += differences(contents(folder), expected)
    return steps, runs, different


def _lived(outcome) -> None:
    if outcome.code != 0:
        raise Broken(outcome.err)


def main() -> None:
    """Run all scenarios, or those named, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="in all (200)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument("--only", default="", help="scenarios whose name holds this")
    args = parser.parse_args()
    chosen = [scenario for scenario in SCENARIOS if args.only in scenario.name]
    shares = sum(scenario.share for scenario in chosen)
    import_frameworks()
    wrong = False
    print("| what | kills | runs | identical | files that differ |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as place:
        for number, scenario in enumerate(chosen):
            kills = max(1, round(args.kills * scenario.share / shares))
            draw = random.Random(f"{args.seed} {scenario.name}")
            steps, runs, different = killed_runs(scenario, Path(place) / str(number), kills, draw)
            wrong |= bool(different)
            same = "no" if different else "yes"
            names = ", ".join(sorted(set(different))) or "none"
            print(f"| {scenario.name} | {steps.total()} | {runs} | {same} | {names} |", flush=True)
            print("  " + "; ".join(f"{step}: {count}" for step, count in steps.items()), file=sys.stderr, flush=True)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
