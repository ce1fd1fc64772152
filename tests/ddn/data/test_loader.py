"""The training loader: Detectron2's batches, from any start, with any number of workers."""

from itertools import islice

import numpy as np
import pytest
import torch
from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler

from ddn_detectron2.data.loader import KeyedTrainLoader

# Five images, of which two are wide.
DICTS = [{"image_id": number, "width": width, "height": 20} for number, width in enumerate((10, 30, 20, 40, 20))]


def mapper(image):
    """With a random number of each of the generators that augmentations use."""
    return image | {"drawn": (np.random.rand(), torch.rand(1).item())}


def first(count, start=0, seed=3, sampler=None, **options):
    loader = KeyedTrainLoader(DICTS, sampler or TrainingSampler(len(DICTS), seed=7), mapper, 2, seed, **options)
    loader.start = start
    return list(islice(loader, count))


def ids(batches):
    return [[image["image_id"] for image in batch] for batch in batches]


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("repeats", [None, [1.0, 2.5, 1.0, 3.0, 1.2]])
def test_batches_are_those_of_detectron2(grouped, repeats):
    def sampler():
        return (
            TrainingSampler(5, seed=7)
            if repeats is None
            else RepeatFactorTrainingSampler(torch.tensor(repeats), seed=7)
        )

    theirs = build_detection_train_loader(
        DICTS, mapper=mapper, sampler=sampler(), total_batch_size=2, aspect_ratio_grouping=grouped
    )
    assert ids(first(12, sampler=sampler(), aspect_ratio_grouping=grouped)) == ids(islice(theirs, 12))


@pytest.mark.parametrize("workers", [0, 2])
def test_any_start_and_any_number_of_workers_draw_the_same(workers):
    whole = first(9)
    assert first(4, start=5, num_workers=workers) == whole[5:]
    assert len({image["drawn"] for batch in whole for image in batch}) == 18
    assert first(1, seed=4) != whole[:1]


def test_loading_leaves_the_generators_of_the_training_alone():
    torch.manual_seed(1)
    np.random.seed(1)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(1)
    np.random.seed(1)
    first(3)
    assert (torch.rand(1), np.random.rand()) == expected
