"""Test-time augmentation that keeps the uncertainty."""

from mmseg.models.segmentors import SegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from .consensus import prediction, probabilities_of, set_prediction, set_uncertainty, uncertainty_of


@MODELS.register_module()
class DUDESTTAModel(SegTTAModel):
    """`SegTTAModel` that averages the uncertainty of the views, too; for students, teachers and plain segmentors.

    The `seg_logits` of what it gives are of the mean probabilities, and not, as `SegTTAModel`'s, of one of the views.
    """

    def merge_preds(self, data_samples_list: list[list[SegDataSample]]) -> list[SegDataSample]:
        """For each image the sample of its first view, with the means over all views as its prediction."""
        return [self._merged(views) for views in data_samples_list]

    def _merged(self, views: list[SegDataSample]) -> SegDataSample:
        sample = views[0]
        of_views = [uncertainty_of(view) for view in views]
        uncertainty = {name: sum(maps[name] for maps in of_views) / len(views) for name in of_views[0]}
        mean = sum(probabilities_of(view) for view in views) / len(views)
        threshold = self.module.decode_head.threshold if mean.shape[1] == 1 else None
        seg_logits, classes = prediction(mean, threshold)
        set_prediction(sample, seg_logits[0], classes[0])
        set_uncertainty(sample, uncertainty)
        return sample
