"""What was done: the experiment in words, and its configuration."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from html import escape
from typing import Any

import torch
import yaml

from uncertainty_core.report.markup import paragraph, text_table

from ..config import Config, Run
from ..data import ImageSet
from ..experiment import build_network
from ..methods import DDN, KD, METHODS, Distillation, DropoutDistillation, Method
from ..models import is_own

IMAGES = {"train": "training images", "perturbed": "perturbed training images", "test": "unlabelled test images"}
START = {"teacher": "the teacher's weights", "subset": "the teacher's first filters", "scratch": "scratch"}


def in_words(config: Config, test: ImageSet) -> str:
    """The experiment in one paragraph."""
    teacher, students, samples = config.teacher, config.students, config.evaluation.mc_samples
    text = f"A {teacher.model.name} network is trained on {config.data.name} ({len(test.classes)} classes). "
    if students:
        who = "One student learns" if len(students) == 1 else f"{len(students)} students learn"
        text += f"{who} to answer in a single forward pass. "
    rivals = ["the network without dropout (the baseline)"]
    if samples:
        rivals.append(f"Monte-Carlo dropout with {listed([str(m) for m in samples])} samples")
    if len(teacher.seeds) > 1:
        rivals.append(f"an ensemble of {len(teacher.seeds)}")
    return text + f"Measured on {len(test):,} test images: {listed(rivals + ['the students'] * bool(students))}."


def networks(config: Config, test: ImageSet) -> str:
    """What was trained, and how to do so again."""
    sizes = parameter_counts(config, test)
    rows = [
        (
            name,
            _architecture(run),
            f"{sizes[name]:,}",
            str(run.training.epochs),
            ", ".join(map(str, run.seeds)),
            describe(run.method, len(config.teacher.seeds) if config.teacher.ensemble else 1),
        )
        for name, run in _runs(config).items()
    ]
    head = ["Network", "Architecture", "Parameters", "Epochs", "Seeds", "Learns from"]
    command = f"distilled-uncertainty classification run --config {shlex.quote(f'{config.name}.yaml')}"
    return (
        text_table(head, rows, "Networks")
        + paragraph("To reproduce, save the configuration at the end of this page under its name and run")
        + f"<pre><code>{escape(command)}</code></pre>\n"
    )


def listed(words: Sequence[str]) -> str:
    """One, two and three."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _runs(config: Config) -> dict[str, Run]:
    return {"teacher": config.teacher, **config.students}


def _architecture(run: Run) -> str:
    model = run.model
    details = {"width": model.width if model.width != 1 else None, "penultimate": model.penultimate}
    details |= {"dropout": model.dropout, **model.options}
    return ", ".join([model.name, *(f"{key} {value}" for key, value in details.items() if value is not None)])


def describe(method: Method, members: int = 1) -> str:
    """A method in words: its name, a colon and what is particular, if there is anything; `members` of the teacher."""
    ods = method.ods if isinstance(method, Distillation) else 0
    moved = f"; images moved by {ods:g} to where teachers disagree" if ods else ""
    if isinstance(method, DDN):
        asked = f"{members} members'" if members > 1 else f"{method.mc_samples} stochastic"
        lesson = {"logits": f"mean of {asked} logits", "probs": f"logarithm of the mean of {asked} answers"}
        return (
            f"Distilled Dropout Network (Gurau 2018): {lesson[method.average]} "
            f"(weight {method.dd_weight:g}) and labels (weight {method.gt_weight:g}){moved}"
        )
    if isinstance(method, DropoutDistillation):
        asked = f"mean answer of {members} members" if members > 1 else "one stochastic pass of the teacher a step"
        return (
            f"Dropout distillation (Rota Bulò 2016): {asked}, "
            f"{IMAGES[method.images]}, from {START[method.initialize]}{moved}"
        )
    if isinstance(method, KD):
        asked = f"the mean answer of {members} members" if members > 1 else "the teacher's logits"
        return (
            f"Knowledge distillation (Amara 2020): {asked} at temperature {method.temperature:g} "
            f"(weight {method.alpha:g}) and labels (weight {1 - method.alpha:g}){moved}"
        )
    return "Labels alone"


def parameter_counts(config: Config, test: ImageSet) -> dict[str, int]:
    """Number of parameters of "teacher" and each student."""
    counts = {}
    for name, run in _runs(config).items():
        with nullcontext() if is_own(run.model.name) else torch.device("meta"):  # shapes without weights
            network = build_network(run.model, len(test.classes), test.images.shape[1])
        if is_own(run.model.name):
            network.eval()(test.images[:1].float())  # lazy layers know their shapes only then
        counts[name] = sum(parameter.numel() for parameter in network.parameters())
    return counts


def configuration(config: Config) -> str:
    """Every setting, folded."""
    name, content = escape(f"{config.name}.yaml"), escape(config_yaml(config))
    return f"<details>\n<summary>{name}</summary>\n<pre>{content}</pre>\n</details>\n"


def config_yaml(config: Config) -> str:
    """Every setting, as `load_config` reads it."""
    return yaml.safe_dump(_plain(config), sort_keys=False, default_flow_style=None, allow_unicode=True, width=120)


def _plain(value: Any) -> Any:
    if isinstance(value, Method):
        names = {kind: name for name, kind in METHODS.items()}
        return {"name": names[type(value)], **dataclasses.asdict(value)}
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
