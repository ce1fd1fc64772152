"""Calibrators: small maps, fitted on held-out data, that make the confidences of a finished network come true.

Those of scores map one number in [0, 1] of each detection; those of probabilities map whole distributions over classes.
`fit_*` returns one, calling it applies it with torch alone, `save` and `load` keep it as JSON.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
