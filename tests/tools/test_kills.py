"""A few of the kills that `python tests/kills` does by the hundred, and that it would notice a difference."""

import json
import random

import pytest
import torch
from kills.content import contents, differences
from kills.driver import kill_runs
from kills.scenarios import SCENARIOS


@pytest.mark.parametrize(("name", "kills"), [("classifiers, targets", 2), ("page that compares runs", 1)])
def test_killed_runs_end_as_an_undisturbed_one(tmp_path, name, kills):
    (scenario,) = (scenario for scenario in SCENARIOS if scenario.name == name)
    found = kill_runs(scenario, tmp_path / "run", kills, random.Random(0))
    assert (found.steps.total(), found.faults) == (kills, [])
    assert found.runs >= 1


def test_all_kills_have_a_share():
    assert sum(scenario.share for scenario in SCENARIOS) == pytest.approx(1)


def write(folder, weight=1.0, seconds=1.0, accuracy=0.5, cell="0.53"):
    folder.mkdir()
    torch.save({"state_dict": {"w": torch.tensor([weight])}, "meta": {"time": seconds}}, folder / "iter_3.pth")
    (folder / "run.json").write_text(json.dumps({"seconds": seconds, "metrics": {"accuracy": accuracy}}))
    (folder / "log.csv").write_text(f"epoch,accuracy,seconds\n1,{accuracy},{seconds}\n")
    (folder / "report.html").write_text(f"<td>{seconds:.1f}</td><td>{cell}</td>")
    (folder / "log.txt").write_text(str(seconds))
    (folder / "member.py").write_text(f"lr = {accuracy}\nresume = {seconds > 2}\n")
    return contents(folder)


def test_times_do_not_count_and_all_else_does(tmp_path):
    first = write(tmp_path / "first")
    assert first.keys() == {"iter_3.pth", "run.json", "log.csv", "report.html", "member.py"}
    assert differences(first, write(tmp_path / "slower", seconds=2.5)) == []
    assert differences(first, write(tmp_path / "other", weight=1.0000001)) == ["iter_3.pth"]
    assert differences(first, write(tmp_path / "worse", accuracy=0.25)) == ["log.csv", "member.py", "run.json"]
    assert differences(first, write(tmp_path / "cell", cell="0.54")) == ["report.html"]
    assert differences(first, {}) == sorted(first)
