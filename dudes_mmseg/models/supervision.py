"""What a student is taught about a batch, from a teacher or from what its pipeline has loaded.

Shapes: B images, C outputs of the segmentor, U of the uncertainty head, H x W pixels of the network's input, h x w of
an image before it was padded to that.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from uncertainty_core.errors import UserError
from uncertainty_core.targets.top_k import decode_top_k

from .consensus import FIELDS, FROM_LABELS, both_classes
from .maps import PADDING, image_name


class Targets(NamedTuple):
    """Attributes:
    maps: of each output of the uncertainty head (B, 1, H, W), or "std" of every class (B, C, H, W).
    real: which pixels are of an image, and not padding (B, H, W), bool; void pixels are.
    labelled: those of them that have a class, and are not void (B, H, W), bool: where outputs `FROM_LABELS` count.
    probabilities: mean over the teacher's predictors (B, C, H, W); None where nothing is learnt from them.
    """

    maps: dict[str, Tensor]
    real: Tensor
    labelled: Tensor
    probabilities: Tensor | None

    @property
    def masks(self) -> dict[str, Tensor]:
        """Where each of the maps counts (B, H, W), bool."""
        return {name: self.labelled if name in FROM_LABELS else self.real for name in self.maps}


def error_of(probabilities: Tensor, labels: Tensor) -> Tensor:
    """1 - the probability of the true class (B, 1, H, W), of `probabilities` (B, C, H, W) and `labels` (B, H, W).

    What it gives for a label that is none of the classes has no meaning.
    """
    both = both_classes(probabilities)
    return 1 - both.gather(1, labels.clamp(0, both.shape[1] - 1).unsqueeze(1))


def labels_of(samples: Sequence[SegDataSample]) -> Tensor:
    """True classes (B, H, W) of a batch, int64."""
    return torch.stack([sample.gt_sem_seg.data[0] for sample in samples]).long()


def has_class(samples: Sequence[SegDataSample], ignore_index: int) -> Tensor:
    """Which pixels of a batch have a true class (B, H, W), bool: of unlabelled images none."""
    known = torch.tensor([not is_unlabelled(sample) for sample in samples])[:, None, None]
    labels = labels_of(samples)
    return (labels != ignore_index) & known.to(labels.device)


def is_unlabelled(sample: SegDataSample) -> bool:
    """Whether an image came without labels, see `LoadNoAnnotations`."""
    return sample.metainfo.get("unlabelled", False) or sample.metainfo.get("seg_map_path", "") is None


@contextmanager
def labelled_alone(heads: Iterable[nn.Module], samples: Sequence[SegDataSample]) -> Iterator[None]:
    """Inside the context decode heads compute losses of the labelled images of this batch alone.

    Void pixels would not do: they count in the mean, and some heads learn from them that a class is absent.
    """
    chosen = [number for number, sample in enumerate(samples) if not is_unlabelled(sample)]
    heads = () if len(chosen) == len(samples) else list(heads)
    for head in heads:
        head.loss_by_feat = partial(_loss_of_chosen, head.loss_by_feat, chosen)
    try:
        yield
    finally:
        for head in heads:
            del head.loss_by_feat


def _loss_of_chosen(
    loss_by_feat: Callable, chosen: Sequence[int], outputs: Any, samples: Sequence[SegDataSample]
) -> dict[str, Tensor]:
    """The losses of a decode head, whose outputs are a tensor or several, of some images of the batch.

    Of none it is zero, with a gradient of zero for all weights: several processes wait for each of them.
    """
    parts = [outputs] if isinstance(outputs, Tensor) else outputs
    if not chosen:
        return {"loss_unlabelled": sum((0 * part).sum() for part in parts)}
    rows = [part[chosen] for part in parts]
    return loss_by_feat(rows[0] if isinstance(outputs, Tensor) else rows, [samples[number] for number in chosen])


def _padded(maps: Tensor, sample: SegDataSample, size: tuple[int, int], name: str) -> Tensor:
    """`maps` (C, h, w) of a sample, with padding where the data preprocessor has padded its image to H x W."""
    maps = F.pad(maps, tuple(sample.metainfo.get("padding_size", (0, 0, 0, 0))), value=PADDING)
    if maps.shape[-2:] != size:
        height, width = maps.shape[-2:]
        raise UserError(
            f"{image_name(sample)} is {size[1]}x{size[0]} pixels in the batch, but its {name} {width}x{height}: "
            "load it before the transforms that resize and crop the image, so that they move it, too"
        )
    return maps


def stored_maps(
    samples: Sequence[SegDataSample], outputs: Sequence[str], num_outputs: int, size: tuple[int, int]
) -> dict[str, Tensor]:
    """Uncertainties by name that came with the images, (B, 1, H, W), PADDING where they are not real.

    Args:
        samples: with `gt_uncertainty` (U, h, w), and what else `outputs` ask for.
        outputs: their names; those `FROM_LABELS` are not stored.
        num_outputs: U, of "std".
        size: H, W.
    """
    maps = {name: _stacked(samples, f"gt_{FIELDS[name]}", size) for name in outputs if name not in FROM_LABELS}
    if maps["std"].shape[1] != num_outputs:
        raise UserError(
            f"{image_name(samples[0])} has a target of {maps['std'].shape[1]} maps for an uncertainty head with "
            f"num_outputs={num_outputs}: change that, or generate the targets anew"
        )
    return maps


def stored_probabilities(
    samples: Sequence[SegDataSample], num_classes: int, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Mean probabilities (B, C, H, W) that came with the images, and where they are real (B, H, W), bool.

    Args:
        samples: with `gt_probabilities` (k, h, w), see `encode_top_k`.
        num_classes: C.
        size: H, W.
    """
    codes = _stacked(samples, "gt_probabilities", size)
    probabilities = decode_top_k(codes, max(num_classes, 2))
    return probabilities[:, 1:] if num_classes == 1 else probabilities, codes[:, 0] > PADDING


_MISSING = {
    "gt_uncertainty": "uncertainty target: put LoadUncertaintyTarget and PackUncertaintyInputs into the training "
    "pipeline",
    "gt_probabilities": "mean probabilities of a teacher, which loss_distillation and error learn from: generate the "
    "targets with --top-k 3",
}


def _stacked(samples: Sequence[SegDataSample], field: str, size: tuple[int, int]) -> Tensor:
    """Maps (B, U, H, W) of a field of all samples, with PADDING where there is no image."""
    for sample in samples:
        if field not in sample:
            missing = _MISSING.get(field) or f"target of {field[3:]}: generate the targets with --outputs {field[3:]}"
            raise UserError(f"{image_name(sample)} has no {missing}, or give the model a teacher")
    return torch.stack([_padded(sample.get(field).data, sample, size, "target") for sample in samples])


def real_pixels(samples: Sequence[SegDataSample], size: tuple[int, int]) -> Tensor:
    """Where the images of a batch are real and not padding (B, H, W), bool; void pixels are real.

    Args:
        samples: with `real_pixels` (1, h, w), 0 where real, if their pipeline pads; without, all of the image is real.
        size: H, W.
    """
    marks = []
    for sample in samples:
        if "real_pixels" in sample:
            mark = sample.real_pixels.data
        else:
            left, right, top, bottom = sample.metainfo.get("padding_size", (0, 0, 0, 0))
            mark = torch.zeros(1, size[0] - top - bottom, size[1] - left - right, dtype=torch.uint8)
        marks.append(_padded(mark, sample, size, "real_pixels")[0])
    return torch.stack(marks) == 0
