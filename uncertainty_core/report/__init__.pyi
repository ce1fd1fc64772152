from .find import Run as Run, find_runs as find_runs
from .page import build_page as build_page
