"""Average precision and calibration of detections for COCO-format data, of any framework.

Knows numpy and torch. Not imported by `uncertainty_core` itself.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
