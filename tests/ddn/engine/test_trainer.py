"""Whole trainings through the command line: train, evaluate, resume, be killed, and bad input in one sentence."""

import json
import math
import os
import resource
import shutil
import signal
import time

import detectron2
import pytest
import torch
import yaml
from detectron2.engine import DefaultTrainer
from forked_tools import COMPUTES, KILLED, die_at_call, fork, run, run_tool, tool, wait
from tiny_detectors import SMALL, small_config

from ddn_detectron2.engine.trainer import DDNTrainer

LAST = "model_final.pth"
NO_EVALUATION = ("DATASETS.TEST", ())


def arguments(small, folder, *options, kind="ddn"):
    """The command line of a training of `small` into `folder`/output."""
    opts = ["MODEL.WEIGHTS", small.weights, "OUTPUT_DIR", folder / "output", *options]
    return ["--config-file", getattr(small, kind), *small.data, *opts]


def flagged(arguments, *flags):
    """With flags, which have to stand before the options."""
    return [*arguments[:2], *flags, *arguments[2:]]


def metrics(folder):
    """What was logged, the last of each."""
    lines = (folder / "output" / "metrics.json").read_text().splitlines()
    return {key: value for line in lines for key, value in json.loads(line).items()}


def checkpoint(folder, name=LAST):
    return torch.load(folder / "output" / name, weights_only=True)


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    """A folder after a training of four steps with the online teacher. Not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    outcome = run_tool("train_net", *arguments(small, folder), folder=folder)
    assert outcome.code == 0, outcome.err
    return folder


@pytest.fixture(scope="module")
def store(small, tmp_path_factory):
    """Targets of tools/generate_targets.py. Not to be changed."""
    folder = tmp_path_factory.mktemp("targets")
    words = arguments(small, folder, "MODEL.DDN.TARGETS.STORE", folder / "store")
    outcome = run_tool("generate_targets", *flagged(words, "--shard-size", 4), folder=folder)
    assert outcome.code == 0, outcome.err
    return folder / "store"


@pytest.fixture(scope="module")
def trained_on_store(small, store, tmp_path_factory):
    """As `trained`, with stored targets and without an evaluation. Not to be changed."""
    folder = tmp_path_factory.mktemp("trained-on-store")
    outcome = run_tool("train_net", *arguments(small, folder, *NO_EVALUATION, *stored(store)), folder=folder)
    assert outcome.code == 0, outcome.err
    return folder


def stored(store):
    return "MODEL.DDN.TARGETS.STORE", store, "MODEL.DDN.TARGETS.SOURCE", "store"


def flat(cfg, prefix=""):
    """Each key of a config by its whole name, with its value."""
    for key, value in cfg.items():
        yield from flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]


# --- trainings ---------------------------------------------------------------------------------------------------


def test_a_training_ends_with_weights_and_results(trained, small):
    content = checkpoint(trained)
    assert content["iteration"] == 3
    start = torch.load(small.weights)["model"]
    assert content["model"].keys() == start.keys()
    changed = {key for key, value in content["model"].items() if not torch.equal(value, start[key])}
    assert changed
    assert all(key.startswith(("roi_heads.box_head", "roi_heads.box_predictor")) for key in changed)
    last = metrics(trained)
    assert all(math.isfinite(last[key]) for key in ("loss_cls", "loss_box_reg", "loss_ddn", "total_loss"))
    assert not any("rpn" in key for key in last)
    assert {"bbox/AP", "calibration/ece@50"} <= last.keys()


def expecting(folder, more):
    """Options that expect an AP that much higher than in `folder`, within one."""
    return "TEST.EXPECTED_RESULTS", [["bbox", "AP", metrics(folder)["bbox/AP"] + more, 1.0]]


def test_the_results_are_those_of_evaluating_the_weights(trained, small, tmp_path):
    words = arguments(small, tmp_path, "MODEL.WEIGHTS", trained / "output" / LAST, *expecting(trained, 0))
    outcome = run_tool("train_net", *flagged(words, "--eval-only"), folder=tmp_path)
    assert outcome.code == 0, outcome.err
    [name] = (trained / "output" / "inference").iterdir()
    mine, its = (
        (folder / "output" / "inference" / name.name / "coco_instances_results.json").read_text()
        for folder in (trained, tmp_path)
    )
    assert mine == its
    assert len(json.loads(mine)) > 0


def test_deviations_of_boxes_change_nothing_else(trained, small, tmp_path):
    words = arguments(small, tmp_path, "MODEL.DDN.BOX_STD", True)
    outcome = run_tool("train_net", *words, folder=tmp_path)  # from weights that have none
    assert outcome.code == 0, outcome.err
    mine, its = (checkpoint(folder)["model"] for folder in (tmp_path, trained))
    assert all(torch.equal(mine[key], value) for key, value in its.items())
    assert len([key for key in mine if key not in its and ".box_std." in key]) == len(mine) - len(its) == 2
    [name] = (trained / "output" / "inference").iterdir()
    with_std, without = (
        json.loads((folder / "output" / "inference" / name.name / "coco_instances_results.json").read_text())
        for folder in (tmp_path, trained)
    )
    assert all(len(result.pop("box_std")) == 4 for result in with_std)
    assert with_std == without
    # what has learnt none is no detector with deviations
    words = arguments(small, tmp_path, "MODEL.DDN.BOX_STD", True, "MODEL.WEIGHTS", trained / "output" / LAST)
    refused = run_tool("train_net", *flagged(words, "--eval-only"), folder=tmp_path)
    assert refused.code == 2 and "it lacks 2 of its" in refused.err


def test_a_baseline_trains_all_of_it(small, tmp_path):
    outcome = run_tool("train_net", *arguments(small, tmp_path, *NO_EVALUATION, kind="baseline"), folder=tmp_path)
    assert outcome.code == 0, outcome.err
    start = torch.load(small.weights)["model"]
    assert {
        key.split(".")[0] for key, value in checkpoint(tmp_path)["model"].items() if not value.equal(start[key])
    } == {
        "backbone",
        "proposal_generator",
        "roi_heads",
    }
    assert {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"} <= metrics(tmp_path).keys()
    assert "loss_ddn" not in metrics(tmp_path)


def test_ddn_on_the_command_line_is_the_ddn_config(trained, small, tmp_path):
    # with the values of its keys, which the config file has of its own
    words = []
    values, others = (dict(flat(small_config(path))) for path in (small.ddn, small.baseline))
    for key, value in values.items():
        chosen = value != others[key] or key.startswith("SOLVER.")  # which --ddn has its own values of
        if chosen and not key.endswith(("NAME", "META_ARCHITECTURE", "MODEL.WEIGHTS")):
            words += [key, value]
    command = flagged(arguments(small, tmp_path, *NO_EVALUATION, *words, kind="baseline"), "--ddn")
    outcome = run_tool("train_net", *command, folder=tmp_path)
    assert outcome.code == 0, outcome.err
    mine, its = checkpoint(tmp_path)["model"], checkpoint(trained)["model"]
    assert all(torch.equal(value, its[key]) for key, value in mine.items())


def test_labels_of_no_weight_train_as_none_do(small, tmp_path):
    # the labels decide neither losses nor which proposals are sampled
    settings = {
        "MODEL.DDN.TARGETS.MATCH": "per_proposal",
        "MODEL.DDN.TARGETS.AVERAGE": "probs",
        "MODEL.DDN.GT_WEIGHT": 0.0,
        "MODEL.DDN.FREEZE": ("box_regression",),
        "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": False,
        "MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.999],
        "DATALOADER.FILTER_EMPTY_ANNOTATIONS": False,
        "SEED": 0,
    }
    options = [word for pair in settings.items() for word in pair]
    flags = ["--unlabelled-images", small.folder / "scenes" / "train", "--unlabelled-json", small.data[1]]
    weights = []
    for number, (sets, given) in enumerate(((("tiny_train", "tiny_train"), []), (("tiny_train",), flags))):
        words = arguments(small, tmp_path / str(number), *NO_EVALUATION, "DATASETS.TRAIN", sets, *options)
        done = run_tool("train_net", *flagged(words, *given), folder=tmp_path)
        assert done.code == 0, done.err
        weights.append(checkpoint(tmp_path / str(number))["model"])
    start = torch.load(small.weights)["model"]
    labelled, unlabelled = weights
    assert all(torch.equal(labelled[key], unlabelled[key]) for key in labelled)
    assert any(not torch.equal(labelled[key], start[key]) for key in start)


def test_stored_targets_train_without_a_teacher(trained, trained_on_store):
    last = metrics(trained_on_store)
    assert last.keys() == {
        key for key in metrics(trained) if "/" not in key or key.startswith(("fast_rcnn/", "roi_head/"))
    }
    assert last["loss_ddn"] > 0
    assert checkpoint(trained_on_store)["model"].keys() == checkpoint(trained)["model"].keys()


# --- resuming ----------------------------------------------------------------------------------------------------


@pytest.fixture
def output(tmp_path):
    """Where `config` lets a trainer write; the command line makes it itself."""
    (tmp_path / "output").mkdir()


def momenta(optimizer):
    return [optimizer.state[p]["momentum_buffer"] for group in optimizer.param_groups for p in group["params"]]


class NewerTrainer(DDNTrainer):
    """Its state holds the optimizer's, as that of Detectron2's trainers does after 0.5."""

    def state_dict(self):
        return super().state_dict() | {"_trainer": {"optimizer": self._trainer.optimizer.state_dict()}}

    def load_state_dict(self, state_dict):
        self._trainer.optimizer.load_state_dict(state_dict.pop("_trainer")["optimizer"])
        super().load_state_dict(state_dict)


only_on_the_older = pytest.mark.skipif(detectron2.__version__ != "0.5", reason="that is what this Detectron2 has")


@pytest.mark.parametrize(
    ("kind", "trainer_class"),
    [("ddn", DDNTrainer), ("baseline", DDNTrainer), pytest.param("ddn", NewerTrainer, marks=only_on_the_older)],
)
@pytest.mark.usefixtures("output")
def test_a_resumed_trainer_has_everything_it_had(config, tmp_path, kind, trainer_class):
    cfg = config("SOLVER.MAX_ITER", 2, *NO_EVALUATION, kind=kind)
    trainer = trainer_class(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    longer = cfg.clone()
    longer.SOLVER.MAX_ITER = 4
    again = trainer_class(longer)
    again.resume_or_load(resume=True)
    assert again.start_iter == 2
    content = checkpoint(tmp_path)
    assert ("optimizer" in content) != ("_trainer" in content["trainer"])  # once, whatever Detectron2 keeps itself
    assert not any(momentum.eq(0).all() for momentum in momenta(trainer._trainer.optimizer))
    for mine, its in zip(momenta(again._trainer.optimizer), momenta(trainer._trainer.optimizer), strict=True):
        assert torch.equal(mine, its)
    for key, value in again._trainer.model.state_dict().items():
        assert torch.equal(value, trainer._trainer.model.state_dict()[key])
    again.train()
    assert checkpoint(tmp_path)["iteration"] == 3


@pytest.mark.usefixtures("output")
def test_a_resumed_student_still_learns_from_the_teacher_it_had(config):
    cfg = config("SOLVER.MAX_ITER", 2, "SOLVER.BASE_LR", 0.05, *NO_EVALUATION)
    trainer = DDNTrainer(cfg)
    trainer.resume_or_load(resume=False)
    teacher = trainer._trainer.model.roi_heads.teacher.module.state_dict()
    trainer.train()
    again = DDNTrainer(cfg)
    again.resume_or_load(resume=True)
    model = again._trainer.model
    assert all(torch.equal(value, teacher[key]) for key, value in model.roi_heads.teacher.module.state_dict().items())
    assert not torch.equal(model.roi_heads.box_head.fc1.weight, teacher["box_head.fc1.weight"])
    assert model.training


def train_and_die(owner, name, number, words):
    die_at_call(owner, name, number)
    tool("train_net", *words)


@pytest.mark.parametrize(
    ("owner", "name", "number", "resumes_at"),
    [
        (DefaultTrainer, "run_step", 1, 0),  # before the first step
        (torch, "save", 2, 2),  # while the second checkpoint is written
    ],
    ids=["at-once", "saving"],
)
def test_a_killed_training_goes_on(small, tmp_path, owner, name, number, resumes_at):
    words = arguments(small, tmp_path, *NO_EVALUATION)
    outcome = run(train_and_die, owner, name, number, flagged(words, "--resume"), folder=tmp_path)
    assert outcome.code == KILLED
    outcome = run_tool("train_net", *flagged(words, "--resume"), folder=tmp_path)
    assert outcome.code == 0, outcome.err
    assert checkpoint(tmp_path)["iteration"] == 3
    log = (tmp_path / "output" / "log.txt").read_text()
    assert f"Starting training from iteration {resumes_at}" in log


@pytest.mark.parametrize(("source", "workers"), [("online", 2), ("store", 0)])
def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(
    request, small, store, tmp_path, source, workers
):
    undisturbed = request.getfixturevalue("trained" if source == "online" else "trained_on_store")
    options = ("DATALOADER.NUM_WORKERS", workers, *(stored(store) if source == "store" else ()))
    words = arguments(small, tmp_path, *NO_EVALUATION, *options)
    assert run(train_and_die, DefaultTrainer, "run_step", 4, words, folder=tmp_path).code == KILLED
    assert run_tool("train_net", *flagged(words, "--resume"), folder=tmp_path).code == 0
    assert "Starting training from iteration 2" in (tmp_path / "output" / "log.txt").read_text()
    content, wanted = checkpoint(tmp_path), checkpoint(undisturbed)
    assert content.keys() == wanted.keys()
    assert all(torch.equal(value, wanted["model"][key]) for key, value in content["model"].items())


def test_sigint_ends_a_training_with_one_sentence(small, tmp_path):
    words = arguments(small, tmp_path, *NO_EVALUATION, "SOLVER.MAX_ITER", 10_000, "DATALOADER.NUM_WORKERS", 1)

    def in_a_group():  # of its own, as a terminal gives it: loader workers are interrupted, too
        os.setpgrp()
        tool("train_net", *words)

    process, log = fork(in_a_group, folder=tmp_path), tmp_path / "output" / "log.txt"
    while not (log.exists() and "Saving checkpoint" in log.read_text()):  # when the workers have started
        assert process.is_alive(), wait(process, tmp_path).err
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    outcome = wait(process, tmp_path)
    assert (outcome.code, outcome.out) == (130, f"{COMPUTES}\n")
    assert outcome.err == f"interrupted; the same command with --resume goes on\nlog: {log}\n"


# --- bad input ---------------------------------------------------------------------------------------------------


def assert_refused(outcome, *parts):
    """Exit code 2 and one sentence on stderr, before anything is trained."""
    assert outcome.code == 2, outcome.err
    lines = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in outcome.err
    assert all(part in lines[0] for part in parts), lines[0]
    assert "Starting training" not in outcome.out


def edited(path, folder, **changes):
    """A copy of a yaml with other sections; its path."""
    content = yaml.safe_load(path.read_text()) | changes
    (folder / "edited.yaml").write_text(yaml.safe_dump(content))
    return folder / "edited.yaml"


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("MODEL.DDN.TARGET.IOU", 0.3), ("at the end of the command line", "did you mean MODEL.DDN.TARGETS.IOU")),
        (("MODEL.NO_SUCH_KEY", 1), ("at the end of the command line", "NO_SUCH_KEY")),
        (("SOLVER.BASE_LR",), ("must come in pairs KEY VALUE",)),
        (("SOLVER.BASE_LR", "fast"), ("at the end of the command line", "fast")),
        (("MODEL.DDN.TARGETS.MATCH", "iou"), ("MODEL.DDN.TARGETS.MATCH must be one of",)),
        (("MODEL.ROI_HEADS.NUM_CLASSES", 3), ("6 classes", "NUM_CLASSES 6")),
        (("MODEL.WEIGHTS", "no/such.pth"), ("there is no file no/such.pth",)),
        (("MODEL.WEIGHTS", ""), ("MODEL.WEIGHTS must be the detector to distil",)),
        (("MODEL.ROI_BOX_HEAD.FC_DIM", 32), ("the checkpoint does not fit the model", "box_head.fc1")),
        (("MODEL.DDN.TEACHER.WEIGHTS", ("no/member.pth",)), ("no/member.pth", "not found")),
        (("MODEL.DDN.TARGETS.SOURCE", "store"), ("MODEL.DDN.TARGETS.STORE must name the folder",)),
        (
            ("MODEL.DDN.TARGETS.SOURCE", "store", "MODEL.DDN.TARGETS.STORE", "nowhere"),
            ("nowhere is not a target store",),
        ),
        (("DATASETS.TRAIN", ("nobody",)), ("nobody is not registered; known are",)),
    ],
    ids=str,
)
def test_options_that_cannot_work(small, tmp_path, options, parts):
    assert_refused(run_tool("train_net", *arguments(small, tmp_path, *options), folder=tmp_path), *parts)


@pytest.mark.parametrize("name", ["", "COCO-Detection/nothing_1x.py"])
def test_a_config_that_is_none(small, tmp_path, name):
    words = ["--config-file", name, *arguments(small, tmp_path)[2:]]
    assert_refused(run_tool("train_net", *words, folder=tmp_path), name or "neither")


@pytest.mark.parametrize(
    ("changes", "part"),
    [({"SOLVER": {"NO_SUCH_KEY": 1}}, "NO_SUCH_KEY"), ({"SOLVER": {"BASE_LR": "fast"}}, "BASE_LR")],
    ids=["unknown", "type"],
)
def test_a_config_file_with_a_bad_key(small, tmp_path, changes, part):
    words = ["--config-file", edited(small.ddn, tmp_path, **changes), *arguments(small, tmp_path)[2:]]
    assert_refused(run_tool("train_net", *words, folder=tmp_path), part)


def test_a_model_that_cannot_be_distilled(small, tmp_path):
    words = ["--config-file", "COCO-Detection/retinanet_R_50_FPN_1x.yaml", *arguments(small, tmp_path)[2:]]
    outcome = run_tool("train_net", *flagged(words, "--ddn"), folder=tmp_path)
    assert_refused(outcome, "MODEL.META_ARCHITECTURE is 'RetinaNet'", "can be distilled")


def test_what_ddn_complains_of_can_be_mended_on_the_same_command_line(small, tmp_path):
    model = SMALL["MODEL"] | {"DDN": {"TARGETS": {"AVERAGE": "logits"}, "DROPOUT": {"POSITIONS": ["predictor"]}}}
    words = ["--config-file", edited(small.baseline, tmp_path, MODEL=model), *arguments(small, tmp_path)[2:]]
    words = flagged([*words, *NO_EVALUATION, "SOLVER.MAX_ITER", 1], "--ddn")
    assert_refused(run_tool("train_net", *words, folder=tmp_path), "set MODEL.DDN.TARGETS.AVERAGE to 'probs'")
    outcome = run_tool("train_net", *words, "MODEL.DDN.TARGETS.AVERAGE", "probs", folder=tmp_path)
    assert outcome.code == 0, outcome.err
    assert "\nschedule: 1 iterations, learning rate 0.001, warm-up 0, checkpoint every 1, gradients" in outcome.out


@pytest.mark.parametrize(
    ("kind", "flags", "sentence"),
    [
        ("baseline", ["--unlabelled-images", "."], "images without labels teach students alone: add --ddn"),
        ("ddn", ["--unlabelled-images", "."], "needs MODEL.DDN.TARGETS.SOURCE 'online' and MATCH 'per_proposal'"),
        ("ddn", ["--unlabelled-images", "nowhere"], "--unlabelled-images: there is no folder nowhere"),
        ("ddn", ["--unlabelled-json", "a.json"], "--unlabelled-json needs --unlabelled-images"),
    ],
)
def test_unlabelled_images_that_cannot_teach(small, tmp_path, kind, flags, sentence):
    (tmp_path / "a.png").touch()
    done = run_tool("train_net", *flagged(arguments(small, tmp_path, kind=kind), *flags), folder=tmp_path)
    assert done.code == 2 and sentence in done.err


@pytest.mark.parametrize("missing", ["--train-json", "--val-images"])
def test_half_a_data_set(small, tmp_path, missing):
    words = arguments(small, tmp_path)
    place = words.index(missing)
    del words[place : place + 2]
    assert_refused(run_tool("train_net", *words, folder=tmp_path), "go together")


def test_an_image_missing_on_disk(small, tmp_path):
    shutil.copytree(small.folder / "scenes", tmp_path / "scenes")
    (tmp_path / "scenes" / "train" / "000003.png").unlink()
    words = [
        str(word).replace(str(small.folder / "scenes"), str(tmp_path / "scenes")) for word in arguments(small, tmp_path)
    ]
    assert_refused(run_tool("train_net", *words, folder=tmp_path), "lacks 000003.png of the 9 images")


def test_the_store_of_another_teacher(small, store, tmp_path):
    content = torch.load(small.weights)
    content["model"]["roi_heads.box_predictor.cls_score.bias"] += 1
    torch.save(content, tmp_path / "other.pth")
    words = arguments(small, tmp_path, *stored(store), "MODEL.WEIGHTS", tmp_path / "other.pth")
    assert_refused(
        run_tool("train_net", *words, folder=tmp_path), f"{store} is stale: its targets were made with teacher"
    )
    words = arguments(small, tmp_path, *stored(store)[:2], "MODEL.WEIGHTS", tmp_path / "other.pth")
    outcome = run_tool("generate_targets", *flagged(words, "--shard-size", 4), folder=tmp_path)
    assert_refused(outcome, f"{store} holds other targets: they were made with teacher")


def test_a_teacher_that_is_not_a_number(small, tmp_path):
    content = torch.load(small.weights)
    content["model"]["roi_heads.box_predictor.cls_score.bias"][0] = torch.nan
    torch.save(content, tmp_path / "nan.pth")
    words = arguments(small, tmp_path, "MODEL.WEIGHTS", tmp_path / "nan.pth")
    assert_refused(run_tool("train_net", *words, folder=tmp_path), "not finite")
    words = arguments(small, tmp_path, "MODEL.WEIGHTS", tmp_path / "nan.pth", "MODEL.DDN.TARGETS.STORE", "store")
    assert_refused(run_tool("generate_targets", *words, folder=tmp_path), "not finite")


@pytest.mark.parametrize("flags", [[], ["--eval-only"]], ids=["training", "evaluation"])
def test_a_damaged_checkpoint(small, tmp_path, flags):
    (tmp_path / "half.pth").write_bytes(small.weights.read_bytes()[:1000])
    words = arguments(small, tmp_path, "MODEL.WEIGHTS", tmp_path / "half.pth")
    outcome = run_tool("train_net", *flagged(words, *flags), folder=tmp_path)
    assert_refused(outcome, "half.pth is not a checkpoint of weights alone, or is damaged")


@pytest.mark.parametrize(
    ("kind", "options", "parts"),
    [
        ("ddn", ("MODEL.DDN.DD_WEIGHT", 1e40), ("iteration 0: loss_ddn;", "or MODEL.DDN.DD_WEIGHT (1e+40 now)")),
        (
            "baseline",
            ("SOLVER.BASE_LR", 1e30, "SOLVER.CLIP_GRADIENTS.ENABLED", False),
            ("iteration 1: the proposals; lower SOLVER.BASE_LR (1e+30 now), or set SOLVER.CLIP_GRADIENTS.ENABLED True"),
        ),
    ],
    ids=["student", "baseline"],
)
def test_a_training_that_diverges(small, tmp_path, kind, options, parts):
    outcome = run_tool("train_net", *arguments(small, tmp_path, *options, kind=kind), folder=tmp_path)
    assert_refused(outcome, "the training diverged: not finite at ", *parts)


def test_an_evaluation_needs_weights(small, tmp_path):
    words = flagged(arguments(small, tmp_path, "MODEL.WEIGHTS", ""), "--eval-only")
    assert_refused(run_tool("train_net", *words, folder=tmp_path), "MODEL.WEIGHTS is empty")


def test_a_part_that_detectron2_does_not_know(small, tmp_path):
    words = arguments(small, tmp_path, "MODEL.BACKBONE.NAME", "build_no_backbone")
    assert_refused(run_tool("train_net", *words, folder=tmp_path), "the model cannot be built", "build_no_backbone")


def test_a_students_checkpoint_is_exported_and_no_other(trained, small, tmp_path):
    flags = ("--config-file", small.ddn, "--output", tmp_path / "exported")
    outcome = run_tool("export_student", *flags, "MODEL.WEIGHTS", small.weights, folder=tmp_path)
    assert_refused(outcome, f"{small.weights} was not distilled")
    outcome = run_tool("export_student", *flags, "MODEL.WEIGHTS", trained / "output" / LAST, folder=tmp_path)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith(f"{COMPUTES}\n")
    module = "ddn_detectron2.modeling.small_backbone"
    assert f"plain Detectron2 lacks build_small_backbone: import {module} before the model is built" in outcome.out


def test_a_full_disk_leaves_no_part_of_a_checkpoint(small, tmp_path):
    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))
        tool("train_net", *arguments(small, tmp_path, *NO_EVALUATION))

    outcome = run(limited, folder=tmp_path)
    assert outcome.code == 2, outcome.err
    assert "model_0000001.pth cannot be written" in outcome.err and "Traceback" not in outcome.err
    assert not list((tmp_path / "output").glob("*.pth"))


def test_results_that_the_config_does_not_expect(trained, small, tmp_path):
    words = arguments(small, tmp_path, "MODEL.WEIGHTS", trained / "output" / LAST, *expecting(trained, 2))
    outcome = run_tool("train_net", *flagged(words, "--eval-only"), folder=tmp_path)
    assert_refused(outcome, "the results are not those that TEST.EXPECTED_RESULTS expects")


@pytest.mark.parametrize("name", ["train_net", "generate_targets", "distill_detector"])
def test_weights_that_cannot_be_downloaded(small, tmp_path, monkeypatch, name):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    url = "http://127.0.0.1:9/model.pth"  # where nobody answers
    words = arguments(small, tmp_path, "MODEL.WEIGHTS", url, "MODEL.DDN.TARGETS.STORE", tmp_path / "store")
    outcome = run_tool(name, *words, folder=tmp_path)
    assert_refused(outcome, f"{url} cannot be read or downloaded", "get the file where there is a network")


@pytest.mark.parametrize("name", ["train_net", "generate_targets", "distill_detector"])
def test_coco_that_is_not_there(tmp_path, name):
    outcome = run_tool(name, "--config-file", "ddn_R50_FPN.yaml", folder=tmp_path)
    assert_refused(outcome, "coco_2017_train is not on disk", "instances_train2017.json", "DETECTRON2_DATASETS")


def test_targets_of_a_plain_detector(small, tmp_path):
    outcome = run_tool("generate_targets", *arguments(small, tmp_path, kind="baseline"), folder=tmp_path)
    assert_refused(outcome, "the config describes a plain detector: add --ddn")


def test_targets_without_a_place(small, tmp_path):
    outcome = run_tool("generate_targets", *arguments(small, tmp_path), folder=tmp_path)
    assert_refused(outcome, "MODEL.DDN.TARGETS.STORE must name the folder to write")


def test_shards_of_no_size(small, tmp_path):
    words = arguments(small, tmp_path, "MODEL.DDN.TARGETS.STORE", tmp_path / "store")
    outcome = run_tool("generate_targets", *flagged(words, "--shard-size", 0), folder=tmp_path)
    assert outcome.code == 2, outcome.err
    assert "Traceback" not in outcome.err
