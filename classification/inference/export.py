"""Classifiers as one graph, from the bytes of images to probabilities and their entropy.

Shapes: B images, C classes, K channels, H x W pixels.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor, nn

from uncertainty_core import entropy, state_dict_sha256
from uncertainty_core.export import IMAGE, Description, Graph, versions_of
from uncertainty_core.recalibration import ProbabilityCalibrator, save
from uncertainty_core.recalibration.recipes import FILE as CALIBRATOR

from ..checkpoint import write_tensors
from ..data.batches import to_float

OUTPUTS = {
    "classes": "the predicted class (B,), int64",
    "probabilities": "of the classes (B, C)",
    "entropy": "of the probabilities, in nats (B,)",
}


class ClassifierGraph(nn.Module):
    """From images, bytes (B, H, W, K), to a tuple of what `OUTPUTS` names.

    Args:
        model: makes logits (B, C) of normalised images (B, K, H, W).
        mean, std: of the training images' channels (K,), which run from 0 to 1.
        calibrator: of the probabilities.
    """

    def __init__(
        self, model: nn.Module, mean: Tensor, std: Tensor, calibrator: ProbabilityCalibrator | None = None
    ) -> None:
        super().__init__()
        self.model, self._calibrator = model, calibrator
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs."""
        logits = self.model(to_float(image.permute(0, 3, 1, 2), self.mean, self.std))
        probabilities = logits.softmax(1)
        if self._calibrator is not None:
            probabilities = self._calibrator(probabilities)
        return probabilities.argmax(1), probabilities, entropy(probabilities, reduction="none")


def classifier_graph(
    model: nn.Module,
    statistics: tuple[Tensor, Tensor],
    example: Tensor,
    classes: Sequence[str],
    calibrator: ProbabilityCalibrator | None = None,
) -> Graph:
    """The graph of a trained network, for any number of images of one size.

    Args:
        model: in eval mode.
        statistics: mean and deviation of the channels, see `Experiment.statistics`.
        example: an image, uint8 (1, K, H, W).
        classes: names.
        calibrator: of the probabilities.
    """
    _, channels, height, width = example.shape
    description = Description(
        task="classification",
        classes=tuple(classes),
        input=f"uint8 (B, {height}, {width}, {channels}): {'RGB' if channels == 3 else 'gray values'}",
        outputs=OUTPUTS,
        weights_sha256=state_dict_sha256(model.state_dict()),
        calibrators={} if calibrator is None else {"calibrator": calibrator.to_json()},
        versions=versions_of("distilled-uncertainty", "torch", "torchvision"),
    )
    module = ClassifierGraph(model, *statistics, calibrator).eval()
    axes = {name: {0: "batch"} for name in (IMAGE, *OUTPUTS)}
    return Graph(module, example.permute(0, 2, 3, 1).contiguous(), axes, description)


def export_plain(model: nn.Module, calibrator: ProbabilityCalibrator | None, folder: Path) -> Iterator[Path]:
    """Write model.safetensors, the weights by their names in the class of the network, and calibrator.json beside."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", model.state_dict())
    yield folder / "model.safetensors"
    if calibrator is not None:
        save(calibrator, folder / CALIBRATOR)
        yield folder / CALIBRATOR
