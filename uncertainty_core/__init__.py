"""Calibration and selective-prediction metrics, Monte-Carlo sampling, distillation losses, target stores and plots.

Knows torch and no framework. `__init__.pyi` is the table of contents; each name is imported when it is first used, so
that `import uncertainty_core` costs nothing and its functions need no torchmetrics. `uncertainty_core.plots` is
imported on its own: it alone needs matplotlib.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
