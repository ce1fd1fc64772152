"""Where dropout sits in a box head. Dropout has no weights, so checkpoints fit heads with and without it.

Shapes: R boxes, C channels, H rows, W columns.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable

import torch
from detectron2.config import configurable
from detectron2.modeling.roi_heads import ROI_BOX_HEAD_REGISTRY, FastRCNNConvFCHead
from torch import Tensor, nn

from ..config import dropout_positions


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


def dropout_in_blocks(blocks: nn.Sequential, positions: Collection[str], rate: float) -> nn.Sequential:
    """The bottleneck `blocks` of res5 with dropout at those of `positions` that are in it; weights keep their names."""
    # "block1" is number 0 of the chain
    dropout = {str(k): feature_map_dropout(rate) for k in range(len(blocks)) if f"block{k + 1}" in positions}
    chain = OrderedDict(insert_after(blocks.named_children(), dropout))
    if "residual" in positions:
        last, block = chain.popitem()
        chain |= {last: BottleneckBranches(block), "sum": DropoutSum(rate)}
    return nn.Sequential(chain)


class BottleneckBranches(nn.Module):
    """The two summands of a bottleneck block, made of that block's layers under their own names."""

    def __init__(self, block: nn.Module) -> None:
        """
        Args:
            block: Detectron2's `BottleneckBlock`.
        """
        super().__init__()
        for name, layer in block.named_children():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the convolutions make of `x`, and what that is added to, (R, C, H, W) each."""
        added = self.conv3(self.conv2(self.conv1(x).relu_()).relu_())
        return added, self.shortcut(x) if hasattr(self, "shortcut") else x


class DropoutSum(nn.Module):
    """The end of a bottleneck block, with dropout on what the convolutions add.

    Dropout on the sum itself would teach nothing by mean logits: a rectifier lets a factor through, so up to the
    predictor all would be linear.
    """

    def __init__(self, rate: float) -> None:
        """
        Args:
            rate: probability of dropping a channel.
        """
        super().__init__()
        self.dropout = feature_map_dropout(rate)

    def forward(self, branches: tuple[Tensor, Tensor]) -> Tensor:
        """The block's output (R, C, H, W) from its `BottleneckBranches`."""
        added, shortcut = branches
        if not self.dropout.training:
            return added.add_(shortcut).relu_()
        factors = self.dropout(added.new_ones(*added.shape[:2], 1, 1))
        return torch.addcmul(
            shortcut, added, factors
        ).relu_()  # in one go: these maps are large, and there are M passes


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
