"""YAML configs: from any Faster, Mask, Keypoint, Cascade or Panoptic R-CNN to its DDN form, and back."""

from functools import singledispatch

from detectron2.config import CfgNode

from ..config import ConfigError, add_ddn_config

_DDN_NAMES = {
    "MODEL.META_ARCHITECTURE": {"GeneralizedRCNN": "DDNRCNN", "PanopticFPN": "DDNPanopticFPN"},
    "MODEL.ROI_HEADS.NAME": {
        "Res5ROIHeads": "DDNRes5ROIHeads",
        "StandardROIHeads": "DDNStandardROIHeads",
        "CascadeROIHeads": "DDNCascadeROIHeads",
    },
    "MODEL.ROI_BOX_HEAD.NAME": {"FastRCNNConvFCHead": "DropoutFastRCNNConvFCHead"},
}
# Res5ROIHeads have no box head, but their configs may name one.
_BOX_HEAD = "MODEL.ROI_BOX_HEAD.NAME"


def _section(cfg: CfgNode, key: str) -> tuple[CfgNode, str]:
    *path, name = key.split(".")
    for part in path:
        cfg = cfg[part]
    return cfg, name


@singledispatch
def is_ddn(cfg: CfgNode) -> bool:
    """Whether `cfg` describes a detector of this package."""
    return cfg.MODEL.META_ARCHITECTURE in _DDN_NAMES["MODEL.META_ARCHITECTURE"].values()


@singledispatch
def to_ddn(cfg: CfgNode) -> CfgNode:
    """A copy of `cfg` whose model is distilled: same layers, same weights, other training.

    Accepts configs of R-CNNs and PanopticFPN on Res5, Standard or Cascade heads; others are a ConfigError.
    """
    cfg = cfg.clone()
    cfg.defrost()
    if "DDN" not in cfg.MODEL:
        add_ddn_config(cfg)
    if is_ddn(cfg):
        return cfg
    res5 = cfg.MODEL.ROI_HEADS.NAME == "Res5ROIHeads"
    for key, names in _DDN_NAMES.items():
        section, name = _section(cfg, key)
        if section[name] in names:
            section[name] = names[section[name]]
        elif not (res5 and key == _BOX_HEAD) and section[name] not in names.values():
            raise ConfigError(f"{key} is {section[name]!r}: only models with {' or '.join(names)} can be distilled")
    if res5:
        # the mask head stands on res5, which changes, and has to follow
        cfg.MODEL.DDN.FREEZE = tuple(part for part in cfg.MODEL.DDN.FREEZE if part != "mask_head")
    return cfg


@singledispatch
def to_plain(cfg: CfgNode) -> CfgNode:
    """A copy of `cfg` for Detectron2 without this package: the same network, run once and without dropout."""
    cfg = cfg.clone()
    cfg.defrost()
    for key, names in _DDN_NAMES.items():
        section, name = _section(cfg, key)
        section[name] = {ddn: plain for plain, ddn in names.items()}.get(section[name], section[name])
    cfg.MODEL.pop("DDN", None)
    return cfg
