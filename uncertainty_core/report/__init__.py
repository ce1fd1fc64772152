"""One page that compares what was measured of any number of predictors, from their `run.json`.

    distilled-uncertainty report work_dirs/teacher work_dirs/student -o report.html

The page needs nothing beside itself: no network, no font, no picture of its own. Building it needs no browser.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
