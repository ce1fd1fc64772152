"""Training images in an order, and with augmentations, that depend on nothing but the seed.

Detectron2's loader starts anew when a training resumes. Here the n-th batch of a process is a function of
(seed, rank, n), however many workers load it and wherever the training starts.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, MapDataset
from detectron2.data.build import _train_loader_from_config
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from uncertainty_core import derive_seed
from uncertainty_core.errors import UserError
from uncertainty_core.sampling.randomness import seeded


def per_process(total: int) -> int:
    """How many images of a batch of `total` each process gets; UserError unless all get as many, and some."""
    processes = comm.get_world_size()
    if total < 1 or total % processes:
        raise UserError(f"a batch of {total} images cannot be shared evenly by {processes} processes: take a multiple")
    return total // processes


class KeyedTrainLoader:
    """Batches without end, the same as Detectron2's for the same order of images; each is a list of mapped dicts.

    Attributes:
        start: how many batches to pass over; may be set until the first one is asked for.
    """

    def __init__(
        self,
        dicts: list[dict],
        sampler: Iterable[int],
        mapper: Callable[[dict], Any],
        batch_size: int,
        seed: int,
        aspect_ratio_grouping: bool = True,
        num_workers: int = 0,
    ) -> None:
        """
        Args:
            dicts: Detectron2's dicts of the images.
            sampler: endless positions in `dicts`, the same whenever it is iterated.
            mapper: makes a model's input of a dict; may draw random numbers.
            batch_size: of this process.
            seed: of the augmentation; the order is the sampler's.
            aspect_ratio_grouping: a batch holds wide images alone or tall ones alone.
            num_workers: processes that load.
        """
        self.start = 0
        self._sampler, self._batch_size, self._num_workers = sampler, batch_size, num_workers
        self._is_wide = [aspect_ratio_grouping and image["width"] > image["height"] for image in dicts]
        images = MapDataset(DatasetFromList(dicts, copy=False), mapper)
        self._images = _KeyedImages(images, derive_seed("images", seed, comm.get_rank()))

    @classmethod
    def from_config(
        cls, cfg: CfgNode, dicts: list[dict], mapper: Callable[[dict], Any] | None = None
    ) -> "KeyedTrainLoader":
        """What `build_detection_train_loader` builds of the config and `dicts` of images.

        A seed below 0 is drawn, for all ranks alike.
        """
        seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        with seeded(derive_seed("order", seed)):  # from which samplers without a seed take theirs
            parts = _train_loader_from_config(cfg, mapper, dataset=dicts)
        return cls(
            parts["dataset"],
            parts["sampler"],
            parts["mapper"],
            per_process(parts["total_batch_size"]),
            seed,
            parts["aspect_ratio_grouping"],
            parts["num_workers"],
        )

    def __iter__(self) -> Iterator[list[Any]]:
        # a generator: trainers ask for an iterator before they know where they start
        yield from DataLoader(
            self._images,
            batch_sampler=islice(self._batches(), self.start, None),
            num_workers=self._num_workers,
            collate_fn=list,
            generator=torch.Generator(),  # a start must not draw from the one that the training draws from
        )

    def _batches(self) -> Iterator[list[tuple[int, int]]]:
        """Positions in `dicts`, each with how many were drawn before it."""
        buckets: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        for number, position in enumerate(self._sampler):
            bucket = buckets[self._is_wide[position]]
            bucket.append((position, number))
            if len(bucket) == self._batch_size:
                yield bucket[:]
                bucket.clear()


class _KeyedImages(Dataset):
    def __init__(self, images: MapDataset, seed: int) -> None:
        self._images, self._seed = images, seed

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, drawn: tuple[int, int]) -> Any:
        position, number = drawn
        with seeded(derive_seed(self._seed, number)):
            return self._images[position]
