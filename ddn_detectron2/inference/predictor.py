"""A detector as its user calls it: one image in, detections with their uncertainty out."""

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T
from detectron2.engine import DefaultPredictor

from ..engine.trainer import build_network, load_detector


class DDNPredictor(DefaultPredictor):
    """`DefaultPredictor` for students, Monte-Carlo dropout, ensembles and plain detectors, as `MODEL.DDN.TEST` has it.

    Weights have to fit wholly, and their file is not trusted. The instances hold boxes, classes and scores, and where
    the config asks for them `score_before` (N,), `score_std` (N,) and `box_std` (N, 4) in pixels.

    Args:
        cfg: with `MODEL.WEIGHTS`.

    Example::

        predictor = DDNPredictor(cfg)
        instances = predictor(cv2.imread("photo.jpg"))["instances"]
        instances.scores, instances.box_std
    """

    def __init__(self, cfg: CfgNode) -> None:
        # not DefaultPredictor's, which unpickles the checkpoint and lets weights be missing
        self.cfg = cfg.clone()
        self.model = build_network(self.cfg).eval()
        load_detector(self.cfg, self.model, self.cfg.MODEL.WEIGHTS)
        self.metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0]) if cfg.DATASETS.TEST else None
        self.aug = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
        self.input_format = cfg.INPUT.FORMAT
