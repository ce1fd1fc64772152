"""One page that compares what was measured of any number of predictors, from their `run.json`.

    python -m uncertainty_core.report work_dirs/teacher work_dirs/student -o report.html

The page needs nothing beside itself: no network, no font, no picture of its own. Building it needs no browser.
"""

from .find import Run, find_runs
from .page import build_page
