"""Pictures of predictions while a segmentor is validated or tested."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample
from PIL import Image

from uncertainty_core.io.files import write_png

from ..inference.pictures import strip
from ..models.consensus import uncertainty_of


@HOOKS.register_module()
class UncertaintyVisualizationHook(Hook):
    """Writes image, ground truth, prediction, errors and uncertainty side by side, and hands them to the vis backends.

    Files go to `<work_dir>/uncertainty/`. Predictions without an uncertainty map are passed over.

    Args:
        interval: every so many images, the first one included.
        limit: of pictures in each validation or test; None for no limit.
    """

    def __init__(self, interval: int = 50, limit: int | None = None) -> None:
        if interval < 1:
            raise ValueError(f"interval must be at least 1, got {interval}")
        self.interval, self.limit = interval, limit
        self._seen = self._drawn = 0

    def before_val_epoch(self, runner: Runner) -> None:
        """Count anew."""
        self._seen = self._drawn = 0

    before_test_epoch = before_val_epoch

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[SegDataSample] | None = None
    ) -> None:
        """Draw those of a batch that are due."""
        for sample in outputs or ():
            due = self._seen % self.interval == 0 and (self.limit is None or self._drawn < self.limit)
            self._seen += 1
            if due and "pred_uncertainty" in sample:
                self._drawn += 1
                self._draw(runner, sample)

    after_test_iter = after_val_iter

    def _draw(self, runner: Runner, sample: SegDataSample) -> None:
        picture = draw_sample(sample, runner.visualizer.dataset_meta["palette"])
        name = Path(sample.img_path).stem
        path = Path(runner.work_dir) / "uncertainty" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, Image.fromarray(picture))
        # no slash in it: backends that write files make no folders for them, and do not say so
        runner.visualizer.add_image(f"uncertainty_{name}", picture, runner.iter)


def draw_sample(sample: SegDataSample, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """The strip of a prediction, with its image from the file that it was loaded from."""
    image = mmcv.imread(sample.img_path, channel_order="rgb")
    label = sample.gt_sem_seg.data[0].cpu().numpy() if "gt_sem_seg" in sample else None
    prediction = sample.pred_sem_seg.data[0].cpu().numpy().astype(int)
    maps = {name: values[0].float().cpu().numpy() for name, values in uncertainty_of(sample).items() if name != "std"}
    uncertainty = sample.pred_uncertainty.data[0].float().cpu().numpy()
    return strip(image, prediction, uncertainty, palette, label, maps)
