"""LazyConfigs: converted, and through the command line distilled, killed, resumed, evaluated and exported."""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import build_model
from forked_tools import KILLED, die_at_call, fork, run_tool, tool, wait
from fvcore.common.checkpoint import PeriodicCheckpointer
from omegaconf import OmegaConf
from tiny_detectors import images, same, small_config

from ddn_detectron2.config import ConfigError
from ddn_detectron2.convert import is_ddn, to_ddn, to_plain
from ddn_detectron2.convert.lazy import check_lazy
from ddn_detectron2.lazy import build_network
from ddn_detectron2.lazy.config import set_fine_tuning
from uncertainty_core import dropout_modules

SMALL = Path(__file__).with_name("small_detector.py")
# 100ep: a head of convolutions, with functions that no file can hold
ZOO = [
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.py",
    "new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py",
    "common/models/cascade_rcnn.py",
    "common/models/panoptic_fpn.py",
]


def overridden(cfg, *overrides):
    return LazyConfig.apply_overrides(cfg, list(overrides))


def small_ddn(*overrides):
    return overridden(to_ddn(LazyConfig.load(str(SMALL))), *overrides)


# --- conversion --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_converts_there_and_back_with_the_same_weights(name):
    cfg, untouched = model_zoo.get_config(name), model_zoo.get_config(name)
    ddn = to_ddn(cfg)
    check_lazy(ddn)
    assert is_ddn(ddn)
    assert not is_ddn(cfg)
    assert OmegaConf.to_yaml(cfg.model.proposal_generator) == OmegaConf.to_yaml(untouched.model.proposal_generator)
    assert to_plain(ddn) == cfg
    assert to_ddn(ddn) == ddn
    with torch.device("meta"):  # real widths, without the memory
        student, plain = instantiate(ddn.model), instantiate(cfg.model)
    assert student.state_dict().keys() == plain.state_dict().keys()
    assert len(dropout_modules(student)) == (3 if "cascade" in name else 1)
    assert not any(value.requires_grad for value in student.backbone.parameters())


def test_others_are_refused():
    with pytest.raises(ConfigError, match=r"model is 'RetinaNet': only models with GeneralizedRCNN or PanopticFPN"):
        to_ddn(model_zoo.get_config("COCO-Detection/retinanet_R_50_FPN_1x.py"))
    cfg = LazyConfig.load(str(SMALL))
    cfg.model.roi_heads.box_head._target_ = "torch.nn.Flatten"
    with pytest.raises(ConfigError, match=r"model.roi_heads.box_head is 'Flatten': only .* FastRCNNConvFCHead"):
        to_ddn(cfg)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("teacher.source=store", r"teacher.source must be one of \('online', 'none'\), got 'store'"),
        ("model.roi_heads.targets.match=iou", "roi_heads.targets.match must be one of"),
        ("model.roi_heads.targets.average=logits", None),
        ("model.roi_heads.targets.share=2", "share must lie between 0 and 1, got 2"),
        ("model.roi_heads.box_predictor.loss=l2", "box_predictor.loss must be one of"),
        ("model.freeze=[rpn]", "each of model.freeze, .'rpn'., must be one of"),
        ("model.roi_heads.test.mc_samples=-1", "test.mc_samples at least 0"),
        ("model.roi_heads.test.ensemble=true", "averages the members in teacher.weights: name them"),
        ("model.roi_heads.box_head.dropout_after=[]", "there is no dropout"),
        ("model.roi_heads.test.box_calibrator.path=a.json", "box_calibrator scales deviations of boxes: set box_std"),
        ("teacher.out_of_fold=true", "is of ensembles: name the members in teacher.weights"),
        ("teacher.mc_samples=0", "teacher.mc_samples must be at least 1"),
    ],
)
def test_settings_that_cannot_work(override, message):
    cfg = small_ddn(override)
    if message is None:
        check_lazy(cfg)
        cfg.model.roi_heads.box_head.dropout_after, cfg.model.roi_heads.box_predictor.dropout_rate = [], 0.2
        message = "an empty lesson"
    with pytest.raises(ConfigError, match=message):
        check_lazy(cfg)


def test_it_is_the_detector_of_the_yaml_form(small):
    """The same weights detect the same, once and in Monte-Carlo passes."""
    heads = "model.roi_heads"
    weights = torch.load(small.weights, weights_only=True)["model"]
    for options, overrides in (
        (("MODEL.DDN.TARGETS.MATCH", "per_proposal"), ()),
        (("MODEL.DDN.TEST.MC_SAMPLES", 2), (f"{heads}.test.mc_samples=2", f"{heads}.targets.match=gt_iou")),
    ):
        ours = build_network(small_ddn(f"{heads}.box_head.dropout_rate=0.3", *overrides))
        theirs = build_model(small_config(small.ddn, *options))
        for model in (ours, theirs):
            model.load_state_dict(weights)
            model.eval()
        with torch.no_grad():
            found = [[result["instances"] for result in model(images())] for model in (ours, theirs)]
        assert sum(map(len, found[0])) > 0
        assert all(same(one, other) for one, other in zip(*found, strict=True))
        assert ours.roi_heads.target_settings.match == theirs.roi_heads.target_settings.match
        assert ours.roi_heads.box_predictor.foreground_only == theirs.roi_heads.box_predictor.foreground_only


def test_the_documented_form_is_what_conversion_makes(tmp_path):
    page = (Path(__file__).resolve().parents[3] / "docs" / "your-own-model.md").read_text(encoding="utf-8")
    [written] = re.findall(r"^```python\n(# my_student.py\nfrom detectron2.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "my_student.py").write_text(written)
    (tmp_path / "my_detector.py").write_text(SMALL.read_text())
    by_hand, converted = LazyConfig.load(str(tmp_path / "my_student.py")), small_ddn()
    check_lazy(by_hand)
    # what the page does otherwise: freeze what is there, another loss, no calibrator
    converted.model.freeze, converted.model.roi_heads.box_predictor.loss = ["mask_head"], "kl"
    converted.model.roi_heads.test.calibrator = converted.model.roi_heads.test.box_calibrator = None
    assert by_hand.model == converted.model
    assert by_hand.teacher == converted.teacher


def test_the_schedule_of_fine_tuning():
    cfg = small_ddn("train.max_iter=400")
    set_fine_tuning(cfg, ["train.max_iter"])
    assert cfg.train.max_iter == 400
    assert cfg.optimizer.lr == pytest.approx(0.02 / 20)
    assert cfg.train.checkpointer.period == 100
    multiplier = instantiate(cfg.lr_multiplier)
    # 40 of 400 iterations warm up from a thousandth
    assert [multiplier(where) for where in (0.0, 0.05, 0.1, 0.99, 1.0)] == pytest.approx([0.001, 0.5005, 1, 1, 1])
    chosen = small_ddn("optimizer.lr=0.5")
    set_fine_tuning(chosen, ["optimizer.lr", "lr_multiplier.milestones"])
    assert (chosen.optimizer.lr, chosen.train.max_iter) == (0.5, 1000)
    assert list(chosen.lr_multiplier.milestones) == [3]


# --- the command line --------------------------------------------------------------------------------------------


def words(small, *overrides, config=SMALL, flags=("--ddn",)):
    # the schedule that the test config has, but for its iterations, is that of `--ddn`
    return ["--config-file", config, *flags, f"train.init_checkpoint={small.weights}", "train.max_iter=4", *overrides]


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    """A folder after a training of four steps. Not to be changed."""
    folder = tmp_path_factory.mktemp("lazy")
    outcome = run_tool("train_net", *words(small), folder=folder)
    assert outcome.code == 0, outcome.err
    assert "schedule: 4 iterations, learning rate 0.001" in outcome.out
    assert "calibration" in outcome.out
    return folder


def checkpoint(folder, name="model_final.pth"):
    return torch.load(folder / "output" / name, weights_only=True)


def test_a_student_learns_in_its_box_head_alone(small, trained):
    before, after = torch.load(small.weights, weights_only=True)["model"], checkpoint(trained)["model"]
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {name for name in after if name.startswith(("roi_heads.box_head.", "roi_heads.box_predictor."))}
    logged = (trained / "output" / "metrics.json").read_text().splitlines()
    last = {key: value for line in logged for key, value in json.loads(line).items()}
    assert last["loss_ddn"] > 0
    assert "bbox/AP" in last


def test_a_killed_training_goes_on_bit_for_bit(small, trained, tmp_path):
    def killed(*arguments):
        die_at_call(PeriodicCheckpointer, "step", 3)  # of four; a checkpoint after each
        tool("train_net", *arguments)

    outcome = wait(fork(killed, *words(small), folder=tmp_path), tmp_path)
    assert outcome.code == KILLED
    assert checkpoint(tmp_path, "model_0000001.pth")["iteration"] == 1
    outcome = run_tool("train_net", *words(small, flags=("--ddn", "--resume")), folder=tmp_path)
    assert outcome.code == 0, outcome.err
    ours, undisturbed = checkpoint(tmp_path), checkpoint(trained)
    assert ours.keys() == undisturbed.keys()
    assert all(torch.equal(value, undisturbed["model"][name]) for name, value in ours["model"].items())


def test_monte_carlo_rows(small, trained, tmp_path):
    student = f"train.init_checkpoint={trained / 'output' / 'model_final.pth'}"
    options = (student, "model.roi_heads.test.mc_samples=3")
    outcome = run_tool("train_net", *words(small, *options, flags=("--ddn", "--eval-only")), folder=tmp_path)
    assert outcome.code == 0, outcome.err
    found = json.loads((tmp_path / "output/inference/tiny_val/coco_instances_results.json").read_text())
    assert len(found) > 0
    assert all("score_std" in one for one in found)


PLAIN = textwrap.dedent(
    """
    import sys
    import torch
    torch.set_num_threads(1)
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import LazyConfig, instantiate
    cfg = LazyConfig.load("exported/config.yaml")
    assert "ddn" not in str(cfg.model.roi_heads).lower() and "teacher" not in cfg
    model = instantiate(cfg.model).eval()
    DetectionCheckpointer(model).load(cfg.train.init_checkpoint)
    with torch.no_grad():
        found = [result["instances"] for result in model(torch.load("inputs.pth", weights_only=True))]
    torch.save([{k: getattr(v, "tensor", v) for k, v in one.get_fields().items()} for one in found], "found.pth")
    """
)


def test_what_is_exported_is_plain(small, trained, tmp_path):
    student = trained / "output" / "model_final.pth"
    outcome = run_tool(
        "export_student",
        *words(small, f"train.init_checkpoint={student}", flags=("--ddn", "--output", "exported")),
        folder=tmp_path,
    )
    assert outcome.code == 0, outcome.err
    assert "config.yaml, for LazyConfig.load" in outcome.out
    torch.save(images(), tmp_path / "inputs.pth")
    subprocess.run([sys.executable, "-c", PLAIN], check=True, cwd=tmp_path)
    model = build_network(small_ddn()).eval()
    model.load_state_dict(torch.load(student, weights_only=True)["model"])
    with torch.no_grad():
        own = [result["instances"].get_fields() for result in model(images())]
    for one, other in zip(own, torch.load(tmp_path / "found.pth", weights_only=True), strict=True):
        assert all(torch.equal(getattr(value, "tensor", value), other[name]) for name, value in one.items())


def test_a_lazy_student_is_a_graph(small, trained, tmp_path):
    pytest.importorskip("onnxruntime")
    student = trained / "output" / "model_final.pth"
    flags = ("--ddn", "--output", "exported")
    outcome = run_tool("export", *words(small, f"train.init_checkpoint={student}", flags=flags), folder=tmp_path)
    assert outcome.code == 0, outcome.err
    assert float(re.search(r"differ by at most (\S+)", outcome.out)[1]) < 1e-4


def test_mistakes_end_in_one_sentence(small, tmp_path):
    (tmp_path / "broken.py").write_text("from detectron2.config import LazyCall as L\nmodel = L(nothing)()\n")
    (tmp_path / "half.py").write_text("from detectron2.config import LazyCall as L\nmodel = L(print)()\n")
    for arguments, sentence in (
        (words(small, "train.max_itre=4"), "the config has no key train.max_itre; did you mean max_iter?"),
        (words(small, "trian.max_iter=4"), "the config has no key trian.max_iter; did you mean train?"),
        (words(small, "train.max_iter=1e3"), "train.max_iter must be a whole number of at least 1, got 1000.0"),
        (words(small, "SEED", "3"), "the values of a LazyConfig are given as key=value, got SEED"),
        (words(small, "model.roi_heads.num_classes=2"), "set MODEL.ROI_HEADS.NUM_CLASSES 6"),
        (words(small, "train.init_checkpoint=none.pth"), "train.init_checkpoint: there is no file none.pth"),
        (words(small, config=tmp_path / "broken.py"), "broken.py: NameError: name 'nothing' is not defined"),
        (words(small, config=tmp_path / "half.py"), "half.py sets no dataloader: a LazyConfig for a training has"),
        (
            words(small, "optimizer.lr=1e30", "train.clip_gradients=null"),
            "the training diverged: .* lower optimizer.lr",
        ),
        (words(small, "optimizer.lrr=1"), "the optimizer cannot be built: .* unexpected keyword argument 'lrr'"),
    ):
        outcome = run_tool("train_net", *arguments, folder=tmp_path)
        assert outcome.code == 2, outcome.err
        assert re.search(f"error: .*{sentence}", outcome.err), outcome.err
        assert "Traceback" not in outcome.err
