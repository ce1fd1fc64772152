"""Where dropout sits in a box head. Dropout has no weights, so checkpoints fit heads with and without it."""

from collections.abc import Collection, Iterable

from detectron2.config import configurable
from detectron2.modeling.roi_heads import ROI_BOX_HEAD_REGISTRY, FastRCNNConvFCHead
from torch import nn

from .config import dropout_positions


def feature_map_dropout(rate: float) -> nn.Module:
    """For feature maps: whole channels, since noise on single positions is averaged away by what follows."""
    return nn.Dropout2d(rate)


def insert_after(
    layers: Iterable[tuple[str, nn.Module]], dropout: dict[str, nn.Module]
) -> Iterable[tuple[str, nn.Module]]:
    """The named `layers` with a module of `dropout` after each layer whose name is among its keys."""
    for name, layer in layers:
        yield name, layer
        if name in dropout:
            yield f"dropout_{name}", dropout[name]


@ROI_BOX_HEAD_REGISTRY.register()
class DropoutFastRCNNConvFCHead(FastRCNNConvFCHead):
    """`FastRCNNConvFCHead` with dropout between its layers.

    On its own it trains a baseline with dropout; in the DDN heads dropout is on in the teacher alone.
    """

    @configurable
    def __init__(self, input_shape, *, dropout_rate: float, dropout_after: Collection[str], **kwargs) -> None:
        """
        Args:
            input_shape, kwargs: as `FastRCNNConvFCHead`.
            dropout_rate: probability of dropping.
            dropout_after: names of the layers that are followed by dropout: "conv1", ..., "fc1", ...
        """
        super().__init__(input_shape, **kwargs)
        dropout = {}
        for name in dropout_after:
            if name.startswith("conv"):
                dropout[name] = feature_map_dropout(dropout_rate)
            else:  # after the rectifier, which in this head is a layer of its own
                dropout[name.replace("fc", "fc_relu")] = nn.Dropout(dropout_rate)
        layers = list(insert_after(self.named_children(), dropout))
        self._modules.clear()
        for name, layer in layers:
            self.add_module(name, layer)

    @classmethod
    def from_config(cls, cfg, input_shape):
        """The config's values."""
        return super().from_config(cfg, input_shape) | {
            "dropout_rate": cfg.MODEL.DDN.DROPOUT.RATE,
            "dropout_after": [position for position in dropout_positions(cfg) if position != "predictor"],
        }
