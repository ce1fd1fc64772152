"""Target stores: the same bytes whatever happens, and refused wherever they are not for this very use."""

import copy
import os
import random

import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.modeling import build_model
from detectron2.structures import Boxes
from detectron2.utils import comm
from forked_tools import KILLED, die_at_call, fork, run, wait
from tiny_detectors import pooling, small_config

from ddn_detectron2.data import register_coco_format, write_scenes
from ddn_detectron2.engine.trainer import build_with_teacher, training_dicts
from ddn_detectron2.teaching.mapper import corner_boxes, not_crowd
from ddn_detectron2.teaching.store import check_store, dataset_fingerprint, decisive_settings, generate_targets
from ddn_detectron2.teaching.teacher import check_finite
from uncertainty_core import TargetStore, TargetStoreError

SHARD = 2


def store_of(folder):
    return "MODEL.DDN.TARGETS.STORE", folder


def generate(cfg, dicts=None):
    model = build_with_teacher(cfg, build_model(cfg))
    generate_targets(cfg, model, training_dicts(cfg) if dicts is None else dicts, SHARD)


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def check(cfg, dicts=None):
    model = build_with_teacher(cfg, build_model(cfg))
    check_store(cfg, model, training_dicts(cfg) if dicts is None else dicts)


@pytest.fixture(scope="module")
def undisturbed(small, tmp_path_factory):
    """A store that was written in one go. Not to be changed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "store"
    generate(small_config(small.ddn, "MODEL.WEIGHTS", small.weights, *store_of(folder)))
    return folder


# --- what is written ---------------------------------------------------------------------------------------------


def test_every_box_has_a_target(undisturbed, config):
    store, dicts = TargetStore(undisturbed), training_dicts(config())
    assert store.ids == [image["image_id"] for image in dicts]
    found = 0
    for image in dicts:
        target = store[image["image_id"]]
        assert torch.equal(target["boxes"], corner_boxes(not_crowd(image["annotations"])))
        assert target["logits"].shape == (len(target["boxes"]), 7)
        assert target["logits"].dtype == torch.float32
        check_finite(target["logits"])
        assert ((target["found"] >= 0) & (target["found"] <= config().MODEL.DDN.TARGETS.MC_SAMPLES)).all()
        assert not target["logits"][target["found"] == 0].any()  # uniform
        found += (target["found"] > 0).sum()
    assert found >= 3  # else this file tests little


def test_targets_are_what_the_teacher_says_of_the_image_at_test_size(undisturbed, config):
    # Scenes of 128 x 96 pixels are shown at two thirds of that, in whole pixels, and boxes with them.
    cfg = config()
    model = build_with_teacher(cfg, build_model(cfg)).eval()
    store, mapper = TargetStore(undisturbed), DatasetMapper(cfg, is_train=False)
    for image in training_dicts(cfg):
        inputs = mapper(image)
        height, width = inputs["image"].shape[1:]
        assert min(height, width) == 64
        boxes = Boxes(corner_boxes(not_crowd(image["annotations"])))
        boxes.scale(width / image["width"], height / image["height"])
        [(logits, found)] = model.roi_heads.teacher.on_ground_truth(
            *pooling(model, [inputs]),
            [boxes.tensor],
            iou_threshold=0.5,
            score_threshold=0.05,
            average="logits",
            keys=[image["image_id"]],
        )
        assert torch.equal(store[image["image_id"]]["found"], found)
        torch.testing.assert_close(store[image["image_id"]]["logits"], logits)


def test_a_second_run_does_nothing(undisturbed, config):
    before = {path.name: path.stat().st_mtime_ns for path in undisturbed.iterdir()}
    generate(config(*store_of(undisturbed)))
    assert {path.name: path.stat().st_mtime_ns for path in undisturbed.iterdir()} == before


def test_targets_do_not_depend_on_the_order_of_images(undisturbed, config, tmp_path):
    cfg = config(*store_of(tmp_path / "store"))
    dicts = training_dicts(cfg)
    random.Random(1).shuffle(dicts)
    generate(cfg, dicts)
    shuffled, store = TargetStore(tmp_path / "store"), TargetStore(undisturbed)
    assert shuffled.ids != store.ids
    for image_id in store:
        assert all(torch.equal(value, shuffled[image_id][name]) for name, value in store[image_id].items())


def test_targets_do_not_depend_on_the_global_random_state(undisturbed, config, tmp_path):
    torch.manual_seed(1234)
    generate(config(*store_of(tmp_path / "store")))
    assert files(tmp_path / "store") == files(undisturbed)


def test_targets_are_of_images_as_at_test_time(undisturbed, config, tmp_path):
    # What augments a training does not touch them.
    options = ("INPUT.MIN_SIZE_TRAIN", (40,), "INPUT.CROP.ENABLED", True, "SOLVER.MAX_ITER", 7)
    generate(config(*store_of(tmp_path / "store"), *options))
    assert files(tmp_path / "store") == files(undisturbed)


def test_an_ensemble_writes_a_store_too(small, config, tmp_path):
    other = torch.load(small.weights)
    other["model"]["roi_heads.box_predictor.cls_score.weight"] *= 1.01
    torch.save(other, tmp_path / "other.pth")
    members = ("MODEL.DDN.TEACHER.WEIGHTS", (str(small.weights), str(tmp_path / "other.pth")))
    cfg = config(*store_of(tmp_path / "store"), *members)
    generate(cfg)
    store = TargetStore(tmp_path / "store")
    assert max(int(store[image_id]["found"].max()) for image_id in store if len(store[image_id]["found"])) == 2
    check(cfg)
    with pytest.raises(TargetStoreError, match=r"stale: its targets were made with"):
        check(config(*store_of(tmp_path / "store"), *members[:1], members[1][::-1]))


# --- interruptions and ranks -------------------------------------------------------------------------------------


def generate_and_die(cfg, replacement):
    die_at_call(os, "replace", replacement)
    generate(cfg)


@pytest.mark.parametrize("replacement", sorted(random.Random(4).sample(range(1, 10), 3)))
def test_a_killed_run_started_again_ends_with_the_same_bytes(undisturbed, config, tmp_path, replacement):
    # A manifest, then two files for each of the shards: that many get their place.
    cfg = config(*store_of(tmp_path / "store"))
    assert run(generate_and_die, cfg, replacement, folder=tmp_path).code == KILLED
    assert files(tmp_path / "store") != files(undisturbed)
    if (tmp_path / "store" / "manifest.json").exists():
        with pytest.raises(TargetStoreError, match=r"unfinished: .* run the same generation again to complete it"):
            check(cfg)
    assert run(generate, cfg, folder=tmp_path).code == 0
    assert {name: content for name, content in files(tmp_path / "store").items() if ".part" not in name} == files(
        undisturbed
    )
    check(cfg)


def generate_as_rank(cfg, rank, world_size, meeting):
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size)
    assert (comm.get_rank(), comm.get_world_size()) == (rank, world_size)
    generate(cfg)


def test_two_ranks_write_what_one_writes(undisturbed, config, tmp_path):
    cfg = config(*store_of(tmp_path / "store"))
    folders = [tmp_path / f"rank{rank}" for rank in range(2)]
    for folder in folders:
        folder.mkdir()
    ranks = [
        fork(generate_as_rank, cfg, rank, 2, tmp_path / "meeting", folder=folder) for rank, folder in enumerate(folders)
    ]
    outcomes = [wait(process, folder) for process, folder in zip(ranks, folders, strict=True)]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert files(tmp_path / "store") == files(undisturbed)


# --- stores for another use --------------------------------------------------------------------------------------

OTHER = {
    "draws": ("MODEL.DDN.TARGETS.MC_SAMPLES", 3),
    "rate": ("MODEL.DDN.DROPOUT.RATE", 0.5),
    "positions": ("MODEL.DDN.DROPOUT.POSITIONS", ("fc1", "predictor")),
    "iou": ("MODEL.DDN.TARGETS.IOU", 0.7),
    "score": ("MODEL.DDN.TARGETS.SCORE_THRESH", 0.2),
    "average": ("MODEL.DDN.TARGETS.AVERAGE", "probs"),
    "seed": ("MODEL.DDN.TARGETS.SEED", 1),
    "nms": ("MODEL.ROI_HEADS.NMS_THRESH_TEST", 0.3),
    "detections": ("TEST.DETECTIONS_PER_IMAGE", 5),
    "size": ("INPUT.MIN_SIZE_TEST", 80),
    "split": ("DATASETS.TRAIN", ("tiny_val",)),
    # what decides proposals, and what is done to an image
    "proposals": ("MODEL.RPN.POST_NMS_TOPK_TEST", 10),
    "proposal-nms": ("MODEL.RPN.NMS_THRESH", 0.5),
    "anchors": ("MODEL.ANCHOR_GENERATOR.SIZES", [[10, 20, 30]]),
    "pixels": ("MODEL.PIXEL_STD", [1.0, 1.0, 1.0]),
    "fusion": ("MODEL.FPN.FUSE_TYPE", "avg"),
    "precomputed": ("DATASETS.PROPOSAL_FILES_TRAIN", ("other.pkl",)),
    "box-weights": ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", (5.0, 5.0, 2.0, 2.0)),
}


@pytest.mark.parametrize("name", OTHER)
def test_a_store_made_otherwise_is_refused_in_one_sentence(undisturbed, config, name):
    cfg = config(*store_of(undisturbed), *OTHER[name])
    with pytest.raises(TargetStoreError, match=r"is stale: its targets were made with .*, not ") as caught:
        check(cfg)
    assert "\n" not in str(caught.value)
    before = files(undisturbed)
    with pytest.raises(TargetStoreError, match=r"holds other targets: they were made with .*, not ") as caught:
        generate(cfg)
    assert "\n" not in str(caught.value)
    assert files(undisturbed) == before


@pytest.mark.parametrize("part", ["backbone.", "proposal_generator.", "roi_heads.box_head", "roi_heads.box_predictor"])
def test_the_store_of_another_teacher_is_refused(undisturbed, small, config, tmp_path, part):
    content = torch.load(small.weights)
    [name, *_] = [name for name in content["model"] if name.startswith(part) and name.endswith("weight")]
    content["model"][name] *= 1.001
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(TargetStoreError, match=r"stale: its targets were made with (teacher|student) "):
        check(config(*store_of(undisturbed), "MODEL.WEIGHTS", tmp_path / "other.pth"))


@pytest.mark.parametrize(
    "options",
    [
        ("MODEL.DDN.DD_WEIGHT", 2.0),
        ("SOLVER.BASE_LR", 0.5, "SOLVER.IMS_PER_BATCH", 1),
        ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.3),
        ("INPUT.MIN_SIZE_TRAIN", (32,), "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 8),
        ("MODEL.DDN.FREEZE", ("box_regression",)),
        ("MODEL.DDN.TEST.MC_SAMPLES", 4),
    ],
    ids=str,
)
def test_a_store_serves_many_trainings(undisturbed, config, options):
    check(config(*store_of(undisturbed), *options))


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image["annotations"][0].__setitem__("bbox", [0, 0, 5, 5]),
        lambda image: image["annotations"][0].__setitem__("category_id", 5 - image["annotations"][0]["category_id"]),
        lambda image: image["annotations"].pop(),
        lambda image: image["annotations"].reverse(),
        lambda image: image.__setitem__("width", 12),
    ],
    ids=["moved", "relabelled", "fewer", "order", "size"],
)
def test_a_changed_annotation_file_is_refused(undisturbed, config, change):
    cfg = config(*store_of(undisturbed))
    dicts = training_dicts(cfg)
    change(next(image for image in dicts if len(not_crowd(image["annotations"])) > 1))
    with pytest.raises(TargetStoreError, match="stale: its targets were made with annotations "):
        check(cfg, dicts)


def test_the_loss_decides_no_target(config):
    average = ("MODEL.DDN.TARGETS.AVERAGE", "probs")
    assert decisive_settings(config(*average)) == decisive_settings(config(*average, "MODEL.DDN.LOSS", "kl"))


def test_the_fingerprint_is_of_content_not_of_places(config):
    dicts = training_dicts(config())
    moved = copy.deepcopy(dicts)
    for image in moved:
        image["file_name"] = "/elsewhere/" + image["file_name"]
        image["annotations"].append({"bbox": [0, 0, 1, 1], "bbox_mode": 1, "category_id": 0, "iscrowd": 1})
    assert dataset_fingerprint(moved) == dataset_fingerprint(dicts)
    assert dataset_fingerprint(dicts[1:]) != dataset_fingerprint(dicts)


# --- images that the store lacks ---------------------------------------------------------------------------------


@pytest.fixture
def more(small, tmp_path):
    """The name of a set of more images, the first of which are those of the store."""
    path = write_scenes(tmp_path / "more", "train", 12, progress=False)
    register_coco_format(f"more_{tmp_path.name}", path, tmp_path / "more" / "train")
    return f"more_{tmp_path.name}"


def test_images_without_a_target_are_an_error(undisturbed, config, more):
    with pytest.raises(TargetStoreError, match="stale: its targets were made with DATASETS"):
        check(config(*store_of(undisturbed), "DATASETS.TRAIN", (more,)))


def test_images_without_a_target_are_trained_on_their_labels_by_flag(undisturbed, config, more):
    check(config(*store_of(undisturbed), "DATASETS.TRAIN", (more,), "MODEL.DDN.TARGETS.MISSING", "ground_truth"))


def test_by_flag_another_teacher_is_still_refused(undisturbed, config):
    options = ("MODEL.DDN.TARGETS.MISSING", "ground_truth", "MODEL.DDN.TARGETS.MC_SAMPLES", 3)
    with pytest.raises(
        TargetStoreError, match=r"stale: its targets were made with MODEL\.DDN\.TARGETS\.MC_SAMPLES 10, not 3"
    ):
        check(config(*store_of(undisturbed), *options))


def test_no_store_is_said_in_one_sentence(config, tmp_path):
    with pytest.raises(TargetStoreError, match=r"is not a target store: it has no manifest.json"):
        check(config(*store_of(tmp_path / "nothing")))
