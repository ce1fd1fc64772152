"""One self-contained HTML page of an experiment: the papers' tables and figures, from what `evaluate` measured."""

from .page import build_report, write_report
