"""Kill every kind of run at random moments, start it again, and compare what it ends with.

    python tests/kills --kills 200 --seed 0

A run is killed at a moment drawn evenly from its whole life, and again after each restart, until one lives to its end.
It must then have left what an undisturbed run leaves: the same files with the same bytes, but for logs and times. The
exit code is 1 if any differs.
"""

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:1] = [str(ROOT), str(ROOT / "tests")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

from kills.driver import kill_runs  # noqa: E402
from kills.scenarios import SCENARIOS, import_frameworks  # noqa: E402


def main() -> None:
    """Run all scenarios, or those that are named, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="in all (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--only", default="", metavar="TEXT", help="scenarios whose name holds it (default: all)")
    args = parser.parse_args()
    import_frameworks()
    faulty = False
    print("| what | kills | during | runs | that differ |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as place:
        for number, scenario in enumerate(SCENARIOS):
            if args.only not in scenario.name:
                continue
            draw = random.Random(f"{args.seed} {scenario.name}")
            found = kill_runs(scenario, Path(place) / str(number), max(1, round(args.kills * scenario.share)), draw)
            faulty |= bool(found.faults)
            during = ", ".join(f"{step} {count}" for step, count in found.steps.most_common())
            faults = ", ".join(sorted(set(found.faults))) or "none"
            print(f"| {scenario.name} | {found.steps.total()} | {during} | {found.runs} | {faults} |", flush=True)
    sys.exit(faulty)


if __name__ == "__main__":
    main()
