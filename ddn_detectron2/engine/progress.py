"""How far a training or an evaluation is, on the terminal, while Detectron2 writes its own log."""

from collections.abc import Iterator, Mapping
from textwrap import fill
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm
from torch.utils.data import DataLoader

from uncertainty_core.cli import progress, track


class ProgressBar(HookBase):
    """Iterations and the loss."""

    def __init__(self, title: str = "train") -> None:
        self.title = title

    def before_train(self) -> None:
        """Start where the training does."""
        trainer = self.trainer
        self.bar = progress(trainer.max_iter, self.title, initial=trainer.start_iter, shown=comm.is_main_process())

    def after_step(self) -> None:
        """Count the iteration."""
        loss, _ = self.trainer.storage.latest().get("total_loss", (float("nan"), 0))
        self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self.bar.update()

    def after_train(self) -> None:
        """Remove the bar, also after an error."""
        self.bar.close()


class TrackedLoader:
    """Batches of a test set, counted by a progress bar."""

    def __init__(self, loader: DataLoader, title: str) -> None:
        self.loader, self.title = loader, title

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        return track(self.loader, self.title, "image", comm.is_main_process())


def results_text(results: Mapping[str, Any], name: str = "") -> str:
    """Results as Detectron2's trainers return them, without those of single categories: a paragraph for each task."""
    inner = {key: value for key, value in results.items() if isinstance(value, Mapping)}
    if inner:
        return "\n".join(results_text(value, f"{name} {key}".strip()) for key, value in inner.items())
    numbers = ", ".join(f"{key} {value:.4g}" for key, value in results.items() if "-" not in key)
    return fill(f"{name}: {numbers}", 110, subsequent_indent="  ")
