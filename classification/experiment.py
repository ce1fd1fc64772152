"""The steps of an experiment: train a teacher, write targets, distil students, evaluate all of them.

<output>/<name>/teacher/seed-0/            a network: log.csv, tensorboard/, epoch-*/, model.safetensors
<output>/<name>/targets/<student>/         target store of a student that learns from cached targets
<output>/<name>/students/<student>/seed-0/ a network
<output>/<name>/runs/                      what was measured of each row of the report, and the predictions
"""

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uncertainty_core import (
    TargetStore,
    derive_seed,
    drawn_dropout,
    dropout_modules,
    masks_of_shard,
    state_dict_sha256,
    write_targets,
)
from uncertainty_core.cli import device_text, silent
from uncertainty_core.io.claims import check_claims, claim
from uncertainty_core.io.room import check_room
from uncertainty_core.io.strict_json import strict

from .checkpoint import CheckpointError, is_finished, load_model, read_model_record
from .config import Config, ConfigError, Model, Run
from .data import ImageSet, channel_statistics, load, to_float, unlabelled
from .distributed import barrier, rank, world_size
from .engine import TrainingSet, fit
from .methods import DropoutDistillation
from .models import build_model, check_images, is_own, source_sha256
from .sampling import Ensemble

TARGET_SHARD = 1000
TARGET_BATCH = 64
WAY_OUT = "choose another name or output, add --overwrite to start over, or --resume to go on to more epochs"


@dataclass(frozen=True)
class Experiment:
    """A configuration on a device, with its data; `step` is called with the title of each step."""

    config: Config
    device: torch.device
    download: bool = False
    resume: bool = False
    overwrite: bool = False
    step: Callable[[str], None] = silent

    # data

    def load(self, split: str, name: str | None = None) -> ImageSet:
        """A split of the configured data set, or of another one, on the device."""
        data = self.config.data
        images = load(
            name or data.name,
            split,
            data.root,
            image_size=data.image_size,
            validation=data.validation,
            download=self.download,
            bad_images=data.bad_images,
            progress=rank() == 0,
        )
        return on_device(images, self.device)

    @cached_property
    def _limited(self) -> tuple[ImageSet, int]:
        """The images to train on, and of how many they were chosen."""
        images, limit = self.load("train"), self.config.data.limit
        return images if limit is None else images.subset(chosen(images.ids, limit)), len(images)

    @property
    def train_set(self) -> ImageSet:
        """The images to train on."""
        return self._limited[0]

    def summary(self) -> str:
        """How many images there are, and what computes."""
        data, (train, total) = self.config.data, self._limited
        used = f"{total:,} training images"
        if data.limit is not None:
            used = f"{len(train):,} of {used} (data.limit)"
        return f"{data.name}: {used}, {len(self.test_set):,} test images; {device_text(self.device)}"

    @cached_property
    def extended_set(self) -> ImageSet:
        """The images to train on, and after them those without labels, if there are any."""
        data = self.config.data
        if data.unlabelled is None:
            return self.train_set
        _, channels, size, _ = self.train_set.images.shape
        more = unlabelled(data.unlabelled, size, channels, data.bad_images, progress=rank() == 0)
        return joined(self.train_set, on_device(more, self.device))

    @cached_property
    def test_set(self) -> ImageSet:
        """The images that nothing is ever chosen by."""
        return self.load("test")

    @cached_property
    def validation_set(self) -> ImageSet:
        """The images that are set aside, perhaps none."""
        return self.load("val")

    @cached_property
    def watched_set(self) -> ImageSet:
        """What the log reports: the validation images, or the test images where none are set aside."""
        return self.validation_set if len(self.validation_set) else self.test_set

    @cached_property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each channel over the training images."""
        mean, std = channel_statistics(self.train_set.images)
        return mean.to(self.device), std.to(self.device)

    # networks

    def build(self, run: Run) -> nn.Module:
        """The network of `run`, with the current random state."""
        classes, images = len(self.train_set.classes), self.train_set.images[:2]
        model = build_network(run.model, classes, images.shape[1]).to(self.device)
        try:
            check_images(run.model.name, model, to_float(images, *self.statistics), classes)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        return model

    def run_of(self, student: str | None) -> Run:
        """The teacher's run, or a student's by name."""
        return self.config.teacher if student is None else self.config.students[student]

    def folder_of(self, student: str | None, seed: int) -> Path:
        """Where the teacher (None) or a student is kept."""
        kind = Path("teacher") if student is None else Path("students") / student
        return self.config.folder / kind / f"seed-{seed}"

    def trained(self, student: str | None, seed: int) -> nn.Module:
        """A finished network in eval mode."""
        model = self.build(self.run_of(student))
        load_model(self.folder_of(student, seed), model)
        return model.eval()

    @cached_property
    def baseline(self) -> nn.Module:
        """The teacher's network of the first seed."""
        return self.trained(None, self.config.teacher.seeds[0])

    @cached_property
    def members(self) -> list[nn.Module]:
        """The teacher's network of each seed."""
        return [self.baseline, *(self.trained(None, seed) for seed in self.config.teacher.seeds[1:])]

    @cached_property
    def teacher(self) -> nn.Module:
        """What students learn from: the baseline, or all of the teacher's networks as an ensemble."""
        return Ensemble(self.members) if self.config.teacher.ensemble else self.baseline

    # claims

    def check(self, steps: Sequence[str]) -> None:
        """Before any work: refuse the folders of `steps` that other settings have made, or remove them to `overwrite`.

        All that may fail later is tried as well: data, networks, what is needed of them, room on the disk.
        With `resume` a network of fewer epochs is one to go on with.
        """
        self._try_networks()
        for name in self.config.evaluation.ood:
            self.load("test", name)
        networks: list[tuple[str | None, int]] = []
        if "train" in steps:
            networks += [(None, seed) for seed in self.config.teacher.seeds]
        if "distill" in steps:
            networks += [(student, seed) for student, run in self.config.students.items() for seed in run.seeds]
        claims = {self.folder_of(*network): self._settings(*network) for network in networks}
        if {"targets", "distill"} & set(steps):
            claims |= {
                self._target_folder(student): self._target_settings(run)
                for student, run in self.config.students.items()
                if run.method.from_store
            }
        if rank() == 0:
            check_claims(claims, WAY_OUT, self.overwrite)
            for network in networks:
                self._check_epochs(*network)
        barrier()

    def _try_networks(self) -> None:
        """Build what will be trained, once from random weights, and ask for room to keep all of it."""
        config, evaluation, room = self.config, self.config.evaluation, 0
        teacher = self.build(config.teacher)
        if evaluation.mc_samples:
            check_dropout("teacher.model", teacher, "evaluation.mc_samples")
        for student, run in ((None, config.teacher), *config.students.items()):
            model, where = self.build(run), key_of(student)
            if run.method.teacher_dropout and not config.teacher.ensemble:
                check_dropout("teacher.model", teacher, f"{where}.method")
            if student is not None and evaluation.mc_students:
                check_dropout(f"{where}.model", model, "evaluation.mc_students")
            if run.method.initialize != "scratch":
                start_from(model, teacher, subset=run.method.initialize == "subset")
            try:
                with drawn_dropout(model, masks_of_shard(0, 0, 1)):
                    pass
            except ValueError as error:
                raise ConfigError(f"{where}.model {run.model.name!r} cannot be trained repeatably: {error}") from None
            if not all(is_finished(self.folder_of(student, seed)) for seed in run.seeds):
                # weights, and two checkpoints of weights and at most two moments each, the older of which goes last
                weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
                room += len(run.seeds) * weights + 6 * weights
            if run.method.from_store:
                room += len(self._images(run)) * len(self.train_set.classes) * 4
        if rank() == 0:
            check_room(config.folder, room)

    def _check_epochs(self, student: str | None, seed: int) -> None:
        folder, wanted = self.folder_of(student, seed), self.run_of(student).training.epochs
        if not is_finished(folder):
            return
        trained = read_model_record(folder)["epochs"]
        if trained == wanted or (self.resume and trained < wanted):
            return
        if not self.overwrite:
            raise CheckpointError(f"{folder} holds a network of {trained} epochs, not {wanted}: {WAY_OUT}")
        shutil.rmtree(folder)

    def _settings(self, student: str | None, seed: int) -> dict[str, Any]:
        run = self.run_of(student)
        return self._decisive(run, seed) | self._origins(run)

    def _target_settings(self, run: Run) -> dict[str, Any]:
        return {"method": _method(run), "images": self._images(run).fingerprint} | self._origins(run)

    def _origins(self, run: Run) -> dict[str, Any]:
        """What names the images, and what stands for the teacher's weights, which there may not be yet."""
        data = self.config.data
        origins = {"data": {key: getattr(data, key) for key in ("name", "image_size", "validation", "limit")}}
        if run.method.needs_teacher:
            teacher = self.config.teacher
            origins["teacher"] = self._decisive(teacher, teacher.seeds[0]) | {"epochs": teacher.training.epochs}
            if teacher.ensemble:
                origins["teacher"]["seed"] = list(teacher.seeds)
        return origins

    # steps

    def train(self) -> None:
        """Train the teacher, once for each of its seeds."""
        for seed in self.config.teacher.seeds:
            self._fit(None, seed)

    def write_targets(self) -> None:
        """Write the target store of each student that learns from cached targets."""
        for student, run in self.config.students.items():
            if run.method.from_store:
                self._write_targets(student, run)

    def distill(self) -> None:
        """Train each student with each of its seeds, on targets that are written first where they are cached."""
        self.write_targets()
        barrier()
        for student, run in self.config.students.items():
            for seed in run.seeds:
                self._fit(student, seed)

    def _fit(self, student: str | None, seed: int) -> None:
        run, folder = self.run_of(student), self.folder_of(student, seed)
        name = "teacher" if student is None else student
        method = run.method
        teacher = self.teacher if method.needs_teacher else None
        identity = self._identity(run, seed, teacher)
        if is_finished(folder):
            record = read_model_record(folder)
            if record["identity"] != identity:
                raise CheckpointError(f"{folder} holds a network that learnt from another teacher: {WAY_OUT}")
            # rates and draws are functions of the epoch: more epochs go on where a finished training ended
            if record["epochs"] == run.training.epochs:
                self.step(f"{name}, seed {seed}: already trained, {folder}")
                return
        inputs = self._inputs(student, run)
        torch.manual_seed(derive_seed(seed, "weights"))
        model = self.build(run)
        if method.initialize != "scratch":
            start_from(model, self.baseline, subset=method.initialize == "subset")
        if rank() == 0:
            claim(folder, self._settings(student, seed))
        barrier()
        self.step(f"{name}, seed {seed}: {run.training.epochs} epochs")
        fit(
            model,
            run,
            self.config.data,
            inputs,
            self.watched_set,
            folder,
            seed,
            identity,
            teacher=None if method.from_store else teacher,
            resume=self.resume,
            name=f"{name}, seed {seed}",
            key=f"{key_of(student)}.training",
        )
        barrier()

    def _decisive(self, run: Run, seed: int) -> dict[str, Any]:
        """JSON values of all that decides what a training ends with, but its teacher and the number of its epochs."""
        data = dataclasses.asdict(self.config.data)
        training = dataclasses.asdict(run.training)
        del training["epochs"]
        settings = {
            "model": dataclasses.asdict(run.model) | _source(run.model),
            "training": training,
            "method": _method(run),
            "augmentation": {key: data[key] for key in ("flip", "crop_padding")},
            "images": self.train_set.fingerprint,  # they give the normalisation, too
            "seen": self._images(run).fingerprint,
            "seed": seed,
        }
        return strict(settings)  # as it will be read back

    def _identity(self, run: Run, seed: int, teacher: nn.Module | None) -> dict[str, Any]:
        """What tells a network from all others but those of other epochs."""
        return self._decisive(run, seed) | {
            "teacher": None if teacher is None else state_dict_sha256(teacher.state_dict())
        }

    def _inputs(self, student: str | None, run: Run) -> TrainingSet:
        images = self._images(run)
        if student is None or not run.method.from_store:
            return TrainingSet(images, *self.statistics)
        store = TargetStore(self._target_folder(student), self._target_fingerprint(run))
        targets = torch.stack([store[image_id]["target"] for image_id in images.ids])
        return TrainingSet(images, *self.statistics, targets.to(self.device))

    def _images(self, run: Run) -> ImageSet:
        """What a student of this method sees."""
        if isinstance(run.method, DropoutDistillation) and run.method.images == "test":
            return self.test_set
        return self.extended_set if run.method.needs_teacher else self.train_set

    def _target_folder(self, student: str) -> Path:
        return self.config.folder / "targets" / student

    def _target_fingerprint(self, run: Run) -> dict[str, Any]:
        return {
            "teacher": state_dict_sha256(self.teacher.state_dict()),
            "method": _method(run),
            "images": self._images(run).fingerprint,
            "seed": 0,
        }

    def _write_targets(self, student: str, run: Run) -> None:
        images = self._images(run)
        position = {image_id: row for row, image_id in enumerate(images.ids)}
        mean, std = self.statistics

        def make(ids: list[int | str]) -> Iterator[dict[str, Tensor]]:
            for start in range(0, len(ids), TARGET_BATCH):
                keys = ids[start : start + TARGET_BATCH]
                batch = to_float(images.images[[position[key] for key in keys]], mean, std)
                for target in run.method.targets(self.teacher, batch, keys, seed=0):
                    yield {"target": target}

        fingerprint = self._target_fingerprint(run)
        if rank() == 0:
            claim(self._target_folder(student), self._target_settings(run))
        self.step(f"{student}: targets of {len(images)} images")
        write_targets(
            self._target_folder(student),
            images.ids,
            make,
            fingerprint,
            TARGET_SHARD,
            rank(),
            world_size(),
            progress=rank() == 0,
        )


def num_steps(config: Config, commands: Sequence[str]) -> int:
    """How many steps an experiment announces that runs these commands."""
    students = config.students.values()
    stores = sum(run.method.from_store for run in students)
    announced = {
        "train": len(config.teacher.seeds),
        "targets": stores,
        "distill": stores + sum(len(run.seeds) for run in students),
        "evaluate": 1,
        "report": 1,
    }
    return sum(announced[command] for command in commands)


def build_network(model: Model, num_classes: int, in_channels: int) -> nn.Module:
    """The network that a configuration describes, with the current random state."""
    try:
        return build_model(
            model.name,
            num_classes=num_classes,
            in_channels=in_channels,
            width=model.width,
            dropout=model.dropout,
            penultimate=model.penultimate,
            **model.options,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None


def check_dropout(key: str, model: nn.Module, wanted_by: str) -> None:
    """Raise ConfigError unless stochastic passes of the network at the key `key` can differ from one another."""
    modules = dropout_modules(model)
    if not modules:
        raise ConfigError(f"{key} has no nn.Dropout, and {wanted_by} needs Monte-Carlo dropout of it: add one")
    if not any(module.p > 0 for module in modules):
        raise ConfigError(f"{key} drops nothing, its rate being 0, and {wanted_by} needs Monte-Carlo dropout of it")


def key_of(student: str | None) -> str:
    """Where the configuration has the teacher (None) or a student."""
    return "teacher" if student is None else f"students.{student}"


def _source(model: Model) -> dict[str, str]:
    """What tells an own network from another of the same name."""
    return {"source": source_sha256(model.name)} if is_own(model.name) else {}


def _method(run: Run) -> dict[str, Any]:
    options = dataclasses.asdict(run.method)
    if not options.get("ods"):  # networks of before there was the key stay what they are
        options.pop("ods", None)
    return {"name": type(run.method).__name__, **options}


def chosen(ids: Sequence[int | str], count: int) -> list[int]:
    """Positions of `count` of the ids, in rising order; hashes choose, since folders list one class after another."""
    return sorted(sorted(range(len(ids)), key=lambda position: derive_seed("limit", ids[position]))[:count])


def on_device(images: ImageSet, device: torch.device) -> ImageSet:
    """The same image set with its tensors on `device`."""
    return dataclasses.replace(images, images=images.images.to(device), labels=images.labels.to(device))


def joined(images: ImageSet, extra: ImageSet) -> ImageSet:
    """`images` followed by `extra`, of the same shape, with the classes of the former."""
    return dataclasses.replace(
        images,
        images=torch.cat((images.images, extra.images)),
        labels=torch.cat((images.labels, extra.labels)),
        ids=(*images.ids, *extra.ids),
    )


def fits_into(small: Tensor, large: Tensor) -> bool:
    """Whether `small` has no dimension more, and in none more entries, than `large`."""
    return small.dim() == large.dim() and all(a <= b for a, b in zip(small.shape, large.shape, strict=True))


def start_from(student: nn.Module, teacher: nn.Module, subset: bool = False) -> None:
    """Copy the teacher's weights into the student's layers of the same name and shape.

    With `subset`, a smaller layer gets the first filters and the first inputs of the teacher's: as good a choice as a
    random one, and the same in every layer.
    """
    theirs = teacher.state_dict()
    own = student.state_dict()
    for name, weight in own.items():
        if subset and not (name in theirs and fits_into(weight, theirs[name])):
            have = f"the teacher's is {tuple(theirs[name].shape)}" if name in theirs else "the teacher has none"
            raise ConfigError(
                f"initialize=subset needs a student that is part of its teacher, but its {name} is "
                f"{tuple(weight.shape)} and {have}: make it smaller, or choose initialize=teacher or scratch"
            )
        if name in theirs and (subset or theirs[name].shape == weight.shape):
            own[name] = theirs[name][tuple(slice(size) for size in weight.shape)]
    student.load_state_dict(own)
