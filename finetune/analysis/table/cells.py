"""Cells of a table as numbers and categories: hyperparameters and outcomes."""

import math
import re
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from finetune.analysis.table import measured, names, status
from finetune.analysis.table.axis import MANY
from finetune.analysis.table.columns import Roles
from finetune.errors import UserError
from finetune.storage import records

NONE = "(none)"  # the category of a missing cell
_MOST_MISSING = 0.2  # share of a column of numbers: above it, missing means something, as in conditional grids
_ITERATIONS = "training_iteration"  # of Ray Tune: how far a run came
_NOT_A_NUMBER = re.compile(r"[-+]?nan", re.IGNORECASE)


class Cells(NamedTuple):
    """A column of hyperparameters: numbers (float64, NaN where the row is to be left out) or categories (str)."""

    values: pd.Series | None  # None if the column is passed over
    note: str | None


def hyperparameter(column: pd.Series, name: str, depends: str | None, complete: pd.Series) -> Cells:
    """Returns a column's cells: numbers if all that are there are numbers, else categories.

    depends: the hyperparameter whose value says whether this one exists, None if there is none; complete: the rows
    that have a result, whose missing cells count. Raises UserError if a column that was clearly chosen misses too many.
    """
    missing = column.isna() | column.isin(["", NONE])
    present = column[~missing]
    numbers = None if _is_flag(present) else pd.to_numeric(present, errors="coerce")
    if numbers is None or numbers.isna().any() or not np.isfinite(numbers.astype(float)).all():
        texts = column.map(_text).where(~missing, NONE)
        return Cells(
            texts.astype(object), f"{missing.sum()} missing cells of {name} are {NONE}" if missing.any() else None
        )
    values = pd.Series(np.nan, column.index, dtype=float)
    values[~missing] = numbers.astype(float)
    share = missing[complete].mean() if complete.any() else missing.mean()
    if not missing.any() or (share <= _MOST_MISSING and depends is None):
        return Cells(values, None)
    if numbers.nunique() <= MANY:
        texts = values.map(lambda number: f"{number:g}").where(~missing, NONE)
        return Cells(texts.astype(object), f"{name} is taken as categories: {share:.0%} of its cells are missing")
    if depends is None and names.is_known(name):
        raise UserError(
            f"{name} is empty in {missing.sum():,} of {len(column):,} rows, allowed: a value in each; "
            f"--ignore={name} reads the table without it"
        )
    why = f"whether it exists depends on {depends}" if depends else "it may have been measured"
    return Cells(None, f"{name} is passed over: {share:.0%} of its cells are missing, {why}")


def depends_on(column: pd.Series, others: pd.DataFrame) -> str | None:
    """Returns the name of the first listed column whose value says whether `column` has a cell, None if none does."""
    missing = column.isna()
    if not missing.any() or missing.all():
        return None
    for name in others:
        other = others[name].astype(str)
        levels = pd.DataFrame({"other": other, "missing": missing}).drop_duplicates()
        if (
            measured.is_listed(others[name])
            and 2 * len(levels) <= len(column)
            and not levels["other"].duplicated().any()
        ):
            return str(name)
    return None


def _is_flag(present: pd.Series) -> bool:
    return bool(len(present)) and all(isinstance(value, bool | np.bool_) for value in present.unique()[:3])


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def outcomes(frame: pd.DataFrame, roles: Roles, minimize: bool) -> tuple[pd.DataFrame, list[str]]:
    """Returns (id, status, value, utility, test, costs and what was said of each trial; notes); keeps frame's index.

    Only a complete trial has a value. One that ended with a metric that is not finite diverged; one that ended without
    any came to no result, unless a loss beside it is not finite.
    """
    notes: list[str] = []
    ended, said = pd.Series(records.COMPLETE, frame.index, dtype=object), pd.Series("", frame.index, dtype=object)
    if roles.status is not None:
        ended, said = status.read(frame[roles.status], roles.status)
    early = _ended_early(frame, roles) & (ended == records.COMPLETE)
    ended, said = ended.mask(early, records.STOPPED), said.mask(early, f"ended at an earlier {_ITERATIONS} than others")
    value = _metric(frame[roles.metric], roles.metric)
    infinite = _is_written_nan(frame[roles.metric]) | np.isinf(value)
    losses = [column for name, column in roles.measured.items() if name.endswith("_loss")]
    for column in losses:
        exploded = _is_written_nan(frame[column]) | np.isinf(
            pd.to_numeric(frame[column], errors="coerce").astype(float)
        )
        infinite |= exploded & value.isna()
    complete = ended == records.COMPLETE
    said = said.mask(complete & infinite, f"{roles.metric} or a loss is not finite")
    said = said.mask(complete & ~infinite & value.isna(), f"no {roles.metric}")
    ended = ended.mask(complete & infinite, records.DIVERGED).mask(complete & ~infinite & value.isna(), records.FAILED)
    lost = ended != records.COMPLETE
    value = value.mask(lost)
    table = pd.DataFrame({"id": _identity(frame, roles, notes), "status": ended, "value": value})
    table["utility"] = -value if minimize else value
    test = frame[roles.test] if roles.test is not None else pd.Series(np.nan, frame.index)
    table["test"] = pd.to_numeric(test, errors="coerce").astype(float).mask(lost)
    for name, column in roles.measured.items():
        if name not in roles.hyperparameters:
            table[name] = _measured(frame[column])
    return table.assign(said=said), notes


def _metric(column: pd.Series, name: str) -> pd.Series:
    """Returns numbers, NaN where a cell is empty or a word; raises UserError if one holds more than a number."""
    value = pd.to_numeric(column, errors="coerce").astype(float)
    texts = column[value.isna() & column.notna()].astype(str)
    mixed = texts[texts.str.contains(r"\d", regex=True)]
    if len(mixed):
        raise UserError(
            f"--metric={name} holds {mixed.iloc[0][:40]!r}, allowed: one number in a cell, a row for each run"
        )
    if not value.notna().any() and len(texts) and not texts.str.fullmatch(_NOT_A_NUMBER).all():
        raise UserError(f"--metric={name} holds {texts.iloc[0][:40]!r}, allowed: a column of numbers")
    return value


def _is_written_nan(column: pd.Series) -> pd.Series:
    """Says of each cell whether it holds NaN as a number or a word, which a cell that is missing does not."""
    if pd.api.types.is_numeric_dtype(column):
        return pd.Series(False, column.index)
    return column.map(
        lambda cell: math.isnan(cell) if isinstance(cell, float) else bool(_NOT_A_NUMBER.fullmatch(str(cell)))
    ).astype(bool)


def _measured(column: pd.Series) -> pd.Series:
    """Returns numbers, durations in seconds."""
    if not pd.api.types.is_numeric_dtype(column) and column.astype(str).str.contains("days|:").any():
        column = pd.to_timedelta(column, errors="coerce")
    if pd.api.types.is_timedelta64_dtype(column):
        return column.dt.total_seconds()
    return pd.to_numeric(column, errors="coerce").astype(float)


def _identity(frame: pd.DataFrame, roles: Roles, notes: list[str]) -> pd.Series:
    """Returns the ids as text: those of the table if they are distinct, else the numbers of its rows."""
    if roles.identity is not None:
        ids = frame[roles.identity].astype(str)
        if not ids.duplicated().any():
            return ids.astype(object)
        notes.append(
            f"{roles.identity} is not distinct in every row: rows are numbered instead, each counts as a trial"
        )
    return pd.Series([str(i) for i in frame.index], frame.index, dtype=object)


def _ended_early(frame: pd.DataFrame, roles: Roles) -> pd.Series:
    """Says of each row of a table of Ray Tune whether it ended before the iteration that others of its budget reached.

    Raises UserError if nearly every row ended elsewhere: such a rule may have stopped runs that had converged.
    """
    never = pd.Series(False, frame.index)
    if _ITERATIONS not in frame or roles.is_ignored(_ITERATIONS) or _ITERATIONS in roles.hyperparameters.values():
        return never
    reached = pd.to_numeric(frame[_ITERATIONS], errors="coerce")
    budgets = [
        each for each in roles.hyperparameters.values() if {"epochs", "steps", "iterations"} & set(names.words(each))
    ]
    most = reached.groupby([frame[each] for each in budgets]).transform("max") if budgets else reached.max()
    early = (reached < most).fillna(False)
    if early.any() and 2 * reached.nunique() > len(reached):
        raise UserError(
            f"{_ITERATIONS} differs in nearly every row, so that it is not known which runs are final, allowed: "
            f"--ignore={_ITERATIONS} if all are"
        )
    return early
