"""Cells of a table as numbers and categories: hyperparameters, outcomes, seeds."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from finetune import records
from finetune.analysis.axis import MANY
from finetune.analysis.columns import Roles
from finetune.errors import UserError

NONE = "(none)"  # the category of a missing cell
_MOST_MISSING = 0.2  # share of a column of numbers: above it, missing means something, as in conditional grids
_STATUS = {  # what others call it -> what we do
    **dict.fromkeys(("complete", "completed", "finished", "success", "succeeded", "done", "ok"), records.COMPLETE),
    **dict.fromkeys(("stopped", "pruned", "killed", "canceled", "cancelled"), records.STOPPED),
    **dict.fromkeys(("fail", "failed", "crashed", "error", "errored"), records.FAILED),
    **dict.fromkeys(("diverged", "nan"), records.DIVERGED),
}
_UNFINISHED = ("running", "waiting", "pending", "queued", "created", "preempted")


class Cells(NamedTuple):
    """A column of hyperparameters: numbers (float64, NaN where the row is to be left out) or categories (str)."""

    values: pd.Series | None  # None if the column is passed over
    note: str | None


def hyperparameter(column: pd.Series, name: str) -> Cells:
    """Returns a column's cells: numbers if all that are there are numbers, else categories."""
    missing = column.isna() | column.isin(["", NONE])
    present = column[~missing]
    numbers = None if _is_flag(present) else pd.to_numeric(present, errors="coerce")
    if numbers is None or numbers.isna().any() or not np.isfinite(numbers).all():
        texts = column.map(_text).where(~missing, NONE)
        return Cells(
            texts.astype(object), f"{missing.sum()} missing cells of {name} are {NONE}" if missing.any() else None
        )
    values = pd.Series(np.nan, column.index, dtype=float)
    values[~missing] = numbers.astype(float)
    if missing.mean() <= _MOST_MISSING:
        return Cells(values, None)
    if numbers.nunique() > MANY:
        return Cells(None, f"{name} is passed over: {missing.mean():.0%} of its cells are missing")
    texts = values.map(lambda number: f"{number:g}").where(~missing, NONE)
    return Cells(texts.astype(object), f"{name} is taken as categories: {missing.mean():.0%} of its cells are missing")


def _is_flag(present: pd.Series) -> bool:
    return bool(len(present)) and all(isinstance(value, bool | np.bool_) for value in present.unique()[:3])


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def outcomes(frame: pd.DataFrame, roles: Roles, minimize: bool) -> tuple[pd.DataFrame, list[str]]:
    """Returns (id, seed, status, value, utility, test and costs of each finished trial; notes); keeps frame's index."""
    notes: list[str] = []
    status = pd.Series(records.COMPLETE, frame.index, dtype=object)
    if roles.status is not None:
        told = frame[roles.status].astype(str).str.lower().str.split(".").str[-1]
        unfinished = told.isin(_UNFINISHED)
        notes += [f"{unfinished.sum()} trials that have not ended are left out"] if unfinished.any() else []
        frame, told = frame[~unfinished], told[~unfinished]
        status = told.map(_STATUS).fillna(records.COMPLETE).astype(object)
    value = _metric(frame[roles.metric], roles.metric)
    lost = ~np.isfinite(value) | status.isin([records.DIVERGED, records.FAILED])
    status = status.mask(lost & (status == records.COMPLETE), records.FAILED).mask(np.isinf(value), records.DIVERGED)
    value = value.mask(lost)
    if lost.any():
        notes.append(
            f"{lost.sum()} trials without a result count as the worst result seen wherever an average needs one"
        )
    table = pd.DataFrame({"id": _identity(frame, roles, notes), "status": status, "value": value})
    table["utility"] = -value if minimize else value
    test = frame[roles.test] if roles.test is not None else pd.Series(np.nan, frame.index)
    table["test"] = pd.to_numeric(test, errors="coerce").astype(float).mask(lost)
    for name, column in roles.measured.items():
        if name not in roles.hyperparameters:
            table[name] = _measured(frame[column])
    return table, notes


def _metric(column: pd.Series, name: str) -> pd.Series:
    value = pd.to_numeric(column, errors="coerce").astype(float)
    if value.notna().any() or not column.notna().any():
        return value
    raise UserError(f"--metric={name} holds {str(column.dropna().iloc[0])[:40]!r}, allowed: a column of numbers")


def _measured(column: pd.Series) -> pd.Series:
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


def seeds(frame: pd.DataFrame, roles: Roles, settings: pd.Series, notes: list[str]) -> pd.Series:
    """Returns which repeat of its setting each trial is: the label of its seeds, or the count where they say nothing.

    settings holds a label for each trial's combination of hyperparameters.
    """
    varying = [column for column in roles.seeds if frame[column].nunique() > 1]
    count = settings.groupby(settings).cumcount()
    if not varying:
        return count
    labels = frame[varying[0]] if len(varying) == 1 else frame[varying].astype(str).agg("/".join, axis=1)
    if len(varying) == 1 and labels.notna().all() and (count.max() > 0) and labels.nunique() == len(labels):
        notes.append(
            f"every trial has a {varying[0]} of its own: repeats of a setting are counted in order of appearance"
        )
        return count
    repeated = pd.DataFrame({"setting": settings, "seed": labels.astype(str)}).duplicated().sum()
    if repeated:
        notes.append(f"{repeated} trials repeat the hyperparameters and the seed of another")
    return labels if len(varying) == 1 and pd.api.types.is_integer_dtype(labels) else labels.astype(str)
