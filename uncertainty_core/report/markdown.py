"""A comparison as plain text: what was found, and tables that read well as they are, and as Markdown."""

from collections.abc import Mapping, Sequence

from ..catalog import brief
from .find import Group, Run, grouped

MISSING = "-"


def comparison(runs: Sequence[Run]) -> str:
    """What was found out about these runs, then the short table of each task and data set, as the page has them."""
    groups = grouped(runs)
    blocks = ["\n".join(findings(groups))]
    for name, group in groups.items():
        heading = f"{name}:\n" if len(groups) > 1 else ""
        rows = {row: [record.row for record in records] for row, records in group.records.items()}
        blocks.append(heading + brief_table(group.task, _means(rows)))
        if any(record.equal_count for records in group.records.values() for record in records):
            counted = {row: [record.equal_count for record in records] for row, records in group.records.items()}
            blocks.append(
                f"On equally many detections, the best of each row:\n{brief_table(group.task, _means(counted))}"
            )
    return "\n\n".join(filter(None, blocks))


def findings(groups: Mapping[str, Group]) -> list[str]:
    """A sentence for each student of each group; those of several begin with its name."""
    if not any(group.measured for group in groups.values()):
        return []
    from ..intervals import findings  # which needs torch

    return [
        f"{name}: {sentence}" if len(groups) > 1 else sentence
        for name, group in groups.items()
        for sentence in findings.findings(group.task, group.measured)
    ]


def _means(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Of each metric of each row over its seeds, which its name then counts."""
    return {
        name if len(seeds) == 1 else f"{name}, {len(seeds)} seeds": {
            key: sum(measured[key] for measured in seeds) / len(seeds)
            for key in seeds[0]
            if all(key in measured for measured in seeds)
        }
        for name, seeds in rows.items()
    }


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
