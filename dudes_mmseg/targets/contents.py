"""What a target store holds of each image, and what a student asks for."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from uncertainty_core import TargetStore

from ..models.consensus import FROM_LABELS

TOP_K = 3  # probabilities, unless asked otherwise


def outputs_of(model: Mapping[str, Any]) -> tuple[str, ...]:
    """The uncertainties that the student or the teacher of this config predicts."""
    head = model if "segmentor" in model else model.get("uncertainty_head") or {}
    return tuple(head.get("outputs", ("std",)))


class Contents(NamedTuple):
    """Attributes:
    class_wise: the deviation of every class, not only of the one that the mean predicts.
    outputs: which uncertainties, see `FIELDS`; none of `FROM_LABELS`.
    top_k: how many of the largest mean probabilities; 0 for none of them.
    """

    class_wise: bool = False
    outputs: tuple[str, ...] = ("std",)
    top_k: int = 0

    @classmethod
    def of_store(cls, store: TargetStore) -> "Contents":
        """What a store has."""
        found = {name: store.fingerprint[name] for name in cls._fields if name in store.fingerprint}
        return cls(**found)._replace(outputs=tuple(found.get("outputs", PAPERS.outputs)))

    @classmethod
    def for_student(cls, model: Mapping[str, Any], top_k: int = TOP_K) -> "Contents":
        """What the student of this config learns from; `top_k` is for one that learns from probabilities."""
        outputs = outputs_of(model)
        stored = tuple(name for name in outputs if name not in FROM_LABELS)
        from_probabilities = "error" in outputs or model.get("loss_distillation")
        num_outputs = (model.get("uncertainty_head") or {}).get("num_outputs", 1)
        return cls(num_outputs > 1, stored, top_k if from_probabilities else 0)

    @property
    def settings(self) -> dict[str, Any]:
        """For the fingerprint of a store; that of the paper's content stays as it has been."""
        besides = {"outputs": list(self.outputs), "top_k": self.top_k}
        return {"class_wise": self.class_wise} | {
            name: value for name, value in besides.items() if getattr(self, name) != getattr(PAPERS, name)
        }

    @property
    def name(self) -> str:
        """For a folder."""
        besides = [name.replace("_", "-") for name in self.outputs[1:]] + [f"top{self.top_k}"] * (self.top_k > 0)
        return "-".join(["targets", *["class-wise"] * self.class_wise, *besides])

    def bytes_per_pixel(self, num_classes: int) -> int:
        """Before compression by a file system; shards are not compressed."""
        return 2 * ((num_classes if self.class_wise else 1) + len(self.outputs[1:]) + self.top_k)


PAPERS = Contents()
