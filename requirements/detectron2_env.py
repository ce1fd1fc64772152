"""Lets detectron2-cdo 0.5 (Python tree of Detectron2 0.5, no compiled ops) run with today's libraries.

Detectron2 calls setup_environment() from here when $DETECTRON2_ENV_MODULE names this file.
"""

import importlib.util
import sys
import types

_WHY = (
    "this Detectron2 is the PyPI sdist detectron2-cdo 0.5, which has no C++ sources: "
    "no deformable convolution, no rotated boxes, no fast COCO evaluation"
)


def _missing(name):
    if name.startswith("__"):
        raise AttributeError(name)
    raise RuntimeError(f"detectron2._C.{name} is not available: {_WHY}.")


def setup_environment():
    if importlib.util.find_spec("detectron2._C") is None:
        ops = types.ModuleType("detectron2._C", _WHY)
        ops.__getattr__ = _missing
        ops.get_compiler_version = lambda: "none (" + _WHY + ")"
        ops.get_cuda_version = lambda: "not available"
        ops.has_cuda = lambda: False
        sys.modules["detectron2._C"] = ops
        # As current Detectron2 does without its extension: pycocotools' own evaluation.
        from pycocotools.cocoeval import COCOeval

        fast = types.ModuleType("detectron2.evaluation.fast_eval_api")
        fast.COCOeval_opt = COCOeval
        sys.modules["detectron2.evaluation.fast_eval_api"] = fast

    import numpy as np
    import PIL.Image

    if "int" not in np.__dict__:  # removed in numpy 1.24
        np.int = int
    if not hasattr(PIL.Image, "LINEAR"):  # removed in Pillow 10
        PIL.Image.LINEAR = PIL.Image.BILINEAR
