"""Which columns of a table that came from elsewhere are hyperparameters, which are outcomes, and which are neither."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from finetune.analysis.table import measured, names
from finetune.analysis.table.direction import Direction
from finetune.analysis.table.names import short
from finetune.errors import UserError, one_of

_LONGEST_CATEGORY = 80  # characters: longer strings are notes
_FEW_ROWS = 3  # below it every text is of its own
_OWN_TEXT = 0.95  # share of rows with a text of their own above which texts are names of runs
_MOST_HYPERPARAMETERS = 64  # that vary: with more nobody chose them, and no page can show them

RESERVED = {"id", "seed", "status", "value", "utility", "test", "n", "mean", "std", "low", "high", "test_mean"}
RESERVED |= {"diverged", "lost", "results", *names.MEASURED} - {"epochs"}

MEASURED = "measured, not chosen"
OWN_TEXT = "a text of its own in nearly every row"
LONG_TEXT = "texts too long for a category"
EMPTY = "empty"
OUTCOME = "they look like outcomes"
PROVENANCE = "they say when, where or by whom"
UNPREFIXED = "without the prefix of a hyperparameter"
UNCLEAR = "they may be chosen or noted"
CHOSEN = ""
NOT_NAMED = "not named in --hyperparameters"
IGNORED = "as --ignore says"
PARTIAL = "empty in many rows"
DOUBTFUL = (
    OWN_TEXT,
    LONG_TEXT,
    UNPREFIXED,
    UNCLEAR,
    PARTIAL,
)  # reasons that leave it open whether the column was chosen


class Asked(NamedTuple):
    """What the user says of the columns: names of hyperparameters, of columns to pass over, and of the seeds."""

    hyperparameters: tuple[str, ...] | None = None
    ignore: tuple[str, ...] = ()
    seed_column: str | None = None


class Roles(NamedTuple):
    """What each column of a table is for; a name is None where the table has no such column."""

    metric: str
    test: str | None
    identity: str | None
    status: str | None
    seeds: tuple[str, ...]
    measured: dict[str, str]  # our name -> column
    hyperparameters: dict[str, str]  # name without prefix -> column; those that do not vary too
    passed_over: dict[str, str]  # column -> why

    def is_ignored(self, column: str) -> bool:
        """Says whether the user asked to pass over a column."""
        return self.passed_over.get(column) == IGNORED


def _find(columns: Sequence[str], wanted: Sequence[str]) -> str | None:
    """Returns the first column that goes by one of `wanted`, whatever its prefix and case."""
    bare = {names.bare(column): column for column in reversed(columns)}
    return next((bare[name] for name in wanted if name in bare), None)


def metric_column(columns: Sequence[str], metric: str) -> str:
    """Returns the column that holds `metric`; raises UserError naming the nearest if there is none."""
    return column_of("--metric", columns, metric)


def objective(columns: Sequence[str], metric: str, directions: Mapping[str, Direction]) -> str:
    """Returns the column of a metric; that of an Optuna study's only objective may be called value.

    Raises UserError if there is none, or if it may be one of several.
    """
    if metric == "value" and metric not in columns and directions:
        if len(directions) == 1:
            return next(iter(directions))
        listed = ", ".join(f"{name} ({each.word}d)" for name, each in directions.items())
        raise UserError(f"--metric is 'value' of a study with {len(directions)} objectives, allowed: {listed}")
    return metric_column(columns, metric)


def column_of(what: str, columns: Sequence[str], name: str) -> str:
    """Returns the column called `name`, with or without prefix; raises UserError naming the nearest if none is."""
    found = name if name in columns else _find(columns, [name.lower()])
    if found is None:
        raise one_of(what, name, columns)
    return found


def asked(columns: Sequence[str], wanted: Asked, metric: str) -> Asked:
    """Returns what the user says, with whole names of columns; raises UserError for what is none or contradicts."""
    flags = {"--hyperparameters": wanted.hyperparameters or (), "--ignore": wanted.ignore}
    flags["--seed_column"] = () if wanted.seed_column is None else (wanted.seed_column,)
    found = {flag: tuple(column_of(flag, columns, each) for each in given) for flag, given in flags.items()}
    used: dict[str, str] = {metric_column(columns, metric): "--metric"}
    for flag, given in found.items():
        for column in given:
            if column in used:
                raise UserError(f"column {column!r} is given in {used[column]} and {flag}, allowed: one of them")
            used[column] = flag
    chosen, ignored, seeds = found.values()
    if wanted.hyperparameters is not None and not chosen:
        raise UserError("--hyperparameters names no column, allowed: names of columns with commas between them")
    return Asked(chosen or None, ignored, seeds[0] if seeds else None)


def assign(frame: pd.DataFrame, metric: str, wanted: Asked) -> Roles:
    """Returns the role of each column; raises UserError if too many could be hyperparameters."""
    value = metric_column([str(column) for column in frame.columns], metric)
    columns = [str(column) for column in frame.columns if column not in wanted.ignore]
    plain = [column for column in columns if not names.is_prefixed(column)]
    costs = {name: _find(columns if name == "epochs" else plain, known) for name, known in names.MEASURED.items()}
    found = {name: column for name, column in costs.items() if column not in (None, value)}
    identity, status = (_find(plain, known) for known in (names.IDS, names.STATUSES))
    test = _on_test(columns, value)
    seeds = tuple(c for c in columns if names.is_seed(c)) if wanted.seed_column is None else (wanted.seed_column,)
    left = dict.fromkeys(wanted.ignore, IGNORED)
    taken = {value, identity, status, test, *found.values(), *seeds} - ({costs["epochs"]} - {value})
    candidates = [column for column in columns if column not in taken]
    if wanted.hyperparameters is None:
        left |= _passed_over(frame, candidates, seeds)
        chosen = [column for column in candidates if column not in left]
        _check_number(frame, chosen)
    else:
        chosen = [column for column in wanted.hyperparameters if column not in seeds]
        left |= {column: NOT_NAMED for column in candidates if column not in chosen}
        status, test, identity = (None if each in chosen else each for each in (status, test, identity))
        found = {name: column for name, column in found.items() if name == "epochs" or column not in chosen}
    return Roles(value, test, identity, status, seeds, found, _named(chosen), left)


def _check_number(frame: pd.DataFrame, chosen: Sequence[str]) -> None:
    varying = [column for column in chosen if frame[column].nunique() > 1]
    if len(varying) > _MOST_HYPERPARAMETERS:
        raise UserError(
            f"{len(varying):,} columns could be hyperparameters, such as {', '.join(varying[:3])}, allowed: up to "
            f"{_MOST_HYPERPARAMETERS}; --hyperparameters=NAME,NAME names them"
        )


def _passed_over(frame: pd.DataFrame, candidates: Sequence[str], seeds: Sequence[str]) -> dict[str, str]:
    """Returns why columns are no hyperparameters; where some that vary have the prefix of one, none without it is."""
    reasons = {column: why for column in candidates if (why := _why_not(frame[column], column))}
    varies = {column: frame[column].nunique() > 1 for column in candidates}
    if any(names.is_prefixed(column) and varies[column] for column in candidates):
        for column in candidates:
            if not names.is_prefixed(column):
                reasons[column] = reasons.get(column, UNPREFIXED)
            elif reasons.get(column) not in (OWN_TEXT, LONG_TEXT, EMPTY, None) and not names.is_technical(column):
                del reasons[column]
        return reasons
    sure = [column for column in candidates if column not in reasons]
    reasons |= _decided(frame, sure, reasons)
    chosen = [column for column in candidates if reasons.get(column, CHOSEN) is CHOSEN]
    unnamed = [column for column in chosen if not names.is_known(column)]
    reasons |= dict.fromkeys(measured.by_values(frame, chosen, unnamed, seeds), MEASURED)
    return {column: why for column, why in reasons.items() if why is not CHOSEN}


def _decided(frame: pd.DataFrame, sure: Sequence[str], reasons: dict[str, str]) -> dict[str, str]:
    """Returns CHOSEN or MEASURED for columns whose names leave it open, where values beside the `sure` ones say it."""
    unclear = [column for column, why in reasons.items() if why == UNCLEAR]
    found = [each for each in unclear if measured.is_chosen(frame, each, sure, names.is_known(each))]
    unsure = [each for each in unclear if names.is_noted(each) or not names.is_known(each)]
    noted = [each for each in unsure if measured.is_counted(frame[each])]
    own = [column for column, why in reasons.items() if why == OWN_TEXT]
    alone = not any(measured.varies(frame[column]) for column in [*sure, *found])
    return dict.fromkeys(noted, MEASURED) | dict.fromkeys([*found, *(own if alone else [])], CHOSEN)


def say(passed_over: dict[str, str]) -> list[str]:
    """Returns sentences that name the columns passed over, one for each reason that was not given by the user."""
    reasons = dict.fromkeys(why for why in passed_over.values() if why not in (NOT_NAMED, IGNORED))
    return [
        f"columns passed over ({why}): {', '.join(column for column, each in passed_over.items() if each == why)}"
        for why in reasons
    ]


_VALIDATION = re.compile("val|valid|validation|eval|evaluation|dev|best")


def _on_test(columns: Sequence[str], metric: str) -> str | None:
    """Returns the column with this metric on the test split: val_acc and test_acc, val and test, acc and test_acc."""
    parts = names.words(names.bare(metric))
    if "test" in parts:
        return None
    base = sorted(part for part in parts if not _VALIDATION.fullmatch(part))
    spelled = {column: names.words(names.bare(column)) for column in columns}
    return next((c for c, each in spelled.items() if "test" in each and sorted(each) == sorted([*base, "test"])), None)


def _named(columns: Sequence[str]) -> dict[str, str]:
    """Returns name -> column, without prefixes where that leaves the names distinct and free."""
    found: dict[str, str] = {}
    for column in columns:
        name = short(column)
        found[column if name in found or name in RESERVED else name] = column
    return {f"param_{name}" if name in RESERVED else name: column for name, column in found.items()}


def _why_not(column: pd.Series, name: str) -> str | None:
    """Returns why a column is no hyperparameter, None if it may be one."""
    present = column.dropna()
    if not len(present):
        return EMPTY
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        return "times"
    kind, numeric = names.kind(name), measured.is_numeric(column)
    if kind == "provenance" or (kind == "measured" and numeric):
        return PROVENANCE if kind == "provenance" else MEASURED
    if numeric:
        return OUTCOME if kind == "outcome" else None if kind is None else UNCLEAR
    texts = present.astype(str)
    if (
        len(texts) >= _FEW_ROWS
        and texts.nunique() > _OWN_TEXT * len(texts)
        and (names.is_noted(name) or not names.is_known(name))
    ):
        return OWN_TEXT
    if texts.str.len().max() > _LONGEST_CATEGORY:
        return LONG_TEXT
    return UNCLEAR if kind == "either" else None
