"""What a target store holds of each image, and what a student asks for."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from uncertainty_core import TargetStore

TOP_K = 3  # probabilities, unless asked otherwise


class Contents(NamedTuple):
    """Attributes:
    class_wise: the deviation of every class, not only of the one that the mean predicts.
    top_k: how many of the largest mean probabilities; 0 for none of them.
    """

    class_wise: bool = False
    top_k: int = 0

    @classmethod
    def of_store(cls, store: TargetStore) -> "Contents":
        """What a store has."""
        return cls(**{name: store.fingerprint[name] for name in cls._fields if name in store.fingerprint})

    @classmethod
    def for_student(cls, model: Mapping[str, Any], top_k: int = TOP_K) -> "Contents":
        """What the student of this config learns from; `top_k` is for one that learns probabilities."""
        num_outputs = (model.get("uncertainty_head") or {}).get("num_outputs", 1)
        return cls(num_outputs > 1, top_k if model.get("loss_distillation") else 0)

    @property
    def settings(self) -> dict[str, Any]:
        """For the fingerprint of a store; that of the paper's content stays as it has been."""
        return {"class_wise": self.class_wise} | ({"top_k": self.top_k} if self.top_k else {})

    @property
    def name(self) -> str:
        """For a folder."""
        return "targets" + "-class-wise" * self.class_wise + (f"-top{self.top_k}" if self.top_k else "")

    def bytes_per_pixel(self, num_classes: int) -> int:
        """Before compression by a file system; shards are not compressed."""
        return 2 * ((num_classes if self.class_wise else 1) + self.top_k)


PAPERS = Contents()
