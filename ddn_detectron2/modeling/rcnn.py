"""The detectors: `GeneralizedRCNN` and `PanopticFPN` of which only what is distilled is trained."""

from collections.abc import Sequence

from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN, PanopticFPN
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from uncertainty_core import dropout_modules
from uncertainty_core.sampling.folds import image_key

from ..boxes import scaled_std
from ..config import ConfigError, check_ddn_config
from ..teaching.unlabelled import unknown_objects


class FrozenTrunkMixin:
    """Freezes everything that decides proposals: backbone and proposal generator. Comes before a `GeneralizedRCNN`.

    What is frozen stays in eval mode: there is no loss of the proposal generator, and in training the student is shown
    the boxes that it, and its teacher, will propose at test time. Normalisation keeps its statistics everywhere, and
    dropout is off, as the student's single pass will have it.
    """

    @configurable
    def __init__(self, *, freeze: Sequence[str], **kwargs) -> None:
        """
        Args:
            freeze: what is frozen beside the trunk: "mask_head", "keypoint_head", "box_regression".
            kwargs: as `GeneralizedRCNN`.
        """
        super().__init__(**kwargs)
        self.freeze = tuple(freeze)
        for module in self._frozen():
            module.requires_grad_(False)

    @classmethod
    def from_config(cls, cfg):
        """The config's values."""
        check_ddn_config(cfg)
        return super().from_config(cfg) | {"freeze": cfg.MODEL.DDN.FREEZE}

    def _frozen(self) -> list[nn.Module]:
        modules = [self.backbone, self.proposal_generator]
        modules += [getattr(self.roi_heads, name, None) for name in self.freeze if name != "box_regression"]
        if "box_regression" in self.freeze:
            modules += [m.bbox_pred for m in self.roi_heads.modules() if hasattr(m, "bbox_pred")]
        return [module for module in modules if module is not None]

    def preprocess_image(self, batched_inputs):
        """As `GeneralizedRCNN`; the images know by what name teachers that are asked out of fold know them."""
        images = super().preprocess_image(batched_inputs)
        images.keys = [image_key(image.get("file_name", "")) for image in batched_inputs]
        return images

    def forward(self, batched_inputs):
        """As `GeneralizedRCNN`, whose losses are of boxes alone; an image without "instances" is unlabelled."""
        if self.training:
            batched_inputs = [
                image if "instances" in image else image | {"instances": unknown_objects(image["image"].shape[1:])}
                for image in batched_inputs
            ]
        return GeneralizedRCNN.forward(self, batched_inputs)

    def train(self, mode: bool = True) -> "FrozenTrunkMixin":
        """Switch what is trained."""
        super().train(mode)
        still = [*self._frozen(), *dropout_modules(self), *(m for m in self.modules() if isinstance(m, _BatchNorm))]
        for module in still:
            module.eval()
        return self


@META_ARCH_REGISTRY.register()
class DDNRCNN(FrozenTrunkMixin, GeneralizedRCNN):
    """`GeneralizedRCNN` whose box head alone is trained, and what stands on it."""

    def inference(self, batched_inputs, detected_instances=None, do_postprocess=True):
        """As `GeneralizedRCNN`, which scales boxes to the original images; here `box_std` as well."""
        results = super().inference(batched_inputs, detected_instances, do_postprocess=False)
        if not do_postprocess:
            return results
        for found, image in zip(results, batched_inputs, strict=True):
            if found.has("box_std"):
                height, width = found.image_size
                original = image.get("height", height), image.get("width", width)
                found.box_std = scaled_std(found.box_std, found.image_size, original)
        return GeneralizedRCNN._postprocess(results, batched_inputs, [found.image_size for found in results])


@META_ARCH_REGISTRY.register()
class DDNPanopticFPN(FrozenTrunkMixin, PanopticFPN):
    """`PanopticFPN` whose box head alone is trained: the semantic head, too, is frozen, and has no loss."""

    @configurable
    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        if self.roi_heads.last_predictor.box_std is not None:
            raise ConfigError("MODEL.DDN.BOX_STD is not for PanopticFPN, which scales boxes to the image by itself")

    def inference(self, batched_inputs, do_postprocess=True):
        """As `PanopticFPN`, which scales boxes to the original images; here the `box_std` of passes as well."""
        results = super().inference(batched_inputs, do_postprocess)
        for result, image in zip(results, batched_inputs, strict=True) if do_postprocess else ():
            found = result["instances"]
            if found.has("box_std"):
                found.box_std = scaled_std(found.box_std, image["image"].shape[1:], found.image_size)
        return results

    def _frozen(self) -> list[nn.Module]:
        return [*super()._frozen(), self.sem_seg_head]
