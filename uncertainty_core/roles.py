"""What the rows of a comparison are: how each is called, where it stands, how it is drawn and what it is.

Declared here for pages, pictures and consoles alike. They read a row's role off its name, which is all that a record
keeps of it: "student (ddn_small) + temperature" is a student of that configuration, and a calibrator maps its answers.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, cycle
from typing import Any

from .colours import COLOURS

DRAWN_AT_FIRST = len(COLOURS)  # rows of a chart: the others appear on demand


@dataclass(frozen=True)
class Role:
    """A kind of row.

    name: of its rows, or what their names begin with.
    colour: of the first of them, "" for none of their own.
    meaning: what they are, in a line; {passes} stands for their number.
    """

    name: str
    colour: str
    meaning: str

    def fits(self, name: str) -> bool:
        """Whether a row of this name is one."""
        return re.match(rf"{self.name}((?<=\W)|(?![\w-]))", name) is not None


# as they stand in a table
BASELINE = Role("baseline", COLOURS[0], "one network, run once")
STUDENT = Role("student", COLOURS[1], "distilled, run once")
OTHER = Role("", "", "forward passes: {passes}")
PASSES = Role("MC-", COLOURS[2], "mean of {passes} passes with dropout")
ENSEMBLE = Role("ensemble", COLOURS[3], "mean of {passes} networks")
TEACHER = Role("teacher", COLOURS[4], "mean of {passes} networks or passes")
ROLES = (BASELINE, STUDENT, OTHER, PASSES, ENSEMBLE, TEACHER)

_CALIBRATED, _RANKED, _OUTPUT = " + ", " of its softmax", ", output "


def student_name(configuration: str) -> str:
    """The name of a student; `short_names` shorten it where there is no other."""
    return f"{STUDENT.name} ({configuration})"


def passes_name(passes: int, network: str = "") -> str:
    """The name of the mean of so many passes with dropout, of the baseline or of another network."""
    return f"{PASSES.name}{passes}" + (f" of {network}" if network else "")


def ensemble_name(members: int) -> str:
    """The name of the mean of so many networks."""
    return f"{ENSEMBLE.name} of {members}"


def calibrated_name(predictor: str, calibrator: str) -> str:
    """The name of a predictor with a calibrator."""
    return f"{predictor}{_CALIBRATED}{calibrator}"


def ranked_name(predictor: str, uncertainty: str) -> str:
    """The name of a predictor that is judged by another uncertainty, such as the entropy, of its softmax."""
    return f"{predictor}, {uncertainty}{_RANKED}"


def output_name(predictor: str, output: str) -> str:
    """The name of a predictor that is judged by another output of its uncertainty head, such as "error"."""
    return f"{predictor}{_OUTPUT}{output}"


def is_calibrated(name: str) -> bool:
    """Whether a row of this name has a calibrator."""
    return _CALIBRATED in name


def plain_name(name: str) -> str:
    """The name of the same predictor without a calibrator."""
    return name.partition(_CALIBRATED)[0]


def predictor_name(name: str) -> str:
    """The name of the predictor alone, with neither a calibrator nor another uncertainty."""
    plain = plain_name(name)
    return plain.rpartition(", ")[0] if plain.endswith(_RANKED) or _OUTPUT in plain else plain


def role_of(name: str) -> Role:
    """The role of a row of this name."""
    return next(role for role in (*(role for role in ROLES if role.name), OTHER) if role is OTHER or role.fits(name))


def meaning(name: str, passes: int) -> str:
    """What the row of this name is, in a line."""
    predictor, plain = predictor_name(name), plain_name(name)
    if plain != name:
        return "calibrated on held-out images"
    if predictor != plain:
        return f"judged by the {plain.removeprefix(f'{predictor}, ')}"
    return role_of(name).meaning.format(passes=f"{passes:,}")


def order(name: str, passes: int) -> tuple:
    """Sorts rows: one pass before several, by role, fewer passes before more; a predictor's rows stay together."""
    predictor = predictor_name(name)
    return passes > 1, ROLES.index(role_of(name)), passes, natural(predictor), is_calibrated(name), natural(name)


def natural(text: str) -> list[tuple[bool, Any]]:
    """Sorts "MC-2" before "MC-10"."""
    return [(part.isdigit(), int(part) if part.isdigit() else part.lower()) for part in re.split(r"(\d+)", text)]


def short_names(names: Iterable[str]) -> dict[str, str]:
    """How these rows are called beside each other: the only student is called just that."""
    names = list(names)
    students = {predictor_name(name) for name in names if role_of(name) is STUDENT}
    if len(students) != 1:
        return {name: name for name in names}
    (student,) = students
    return {name: name.replace(student, STUDENT.name, 1) for name in names}


def drawn_at_first(names: Iterable[str]) -> list[str]:
    """The rows that charts and pictures show: as many as there are colours, of each role, without calibrators."""
    plain = [name for name in _foremost(names) if not is_calibrated(name)]
    first = {role_of(name): name for name in reversed(plain)}.values()
    chosen = sorted(plain, key=lambda name: name not in first)[:DRAWN_AT_FIRST]
    return [name for name in plain if name in chosen]


def _foremost(names: Iterable[str]) -> list[str]:
    """Those of these rows that stand for others, too: of the baseline with dropout that of most passes alone."""
    names = list(names)
    sampled = [name for name in names if role_of(name) is PASSES]
    passes = {name: int(found[1]) for name in sampled if (found := re.match(rf"{PASSES.name}(\d+)(?! of )", name))}
    most = max(passes.values(), default=0)
    return [name for name in names if name not in sampled or passes.get(name) == most]


@dataclass(frozen=True)
class Look:
    """How a row is drawn: its colour, and the numbers of its mark and of its dashes (0 is a solid line)."""

    colour: str
    mark: int = 0
    dashes: int = 0


def looks(names: Iterable[str]) -> dict[str, Look]:
    """The looks of the rows of one comparison, in its order.

    All rows of a predictor have its colour and mark. The first predictor of a role has the colour of the role, further
    ones have those that nobody has, then the same again with other marks.
    """
    names = list(names)
    predictors = dict.fromkeys(map(predictor_name, (*_foremost(names), *names)))
    first = {role_of(predictor): predictor for predictor in reversed(predictors)}
    colours = {predictor: role.colour for role, predictor in first.items() if role.colour}
    free = [colour for colour in COLOURS if colour not in colours.values()]
    rest = [predictor for predictor in predictors if predictor not in colours]
    colours |= dict(zip(rest, chain(free, cycle(COLOURS)), strict=False))

    worn, rows, found = Counter(), Counter(), {}
    marks: dict[str, int] = {}
    for name in names:
        predictor = predictor_name(name)
        colour = colours[predictor]
        if predictor not in marks:
            marks[predictor] = COLOURS.index(colour) + worn[colour]
            worn[colour] += 1
        found[name] = Look(colour, marks[predictor], rows[predictor])
        rows[predictor] += 1
    return found
