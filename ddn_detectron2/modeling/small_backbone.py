"""A backbone for demos and tests: a detector on it trains on a CPU in a minute."""

from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn


class ConvBlock(CNNBlockBase):
    """3x3 convolution, normalisation, rectifier; then the same again at stride 1."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: str) -> None:
        super().__init__(in_channels, out_channels, stride)
        steps = ((in_channels, stride), (out_channels, 1))
        self.convs = nn.Sequential(
            *(
                Conv2d(
                    channels,
                    out_channels,
                    kernel_size=3,
                    stride=step,
                    padding=1,
                    bias=not norm,
                    norm=get_norm(norm, out_channels),
                    activation=nn.ReLU(),
                )
                for channels, step in steps
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        return self.convs(x)


class SmallBackbone(Backbone):
    """Three blocks; gives "small", a feature map at stride 4 with `channels` channels."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            ConvBlock(3, channels // 4, 2, norm),
            ConvBlock(channels // 4, channels // 2, 2, norm),
            ConvBlock(channels // 2, channels, 1, norm),
        )
        self.channels = channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, H, W)."""
        return {"small": self.blocks(x)}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Of "small"."""
        return {"small": ShapeSpec(channels=self.channels, stride=4)}


@BACKBONE_REGISTRY.register()
def build_small_backbone(cfg, input_shape):
    """`MODEL.RESNETS.RES2_OUT_CHANNELS` channels, `MODEL.RESNETS.NORM`."""
    return SmallBackbone(cfg.MODEL.RESNETS.RES2_OUT_CHANNELS, cfg.MODEL.RESNETS.NORM)


@BACKBONE_REGISTRY.register()
def build_small_c4_backbone(cfg, input_shape):
    """The same with four times as many channels, which is what `Res5ROIHeads` expect."""
    return SmallBackbone(4 * cfg.MODEL.RESNETS.RES2_OUT_CHANNELS, cfg.MODEL.RESNETS.NORM)
