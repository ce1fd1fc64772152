"""One bar on the terminal that shows how far a training, a validation or a test is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from uncertainty_core.cli import echo, progress


@HOOKS.register_module()
class ProgressHook(Hook):
    """Drives `uncertainty_core.cli.progress` with the iterations of a run; this package's trainings have it by default.

    The bar of a training is named after the work dir and shows the loss; that of a validation stands below it. When a
    training ends, one line prints what its last validation measured.
    """

    def before_train(self, runner: Runner) -> None:
        """Start where the run is resumed."""
        self._validated: dict[str, float] = {}
        self._training = progress(runner.max_iters, Path(runner.work_dir).name, initial=runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """One more; the loss waits for a GPU, so it is read only when the bar is drawn."""
        if self._training.update() and outputs:
            self._training.set_postfix({"loss": f"{float(outputs['loss']):.3g}"}, refresh=False)

    def after_train(self, runner: Runner) -> None:
        """The bar goes, the line comes."""
        self._training.close()
        if self._validated:
            values = ", ".join(f"{name} {value:.4g}" for name, value in self._validated.items())
            echo(f"{Path(runner.work_dir).name}: {values} on the validation images")

    def before_val_epoch(self, runner: Runner) -> None:
        """Start a bar of its own."""
        self._evaluation = progress(len(runner.val_dataloader), "validate")

    def before_test_epoch(self, runner: Runner) -> None:
        """Start the bar."""
        self._evaluation = progress(len(runner.test_dataloader), Path(runner.work_dir).name)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """One batch more."""
        self._evaluation.update()

    after_test_iter = after_val_iter

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """The bar goes; the values are kept for the end of the training."""
        self._evaluation.close()
        self._validated = metrics or {}

    after_test_epoch = after_val_epoch
