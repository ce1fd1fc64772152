"""Ensembles of detectors: what members share, what makes them differ, and the way to a student of theirs."""

import json
from pathlib import Path

import pytest
import torch
from forked_tools import run_tool

from ddn_detectron2.config import ConfigError
from ddn_detectron2.engine.members import member_config
from ddn_detectron2.engine.trainer import DDNTrainer

HEAD = ("roi_heads.box_head.", "roi_heads.box_predictor.")


def weights_of(path):
    return torch.load(path, weights_only=True)["model"]


def test_members_of_a_trunk_start_from_heads_of_their_own(small, config):
    start, heads = torch.load(small.weights)["model"], []
    for number in (0, 1, 1):
        cfg = member_config(config("DATASETS.TEST", ()), number)
        Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
        torch.manual_seed(cfg.SEED)
        trainer = DDNTrainer(cfg)
        trainer.resume_or_load(resume=False)
        assert trainer.checkpointer.model.roi_heads.teacher is None
        now = trainer.checkpointer.model.state_dict()
        heads.append({key: value for key, value in now.items() if key.startswith(HEAD)})
        assert all(torch.equal(value, start[key]) for key, value in now.items() if key not in heads[-1])
    of_first, of_second, again = heads
    # biases start at zero, as Detectron2 has it
    assert not any(torch.equal(of_first[key], start[key]) for key in of_first if key.endswith("weight"))
    assert not any(torch.equal(of_first[key], of_second[key]) for key in of_first if key.endswith("weight"))
    assert all(torch.equal(value, again[key]) for key, value in of_second.items())


def test_a_training_does_not_measure_an_ensemble(config, tmp_path):
    (tmp_path / "output").mkdir()
    paths = ("MODEL.DDN.TEACHER.WEIGHTS", ("a.pth", "b.pth"))
    trainer = DDNTrainer(config("MODEL.DDN.TEST.ENSEMBLE", True, *paths))
    with pytest.raises(ConfigError, match=r"MODEL.DDN.TEST.ENSEMBLE is for evaluations"):
        trainer.resume_or_load()


def test_from_members_to_a_student_of_theirs(small, tmp_path):
    def command(output, *options, kind="ddn", flags=()):
        opts = ["MODEL.WEIGHTS", small.weights, "OUTPUT_DIR", tmp_path / output, *options]
        return ["--config-file", getattr(small, kind), *flags, *small.data, *opts]

    members = command("members", flags=("--task", "detection", "--members", 2))
    done = run_tool("train_ensemble", *members, folder=tmp_path)
    assert done.code == 0, done.err
    paths = tuple(str(tmp_path / "members" / f"member_{k}" / "model_final.pth") for k in (0, 1))
    assert f'MODEL.DDN.TEACHER.WEIGHTS "{paths}"' in done.out
    start, (first, second) = torch.load(small.weights)["model"], map(weights_of, paths)
    differ = {key for key in first if not torch.equal(first[key], second[key])}
    assert differ and all(key.startswith(HEAD) for key in differ)
    assert all(torch.equal(value, start[key]) for key, value in first.items() if not key.startswith(HEAD))
    again = run_tool("train_ensemble", *members, folder=tmp_path)
    assert again.out.count("trained before") == 2
    other = run_tool("train_ensemble", *members, "SOLVER.BASE_LR", 0.5, folder=tmp_path)
    assert other.code == 2 and "member_0 holds the work of other settings: SOLVER.BASE_LR" in other.err

    # val is the test set of the comparison, which has no calibrators
    words = command("student", "MODEL.DDN.TEACHER.WEIGHTS", str(paths))
    done = run_tool("distill_detector", *words, folder=tmp_path)
    assert done.code == 0, done.err
    rows = json.loads((tmp_path / "student" / "comparison.json").read_text())["rows"]
    assert list(rows) == ["baseline", "student", "MC-10", "ensemble of 2"]
    assert rows["ensemble of 2"]["passes"] == 2
    # the same numbers as of an evaluation by itself
    alone = command(
        "alone", "MODEL.DDN.TEACHER.WEIGHTS", str(paths), "MODEL.DDN.TEST.ENSEMBLE", True, flags=("--eval-only",)
    )
    assert run_tool("train_net", *alone, folder=tmp_path).code == 0
    results = "coco_instances_results.json"
    [its] = (tmp_path / "alone" / "inference").glob(f"*/{results}")
    assert its.read_text() == (tmp_path / "student" / "rows" / "ensemble" / results).read_text()


def test_members_of_a_plain_config_are_whole_detectors(small, tmp_path):
    words = ["--task", "detection", "--config-file", small.baseline, "--members", 2, *small.data]
    options = ["OUTPUT_DIR", tmp_path / "members", "SOLVER.MAX_ITER", 1, "MODEL.WEIGHTS", ""]
    done = run_tool("train_ensemble", *words, *options, folder=tmp_path)
    assert done.code == 0, done.err
    first, second = (weights_of(tmp_path / "members" / f"member_{k}" / "model_final.pth") for k in (0, 1))
    assert {key.split(".")[0] for key in first if not torch.equal(first[key], second[key])} >= {
        "backbone",
        "proposal_generator",
        "roi_heads",
    }
