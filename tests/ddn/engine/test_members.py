"""Ensembles of detectors: what members share, what makes them differ, and the way to a student of theirs."""

import json
from pathlib import Path

import pytest
import torch
from forked_tools import run_tool

from ddn_detectron2.config import ConfigError
from ddn_detectron2.engine.claims import training_settings
from ddn_detectron2.engine.members import member_config
from ddn_detectron2.engine.pipeline import with_settings
from ddn_detectron2.engine.trainer import DDNTrainer, build_network, build_with_teacher, training_dicts
from uncertainty_core.errors import UserError
from uncertainty_core.sampling.folds import HELD_OUT, image_key, write_held_out

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


def test_from_members_to_a_student_of_theirs(small, config, tmp_path):
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

    # whom the teacher asks about which image decides what a student becomes
    cfg = with_settings(config(), MODEL__DDN__TEACHER__WEIGHTS=paths, MODEL__DDN__TEACHER__OUT_OF_FOLD=True)
    before = training_settings(cfg)["held_out"]
    assert before == [str(Path(path).with_name(HELD_OUT)) for path in paths]  # which are not there
    with pytest.raises(UserError, match=r"member_0/model_final.pth has seen all images: train members with --folds"):
        build_with_teacher(cfg, build_network(cfg))
    for path in paths:
        write_held_out(Path(path).parent, ["train/0.png"], 1)
    assert training_settings(cfg)["held_out"] != before
    teacher = build_with_teacher(cfg, build_network(cfg)).roi_heads.teacher
    assert teacher.held_out == {"train/0.png": [0, 1]}
    for path in paths:
        Path(path).with_name(HELD_OUT).unlink()

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


def test_members_of_a_plain_config_are_whole_detectors_that_leave_images_out(small, config, tmp_path):
    words = ["--task", "detection", "--config-file", small.baseline, "--members", 4, "--folds", 2, "--only", 0, 1]
    options = ["OUTPUT_DIR", tmp_path / "members", "SOLVER.MAX_ITER", 1, "MODEL.WEIGHTS", ""]
    done = run_tool("train_ensemble", *words, *small.data, *options, folder=tmp_path)
    assert done.code == 0, done.err
    assert "MODEL.DDN.TEACHER.OUT_OF_FOLD True" in done.out
    notes = [json.loads((tmp_path / "members" / f"member_{k}" / HELD_OUT).read_text())["images"] for k in (0, 1)]
    everything = [image["file_name"] for image in training_dicts(config())]
    assert sorted(notes[0] + notes[1]) == sorted(map(image_key, everything)) and all(notes)
    for number, left_out in enumerate(notes):
        member = member_config(config(), number, 2)
        seen = [image_key(image["file_name"]) for image in training_dicts(member)]
        assert sorted(seen + left_out) == sorted(map(image_key, everything))
        assert training_settings(member)["MODEL.DDN.LEAVE_OUT"] == [number, 2]
    assert "MODEL.DDN.LEAVE_OUT" not in training_settings(member_config(config(), 0))
    first, second = (weights_of(tmp_path / "members" / f"member_{k}" / "model_final.pth") for k in (0, 1))
    assert {key.split(".")[0] for key in first if not torch.equal(first[key], second[key])} >= {
        "backbone",
        "proposal_generator",
        "roi_heads",
    }
