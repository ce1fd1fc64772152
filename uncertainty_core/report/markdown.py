"""Tables that read well as they are, and as Markdown."""

from collections.abc import Mapping, Sequence

from ..catalog import brief

MISSING = "-"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A line for the header, one below it and one for each row, whose columns are as wide as their widest cell."""
    lines = [[cell.replace("|", r"\|") for cell in line] for line in (header, ["---"] * len(header), *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("| " + " | ".join(f"{c:<{w}}" for c, w in zip(line, widths, strict=True)) + " |" for line in lines)


def brief_table(task: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """The short table of a task: a line for each predictor, with those of its metrics that `catalog` says are brief."""
    columns = brief(task, [key for measured in rows.values() for key in measured])
    lines = [
        [name, *(column.text(measured[column.key]) if column.key in measured else MISSING for column in columns)]
        for name, measured in rows.items()
    ]
    return markdown_table(["predictor", *(column.head for column in columns)], lines)
