"""Stores of a teacher's uncertainty: what it says at test time, the same bytes whatever happens, and no other's."""

import copy
import os
import random
from types import SimpleNamespace

import pytest
import torch
from forked_tools import COMPUTES, KILLED, die_at_call, fork, run, run_tool, wait
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.dist import get_dist_info
from mmengine.registry import DATASETS
from mmseg.registry import MODELS
from PIL import Image
from tiny_segmentors import NUM_CLASSES, segmentor_config, student_config

from dudes_mmseg.cli import ConfigError
from dudes_mmseg.targets.check import CheckTargetsHook
from dudes_mmseg.targets.contents import Contents
from dudes_mmseg.targets.generate import generate_targets, inference_pipeline
from uncertainty_core import TargetStore, TargetStoreError
from uncertainty_core.targets.top_k import decode_top_k

SHARD = 2
NAMES = ("a/0.png", "a/1.png", "b/0.png", "b/1.png", "b/2.png")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images of two sizes in two folders with labels, and the checkpoints of two members. Not to be changed."""
    folder, draw = tmp_path_factory.mktemp("data"), random.Random(0)
    for number, name in enumerate(NAMES):
        for kind, channels in (("images", 3), ("labels", 1)):
            path = folder / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            size = (40, 30) if number % 2 else (36, 28)
            values = torch.tensor([draw.randrange(256 if channels == 3 else NUM_CLASSES) for _ in range(9 * channels)])
            picture = Image.fromarray(values.view(3, 3, channels).squeeze(-1).byte().numpy())
            picture.resize(size, Image.Resampling.NEAREST).save(path)
    for member in range(2):
        torch.manual_seed(member)
        network = MODELS.build(segmentor_config())
        network.init_weights()
        torch.nn.init.normal_(network.decode_head.conv_seg.weight, std=1)  # else all members say the same
        torch.save({"state_dict": network.state_dict()}, folder / f"member_{member}.pth")
    return folder


def loader(data, pipeline, **options):
    dataset = {
        "type": "BaseSegDataset",
        "data_root": str(data),
        "data_prefix": {"img_path": "images", "seg_map_path": "labels"},
        "img_suffix": ".png",
        "metainfo": {"classes": [str(c) for c in range(NUM_CLASSES)]},
        "pipeline": pipeline,
    }
    sampler = {"type": "DefaultSampler", "shuffle": False}
    return {"batch_size": 1, "num_workers": 0, "sampler": sampler, "dataset": dataset | options}


def steps(*kinds, **last):
    return [{"type": kind} for kind in kinds[:-1]] + [{"type": kinds[-1], **last}]


def teacher_config(data, **model):
    """A teacher whose training augments what its targets must not see."""
    crop = steps("LoadImageFromFile", "LoadAnnotations", "RandomCrop", crop_size=(8, 8))
    test = [{"type": "LoadImageFromFile"}, {"type": "Resize", "scale": (64, 48), "keep_ratio": True}]
    test += steps("LoadAnnotations", "PackSegInputs")
    ensemble = {"type": "DeepEnsembleSegmentor", "checkpoints": str(data / "member_*.pth")}
    return Config(
        {
            "default_scope": "mmseg",
            "model": {"segmentor": segmentor_config(), **ensemble, **model},
            "train_dataloader": loader(data, [*crop, {"type": "PackUncertaintyInputs"}]),
            "test_dataloader": loader(data, test, data_prefix={"img_path": "images/b"}),
        }
    )


def with_model(cfg, model):
    """A config with that model in the place of its own."""
    return Config({**cfg.to_dict(), "model": model})


def mc_dropout(data, **options):
    member = {"segmentor": segmentor_config(), "checkpoint": str(data / "member_0.pth")}
    return with_model(teacher_config(data), {"type": "MCDropoutSegmentor", **member, "num_samples": 3, **options})


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix != ".part"}


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """A store that was written in one go. Not to be changed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "store"
    generate_targets(teacher_config(data), str(folder), shard_size=SHARD)
    return folder


# What is written


@pytest.fixture(scope="module")
def stacked(data):
    """By image the members' softmax (M, C, H, W), each at the size of the file, from each member alone."""
    both = {"img_path": "images", "seg_map_path": "labels"}
    images = DATASETS.build(teacher_config(data).test_dataloader.dataset | {"data_prefix": both})
    found = {name: [] for name in NAMES}
    for member in range(2):
        network = MODELS.build(segmentor_config()).eval()
        network.load_state_dict(torch.load(data / f"member_{member}.pth")["state_dict"])
        for name, inputs in zip(NAMES, images, strict=True):
            [said] = network.test_step(pseudo_collate([inputs]))
            found[name].append(said.seg_logits.data.softmax(0))
    return {name: torch.stack(members) for name, members in found.items()}


@pytest.mark.parametrize("class_wise", [False, True])
def test_targets_are_the_deviation_over_members_at_file_size(data, undisturbed, stacked, tmp_path, class_wise):
    store = TargetStore(undisturbed)
    if class_wise:
        generate_targets(teacher_config(data), str(tmp_path / "store"), contents=Contents(class_wise=True))
        store = TargetStore(tmp_path / "store")
    assert sorted(store.ids) == list(NAMES)
    for name in NAMES:
        std = stacked[name].std(0, correction=1)
        if not class_wise:
            std = std.gather(0, stacked[name].mean(0).argmax(0, keepdim=True))[0]
        assert store[name]["uncertainty"].dtype == torch.uint16
        back = store[name]["uncertainty"].double() * (0.5**0.5 / 65535)
        torch.testing.assert_close(back, std.double(), atol=7e-6, rtol=0)
        assert std.max() > 0.01  # else this says little
        assert store[name]["image_bytes"] == os.path.getsize(data / "images" / name)


@pytest.mark.parametrize("kind", ["ensemble", "dropout"])
def test_mean_probabilities_beside_the_deviation(data, undisturbed, stacked, tmp_path, kind):
    cfg = teacher_config(data) if kind == "ensemble" else mc_dropout(data)
    generate_targets(cfg, str(tmp_path / "store"), contents=Contents(top_k=2))
    store = TargetStore(tmp_path / "store")
    assert Contents.of_store(store) == Contents(top_k=2) and Contents.of_store(TargetStore(undisturbed)) == Contents()
    teacher = MODELS.build(cfg.model)
    images = DATASETS.build(cfg.train_dataloader.dataset | {"pipeline": inference_pipeline(cfg)})
    for name, inputs in zip(NAMES, images, strict=True):
        [said] = teacher.test_step(pseudo_collate([inputs]))
        mean = stacked[name].mean(0) if kind == "ensemble" else said.seg_logits.data.softmax(0)
        found = decode_top_k(store[name]["probabilities"][None], NUM_CLASSES)[0]
        largest, classes = mean.topk(2, dim=0)
        torch.testing.assert_close(found.gather(0, classes), largest, atol=0.006, rtol=0)
        if kind == "ensemble":
            assert torch.equal(store[name]["uncertainty"].int(), TargetStore(undisturbed)[name]["uncertainty"].int())
    with pytest.raises(TargetStoreError, match=r"holds other targets: they were made with top_k 2"):
        generate_targets(cfg, str(tmp_path / "store"))


def test_a_second_run_does_nothing(data, undisturbed):
    before = {path.name: path.stat().st_mtime_ns for path in undisturbed.iterdir()}
    generate_targets(teacher_config(data), str(undisturbed), shard_size=SHARD)
    assert {path.name: path.stat().st_mtime_ns for path in undisturbed.iterdir()} == before


def test_what_does_not_change_targets_does_not_change_bytes(data, undisturbed, tmp_path):
    cfg = teacher_config(data, resident=True)
    cfg.train_dataloader.num_workers = 1
    cfg.train_dataloader.dataset = {"type": "RepeatDataset", "times": 3, "dataset": cfg.train_dataloader.dataset}
    cfg.model.segmentor.decode_head.init_cfg = None
    cfg.model.segmentor.auxiliary_head = cfg.model.segmentor.decode_head
    generate_targets(cfg, str(tmp_path / "store"), shard_size=SHARD)
    assert files(tmp_path / "store") == files(undisturbed)


def test_data_sets_in_one_have_ids_from_their_common_folder(data, undisturbed, tmp_path):
    cfg = teacher_config(data)
    parts = [copy.deepcopy(cfg.train_dataloader.dataset) for _ in range(2)]
    for part, folder in zip(parts, ("a", "b"), strict=True):
        part.data_prefix = {"img_path": f"images/{folder}", "seg_map_path": f"labels/{folder}"}
    cfg.train_dataloader.dataset = {"type": "ConcatDataset", "datasets": parts}
    generate_targets(cfg, str(tmp_path / "store"), shard_size=SHARD)
    assert files(tmp_path / "store") == files(undisturbed)


def test_monte_carlo_dropout_depends_on_its_seed_and_nothing_else(data, tmp_path):
    stores = []
    for number, seed in enumerate((0, 0, 1)):
        torch.manual_seed(number)
        generate_targets(mc_dropout(data, seed=seed), str(tmp_path / str(number)), "test")
        stores.append(TargetStore(tmp_path / str(number)))
    assert stores[0].ids == ["0.png", "1.png", "2.png"]  # of the other split, below its own folder
    first, again, other = (store["0.png"]["uncertainty"].int() for store in stores)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# Interruptions and ranks


def generate_and_die(cfg, store, replacement):
    die_at_call(os, "replace", replacement)
    generate_targets(cfg, store, shard_size=SHARD)


@pytest.mark.parametrize("replacement", [1, 4])
def test_a_killed_run_started_again_ends_with_the_same_bytes(data, undisturbed, tmp_path, replacement):
    # a manifest, then two files for each of three shards: that many get their place
    cfg, store = teacher_config(data), tmp_path / "store"
    assert run(generate_and_die, cfg, str(store), replacement, folder=tmp_path).code == KILLED
    assert files(store) != files(undisturbed)
    generate_targets(cfg, str(store), shard_size=SHARD)
    assert files(store) == files(undisturbed)


def as_rank(cfg, store, rank, meeting):
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    assert get_dist_info() == (rank, 2)
    generate_targets(cfg, store, shard_size=SHARD)


def test_two_ranks_write_what_one_writes(data, undisturbed, tmp_path):
    folders = [tmp_path / f"rank{rank}" for rank in range(2)]
    for folder in folders:
        folder.mkdir()
    arguments = teacher_config(data), str(tmp_path / "store")
    ranks = [fork(as_rank, *arguments, rank, tmp_path / "meeting", folder=folders[rank]) for rank in range(2)]
    outcomes = [wait(process, folder) for process, folder in zip(ranks, folders, strict=True)]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert files(tmp_path / "store") == files(undisturbed)


# Another teacher, another data set


def other_weights(data, cfg, folder):
    content = torch.load(data / "member_1.pth")
    content["state_dict"]["decode_head.conv_seg.bias"] += 1
    torch.save(content, folder / "other.pth")
    cfg.model.checkpoints = [str(data / "member_0.pth"), str(folder / "other.pth")]


def another_image(data, cfg, folder):
    for name in NAMES:
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((data / "images" / name).read_bytes() + (b"?" if name == NAMES[3] else b""))
    cfg.train_dataloader.dataset.data_prefix = {"img_path": str(folder / "images")}


OTHERS = {
    "members": other_weights,
    "ddof": lambda data, cfg, folder: cfg.model.update(ddof=0),
    "pipeline": lambda data, cfg, folder: cfg.test_dataloader.dataset.pipeline[1].update(scale=(48, 36)),
    "images": another_image,
    "segmentor": lambda data, cfg, folder: cfg.model.segmentor.update(
        test_cfg={"mode": "slide", "crop_size": (24, 24), "stride": (12, 12)}
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_store_made_otherwise_is_refused_in_one_sentence(data, undisturbed, tmp_path, name):
    cfg, before = teacher_config(data), files(undisturbed)
    OTHERS[name](data, cfg, tmp_path)
    with pytest.raises(TargetStoreError, match=f"holds other targets: they were made with {name} .*, not ") as caught:
        generate_targets(cfg, str(undisturbed), shard_size=SHARD)
    assert "\n" not in str(caught.value)
    assert files(undisturbed) == before


def test_a_store_of_other_contents_is_refused(data, undisturbed):
    before = files(undisturbed)
    for contents, name in ((Contents(class_wise=True), "class_wise"), (Contents(top_k=2), "top_k")):
        with pytest.raises(TargetStoreError, match=f"holds other targets: they were made with.* {name} "):
            generate_targets(teacher_config(data), str(undisturbed), contents=contents)
    assert files(undisturbed) == before


def test_what_is_no_teacher_is_refused(data, tmp_path):
    for model in (segmentor_config(), student_config()):
        with pytest.raises(ConfigError, match=f"model.type is {model['type']}, which is no teacher: give the config"):
            generate_targets(with_model(teacher_config(data), model), str(tmp_path / "store"))
    assert not (tmp_path / "store").exists()


def test_a_config_without_data_is_refused(data, tmp_path):
    for split, name, use in (("val", "val", "which images are meant"), ("train", "test", "how they are shown")):
        cfg = teacher_config(data)
        cfg.pop(f"{name}_dataloader", None)
        with pytest.raises(ConfigError, match=f"the config has no {name}_dataloader, which decides {use}"):
            generate_targets(cfg, str(tmp_path / "store"), split)
    cfg = teacher_config(data)
    cfg.train_dataloader.dataset.img_suffix = ".jpg"
    with pytest.raises(ConfigError, match=r"cannot be read \(.*\): check data_root, data_prefix, img_suffix"):
        generate_targets(cfg, str(tmp_path / "store"))


# The command line, and what the store is for


@pytest.fixture
def config_file(data, tmp_path):
    teacher_config(data).dump(tmp_path / "teacher.py")
    return tmp_path / "teacher.py"


def generate(config_file, *words):
    return run_tool("generate_targets", "--task", "segmentation", config_file, *words, folder=config_file.parent)


def test_the_tool_writes_the_same(undisturbed, config_file):
    outcome = generate(config_file, "--store", "store", "--shard-size", SHARD)
    assert (outcome.code, outcome.out) == (0, f"{COMPUTES}\ntargets: store\n"), outcome.err
    assert outcome.err == "log: work_dirs/teacher/log.txt\n"
    assert files(config_file.parent / "store") == files(undisturbed)
    outcome = generate(config_file, "--store", "store", "--class-wise", "--shard-size", SHARD)
    assert (outcome.code, outcome.err[:39]) == (2, "error: store holds other targets: they ")


def test_the_tools_options(config_file):
    ddof = ("--cfg-options", "model.ddof=0")
    outcome = generate(config_file, "--store", "store", "--split", "test", "--class-wise", "--top-k", 2, *ddof)
    assert outcome.code == 0, outcome.err
    store = TargetStore(config_file.parent / "store")
    assert (len(store), store.fingerprint["class_wise"], store.fingerprint["ddof"]) == (3, True, 0)
    assert store["0.png"]["uncertainty"].shape[0] == NUM_CLASSES and len(store["0.png"]["probabilities"]) == 2
    for words in (["--shard-size", 0], ["--split", "all"], ["--top-k", -1]):
        outcome = generate(config_file, "--store", "store", *words)
        assert outcome.code == 2
        assert "Traceback" not in outcome.err


@pytest.mark.parametrize("top_k", [0, 3])
def test_a_student_reads_what_was_written(data, undisturbed, tmp_path, top_k):
    student = {"loss_distillation": {"type": "MeanProbabilityLoss"}} if top_k else {}
    if top_k:
        undisturbed = tmp_path / "store"
        generate_targets(teacher_config(data), str(undisturbed), contents=Contents.for_student(student))
    loading = steps("LoadImageFromFile", "LoadAnnotations", "LoadUncertaintyTarget", store=str(undisturbed))
    moves = [
        {"type": "RandomResize", "scale": (40, 30), "ratio_range": (0.5, 2.0)},
        {"type": "RandomFlip", "prob": 0.5},
    ]
    crop = [{"type": "RandomCrop", "crop_size": (24, 32)}, {"type": "PackUncertaintyInputs"}]
    dataset = DATASETS.build(loader(data, [*loading, *moves, *crop])["dataset"])
    loaded = SimpleNamespace(dataset=dataset)
    CheckTargetsHook().before_train(SimpleNamespace(train_dataloader=loaded, cfg=Config({"model": student})))
    student = MODELS.build(student_config(**student)).train()
    batch = student.data_preprocessor(pseudo_collate([dataset[index] for index in range(len(dataset))]), True)
    losses = student(**batch, mode="loss")
    assert losses["uncertainty.loss_rmsle"] > 0
    losses["uncertainty.loss_rmsle"].backward(retain_graph=True)
    assert student.uncertainty_head.conv.weight.grad.abs().sum() > 0
    assert ("distillation.loss_kl" in losses) == (top_k > 0)
    if top_k:
        student.zero_grad()
        losses["distillation.loss_kl"].backward()
        assert losses["distillation.loss_kl"] > 0 and student.decode_head.conv_seg.weight.grad.abs().sum() > 0
