"""Images without labels: a student learns from them what it learns from the same images with labels of no weight."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from mmengine.structures import PixelData
from PIL import Image
from tiny_segmentors import HEIGHT, NUM_CLASSES, WIDTH, build, head, student_config

from dudes_mmseg.data import with_unlabelled_images
from dudes_mmseg.data.unlabelled import unlabelled_images
from dudes_mmseg.targets.codec import CODEC, encode_target
from uncertainty_core import write_targets
from uncertainty_core.errors import UserError

COUNT = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images with labels, and their targets. Not to be changed."""
    folder, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    targets = {}
    for number in range(COUNT):
        for kind, size, high in (("images", (HEIGHT, WIDTH, 3), 256), ("labels", (HEIGHT, WIDTH), NUM_CLASSES)):
            (folder / kind).mkdir(exist_ok=True)
            path = folder / kind / f"{number}.png"
            Image.fromarray(draw.integers(high, size=size, dtype=np.uint8)).save(path)
        std, entropy = torch.from_numpy(draw.random((2, HEIGHT, WIDTH))).float() / 2
        mean = torch.from_numpy(draw.random((NUM_CLASSES, HEIGHT, WIDTH))).softmax(0)
        targets[f"{number}.png"] = encode_target(
            std, folder / "images" / f"{number}.png", {"entropy": entropy}, mean, NUM_CLASSES
        )
    settings = {"codec": CODEC, "outputs": ["std", "entropy"], "top_k": NUM_CLASSES}
    write_targets(folder / "store", list(targets), lambda ids: (targets[id_] for id_ in ids), settings, progress=False)
    return folder


def config(folder, **options):
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations"},
        {"type": "LoadUncertaintyTarget", "store": str(folder / "store")},
        {"type": "RandomResize", "scale": (WIDTH, HEIGHT), "ratio_range": (1.0, 1.5), "keep_ratio": True},
        {"type": "RandomCrop", "crop_size": (HEIGHT, WIDTH)},
        {"type": "RandomFlip", "prob": 0.5},
        {"type": "PackUncertaintyInputs"},
    ]
    dataset = {
        "type": "BaseSegDataset",
        "data_root": str(folder),
        "data_prefix": {"img_path": "images", "seg_map_path": "labels"},
        "img_suffix": ".png",
        "metainfo": {"classes": list("abcd")},
        "pipeline": pipeline,
    }
    return Config({"train_dataloader": {"dataset": dataset | options}})


def test_the_folder_stands_behind_the_labelled_images(folder):
    cfg = config(folder)
    both = with_unlabelled_images(cfg, folder / "images")
    assert unlabelled_images(cfg) is None and unlabelled_images(both) == str(folder / "images")
    assert cfg.train_dataloader.dataset.type == "BaseSegDataset"  # the config itself is as it was
    dataset = DATASETS.build(both.train_dataloader.dataset)
    assert len(dataset) == 2 * COUNT and dataset.metainfo["classes"] == list("abcd")
    for number in range(COUNT):
        labelled, unlabelled = (dataset[k]["data_samples"] for k in (number, COUNT + number))
        assert labelled.img_path == unlabelled.img_path
        assert "unlabelled" not in labelled.metainfo and unlabelled.metainfo["unlabelled"]
        assert (unlabelled.gt_sem_seg.data == 255).all() and (labelled.gt_sem_seg.data < NUM_CLASSES).all()
        assert unlabelled.gt_entropy.data.shape == (1, HEIGHT, WIDTH)
    repeated = Config({"train_dataloader": {"dataset": {"type": "RepeatDataset", "times": 2}}})
    repeated.train_dataloader.dataset.dataset = both.train_dataloader.dataset
    assert unlabelled_images(repeated) == str(folder / "images")
    assert len(DATASETS.build(repeated.train_dataloader.dataset)) == 4 * COUNT


def test_what_cannot_be_unlabelled(folder, tmp_path):
    for cfg, images, message in (
        (config(folder, pipeline=[{"type": "LoadImageFromFile"}]), "images", "with one LoadAnnotations to leave out"),
        (config(folder), "nowhere", "there is no folder and no image .*nowhere"),
    ):
        with pytest.raises(UserError, match=message):
            DATASETS.build(with_unlabelled_images(cfg, folder / images).train_dataloader.dataset)


def trained(folder, chosen, **options):
    """Weights of a student after three steps on the images of these numbers, in batches of two."""
    cfg = with_unlabelled_images(config(folder), folder / "images")
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    student = build(student_config(**options)).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for step, numbers in enumerate(chosen):
        np.random.seed(step)
        torch.manual_seed(step)
        data = student.data_preprocessor(pseudo_collate([dataset[k] for k in numbers]), training=True)
        losses = student(**data, mode="loss")
        optimizer.zero_grad()
        student.parse_losses(losses)[0].backward()
        optimizer.step()
    return student.state_dict()


def test_labels_of_no_weight_are_no_labels(folder):
    """Bit by bit: heads, outputs of the branch, mean probabilities, augmentation, dropout, batch norm and momentum."""
    nothing = {"type": "CrossEntropyLoss", "loss_weight": 0.0}
    options = {
        "decode_head": head("FCNHead", loss_decode=nothing),
        "auxiliary_head": head("FCNHead", in_index=2, loss_decode=nothing),
        "uncertainty_head": {"outputs": ["std", "entropy"]},
        "loss_distillation": {"type": "MeanProbabilityLoss"},
    }
    numbers = [(0, 1), (2, 0), (1, 2)]
    labelled = trained(folder, numbers, **options)
    unlabelled = trained(folder, [tuple(k + COUNT for k in pair) for pair in numbers], **options)
    mixed = trained(folder, [(a, b + COUNT) for a, b in numbers], **options)
    start = build(student_config(**options)).state_dict()
    for name, values in labelled.items():
        assert torch.equal(values, unlabelled[name]) and torch.equal(values, mixed[name])
    assert not torch.equal(labelled["decode_head.conv_seg.weight"], start["decode_head.conv_seg.weight"])


def test_outputs_from_labels_leave_unlabelled_images_out(folder):
    dataset = DATASETS.build(with_unlabelled_images(config(folder), folder / "images").train_dataloader.dataset)
    student = build(student_config(uncertainty_head={"outputs": ["std", "error", "own_error"]}))
    first, labelled, unlabelled = dataset[0], dataset[1], dataset[COUNT + 1]
    # whatever its labels are: the mark decides, and not whether they are void
    unlabelled["data_samples"].gt_sem_seg = PixelData(data=torch.zeros(1, HEIGHT, WIDTH, dtype=torch.uint8))
    alone, mixed, both = (
        student(**student.data_preprocessor(pseudo_collate(batch), training=True), mode="loss")
        for batch in ([first], [first, unlabelled], [first, labelled])
    )
    for name in ("error.loss_bce", "own_error.loss_bce", "decode.loss_ce"):
        torch.testing.assert_close(mixed[name], alone[name])
        assert mixed[name] != both[name]
