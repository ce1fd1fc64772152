"""Training, and prediction over a whole image set.

Everything random in a step is a function of (seed, epoch, step): a resumed run goes on exactly as it would have, and
several processes that share a batch compute what one would.

Shapes: N images, C classes, B images of a batch.
"""

import csv
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from uncertainty_core import CalibrationMetric, derive_seed, drawn_dropout, dropout_modules, masks_of_shard
from uncertainty_core.cli import progress
from uncertainty_core.functional.losses import IGNORE_INDEX
from uncertainty_core.io.claims import clear
from uncertainty_core.io.files import write_text

from .checkpoint import CheckpointError, load_checkpoint, remove_older, save_checkpoint, save_model
from .config import ConfigError, Data, Run, Training
from .data import ImageSet, drop_pixels, random_crop, random_flip, to_float
from .distributed import my_rows, rank, share_batch_norm, sum_gradients, sum_over_ranks
from .methods import DropoutDistillation, Share

PERTURBATION = 0.2  # share of the pixels that the dropout distillation paper sets to zero


@dataclass(frozen=True)
class TrainingSet:
    """What a student sees: `data` on the device, its normalisation, and `targets` (N, C) where they are cached."""

    data: ImageSet
    mean: Tensor  # (channels,)
    std: Tensor  # (channels,)
    targets: Tensor | None = None


def learning_rate(training: Training, epoch: int) -> float:
    """Divided by ten after each milestone; epochs count from 0."""
    return training.lr * 0.1 ** sum(epoch >= milestone for milestone in training.milestones)


def make_optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """The optimizer that `training` describes."""
    if training.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=training.lr, weight_decay=training.weight_decay)
    return torch.optim.SGD(
        model.parameters(),
        lr=training.lr,
        momentum=training.momentum,
        nesterov=training.nesterov,
        weight_decay=training.weight_decay,
    )


def augment(images: Tensor, data: Data, method: Any, generator: torch.Generator) -> Tensor:
    """Images (B, channels, height, width) uint8 as one step of training sees them."""
    if data.flip:
        images = random_flip(images, generator)
    if data.crop_padding:
        images = random_crop(images, data.crop_padding, generator)
    if isinstance(method, DropoutDistillation) and method.images == "perturbed":
        images = drop_pixels(images, PERTURBATION, generator)
    return images


@torch.no_grad()
def predict(
    forward: Callable[[Tensor, list[int | str]], Tensor],
    data: ImageSet,
    mean: Tensor,
    std: Tensor,
    batch_size: int = 256,
    title: str | None = None,
) -> Tensor:
    """Outputs (N, C) for all images.

    Args:
        forward: called with float images (B, ...) and their ids.
        data, mean, std: images and their normalisation.
        batch_size: B.
        title: what to write beside a bar, None for no bar.
    """
    outputs = []
    with progress(len(data), title or "", "image", shown=title is not None and rank() == 0) as bar:
        for start in range(0, max(1, len(data)), batch_size):  # once if empty, for the shape
            images = to_float(data.images[start : start + batch_size], mean, std)
            outputs.append(forward(images, list(data.ids[start : start + batch_size])))
            bar.update(len(images))
    return torch.cat(outputs)


def monitor(model: nn.Module, data: ImageSet, mean: Tensor, std: Tensor, num_classes: int) -> dict[str, float]:
    """Accuracy, NLL and ECE of the deterministic model; each process looks at its share."""
    model.eval()
    mine = data.subset(torch.arange(len(data))[my_rows(len(data))])
    metric = CalibrationMetric(num_classes).to(mean.device)
    metric.update(predict(lambda images, _: model(images), mine, mean, std).softmax(1), mine.labels)
    values = metric.compute()
    return {name: values[key].item() for name, key in (("accuracy", "accuracy"), ("nll", "nll_true"), ("ece", "ece"))}


def fit(
    model: nn.Module,
    run: Run,
    data: Data,
    inputs: TrainingSet,
    watched: ImageSet,
    folder: Path,
    seed: int,
    identity: dict[str, Any],
    teacher: nn.Module | None = None,
    resume: bool = False,
    name: str = "training",
    key: str = "training",
) -> None:
    """Train `model` and leave it, with its log and its last checkpoint, in `folder`.

    Args:
        model: on the device of `inputs`.
        run: method and optimisation.
        data: augmentation.
        inputs: what to train on.
        watched: what to report accuracy on after each epoch; nothing depends on it.
        folder: gets log.csv, tensorboard/, epoch-*/ and at the end model.safetensors and model.json.
        seed: of everything random.
        identity: JSON values that say what is trained, all but the number of epochs; a checkpoint of anything else is
            refused.
        teacher: in eval mode, for methods that need one.
        resume: go on from the newest checkpoint.
        name: beside the progress bar.
        key: of `run.training` in the configuration.
    """
    model = share_batch_norm(model)
    optimizer = make_optimizer(model, run.training)
    if not resume and rank() == 0:
        clear(folder)
    record = load_checkpoint(folder, model, optimizer) if resume else None
    if record is not None and record["identity"] != identity:
        raise CheckpointError(f"{folder} holds a checkpoint of other settings: train into another folder")
    if record is not None and record["epoch"] > run.training.epochs:
        raise CheckpointError(
            f"{folder} holds a checkpoint of epoch {record['epoch']}, more than epochs={run.training.epochs}"
        )
    first_epoch = 0 if record is None else record["epoch"]
    rows = [] if record is None else record["log"]
    num_classes = len(inputs.data.classes)
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_epoch) if rank() == 0 else None
    with progress(run.training.epochs, name, "epoch", first_epoch, rank() == 0) as bar:
        for epoch in range(first_epoch, run.training.epochs):
            start = time.perf_counter()
            row = {"epoch": epoch + 1, "lr": learning_rate(run.training, epoch)}
            row["loss"], row["train_accuracy"] = _train_epoch(model, optimizer, run, data, inputs, epoch, seed, teacher)
            if not math.isfinite(row["loss"]) or not _is_finite(model):
                raise ConfigError(
                    f"{name} diverged in epoch {epoch + 1}, with a mean loss ({run.method.loss_name}) of "
                    f"{row['loss']:g}: lower {key}.lr, which is {run.training.lr:g}"
                )
            row |= monitor(model, watched, inputs.mean, inputs.std, num_classes)
            row["seconds"] = round(time.perf_counter() - start, 3)
            rows.append(row)
            if writer is not None:
                for key in ("lr", "loss", "train_accuracy", "accuracy", "nll", "ece"):
                    writer.add_scalar(key, row[key], epoch + 1)
                _write_log(folder / "log.csv", rows)  # first: whoever finds the last checkpoint writes no more rows
                save_checkpoint(folder, epoch + 1, model, optimizer, {"identity": identity, "log": rows})
            bar.set_postfix({key: f"{row[key]:.4f}" for key in ("loss", "accuracy")})
            bar.update()
    if writer is not None:
        writer.close()
        remove_older(folder)  # what a kill kept the last checkpoint from removing
        save_model(folder, model, {"identity": identity, "epochs": run.training.epochs})


def _is_finite(model: nn.Module) -> bool:
    """Whether all weights and statistics are; the last step of an epoch may ruin them without being in its loss."""
    return all(tensor.isfinite().all() for tensor in model.state_dict().values())


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    run: Run,
    data: Data,
    inputs: TrainingSet,
    epoch: int,
    seed: int,
    teacher: nn.Module | None,
) -> tuple[float, float]:
    """One pass over the training images: the mean loss, and the accuracy on the way, dropout as it is in training."""
    method = run.method
    device = inputs.mean.device
    model.train()
    if not method.student_dropout:
        for module in dropout_modules(model):
            module.eval()
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(run.training, epoch)
    shuffle = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    totals = torch.zeros(3, dtype=torch.float64, device=device)  # loss, right ones, labelled ones
    for step, batch in enumerate(torch.randperm(len(inputs.data), generator=shuffle).split(run.training.batch_size)):
        generator = torch.Generator(device).manual_seed(derive_seed(seed, "augment", epoch, step))
        mine = my_rows(len(batch))
        images = augment(inputs.data.images[batch], data, method, generator)[mine]
        images = to_float(images, inputs.mean, inputs.std)
        labels = inputs.data.labels[batch]
        labelled = labels >= 0
        share = Share((mine.stop - mine.start) / len(batch), labelled[mine].sum() / labelled.sum().clamp(min=1))
        labels = labels.where(labelled, IGNORE_INDEX)[mine]
        if inputs.targets is not None:
            targets = inputs.targets[batch[mine]]
        elif teacher is not None:
            keys = [inputs.data.ids[index] for index in batch[mine].tolist()]
            draw = derive_seed(seed, "teacher", epoch, step)
            images = method.inputs(teacher, images, keys, draw)
            targets = method.targets(teacher, images, keys, draw)
        else:
            targets = None
        masks = masks_of_shard(derive_seed(seed, "dropout", epoch, step), mine.start, len(batch))
        with drawn_dropout(model, masks):
            logits = model(images)
        loss = method.loss(logits, targets, labels, share)
        optimizer.zero_grad()
        loss.backward()
        sum_gradients(model)
        optimizer.step()
        right = (logits.argmax(1) == labels).sum()
        totals += torch.stack((loss.detach() * len(batch), right, (labels != IGNORE_INDEX).sum()))
    loss_sum, right, labelled = sum_over_ranks(totals).tolist()
    return loss_sum / len(inputs.data), right / labelled if labelled else math.nan


def _write_log(path: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
