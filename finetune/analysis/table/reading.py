"""How a table was read: rows and columns used, passed over, and why; shown before any result."""

from typing import NamedTuple

from finetune.analysis.table.confounding import Confounded
from finetune.analysis.table.design import Design

_LISTED = 8  # names that still fit on a line


class Rows(NamedTuple):
    """So many rows, and why they are no evidence."""

    number: int
    why: str


class Reading(NamedTuple):
    """How a table was read, before anything is said about it.

    rows: of the table. used: those with a value of the metric. diverged: those whose metric was not finite, which is
    evidence about their settings. not_used: all others, by reason. hyperparameters: names of those that vary; fixed:
    of those that do not. seeds: columns that tell repeats apart, empty where they are counted; repeats: how, in words.
    metric, minimize, direction: the column, whether less is better, and how that is known. test: the column with the
    metric on the test split. measured: columns that runs measured. passed_over: other columns, by reason. design: how
    the settings were chosen. confounded: pairs of hyperparameters that cannot be told apart. notes: what was converted.
    """

    rows: int
    used: int
    diverged: int
    not_used: tuple[Rows, ...]
    hyperparameters: tuple[str, ...]
    fixed: tuple[str, ...]
    seeds: tuple[str, ...]
    repeats: str
    metric: str
    minimize: bool
    direction: str
    test: str | None
    measured: tuple[str, ...]
    passed_over: dict[str, tuple[str, ...]]
    design: Design
    confounded: tuple[Confounded, ...]
    notes: tuple[str, ...]


def lines(reading: Reading) -> list[tuple[str, str]]:
    """Returns (what, how it was read) in words: rows, metric, hyperparameters, repeats, design, columns passed over."""
    test = f"; {reading.test} is the same on the test split" if reading.test else ""
    sign = "lower" if reading.minimize else "higher"
    fixed = f"; {_list(reading.fixed)} {_do(reading.fixed)} not vary" if reading.fixed else ""
    found = [
        ("rows", _rows(reading)),
        ("metric", f"{reading.metric}, {sign} is better ({reading.direction}){test}"),
        ("hyperparameters", f"{_list(reading.hyperparameters) or 'none that vary'}{fixed}"),
        ("repeats", reading.repeats),
        ("settings", f"{reading.design.kind}: {reading.design.why}"),
    ]
    if reading.measured:
        found.append(("measured", f"{_list(reading.measured)}: what runs did, not what was chosen"))
    if reading.passed_over:
        said = "; ".join(f"{_list(columns)} ({why})" for why, columns in reading.passed_over.items())
        found.append(("passed over", said))
    return [*found, *(("note", note) for note in reading.notes)]


def _rows(reading: Reading) -> str:
    parts = [f"{reading.used:,} of {reading.rows:,} with a result"]
    parts += [f"{reading.diverged:,} diverged, which counts against their settings"] if reading.diverged else []
    parts += [f"{each.number:,} not used: {each.why}" for each in reading.not_used]
    return "; ".join(parts)


def _do(names: tuple[str, ...]) -> str:
    return "does" if len(names) == 1 else "do"


def _list(names: tuple[str, ...]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
