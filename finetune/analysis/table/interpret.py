"""From a table as it was found to trials: what columns are for, which rows are evidence, how settings were chosen."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from finetune.analysis.table import cells, columns, confounding, design, names, repeats, steps
from finetune.analysis.table.axis import Axis, make_axis
from finetune.analysis.table.columns import Asked, Roles
from finetune.analysis.table.design import Design
from finetune.analysis.table.reading import Reading, Rows
from finetune.storage import records


class Found(NamedTuple):
    """What is known of a table beside its cells.

    scales maps names of axes to log or linear; direction: how it is known whether less is better; sampler: an adaptive
    one that chose the trials; ordered: whether numbers, times or rows may tell the order in which trials came; design:
    how settings were chosen, where that is known.
    """

    scales: Mapping[str, str] = {}
    notes: Sequence[str] = ()
    direction: str = "as asked"
    sampler: str | None = None
    ordered: bool = False
    design: Design | None = None


class Interpreted(NamedTuple):
    """table: one row a trial as in `Trials.frame`; fixed: hyperparameters that do not vary."""

    table: pd.DataFrame
    axes: tuple[Axis, ...]
    fixed: dict[str, Any]
    metric: str
    notes: tuple[str, ...]
    reading: Reading


def interpret(frame: pd.DataFrame, metric: str, minimize: bool, asked: Asked, found: Found) -> Interpreted:
    """Returns the trials of a table with one row a trial; raises UserError where rows cannot be read as trials."""
    frame = frame.apply(_plain)
    roles = columns.assign(frame, metric, asked)
    steps.check(frame, roles)
    outcomes, said = cells.outcomes(frame, roles, minimize)
    if asked.hyperparameters is None:
        roles = _without_results(frame, roles, outcomes["status"] == records.COMPLETE)
    kept, partial, noted = _hyperparameters(frame, roles, outcomes["status"] == records.COMPLETE)
    roles = roles._replace(passed_over=roles.passed_over | partial)
    axes, fixed = _axes(kept, found.scales)
    settings = kept.groupby(list(kept.columns)).ngroup() if len(kept.columns) else pd.Series(0, kept.index)
    seed, repeated = repeats.label(frame.loc[kept.index], roles, settings, noted)
    if asked.hyperparameters is None:
        repeated += repeats.check(frame.loc[kept.index], roles, settings)
    table = outcomes.loc[kept.index].join(kept).assign(seed=seed)
    came = design.order(frame, roles.identity, kept.index) if found.ordered else None
    reading = Reading(
        rows=len(frame),
        used=int((table["status"] == records.COMPLETE).sum()),
        diverged=int((table["status"] == records.DIVERGED).sum()),
        not_used=_not_used(outcomes, kept),
        hyperparameters=tuple(axis.name for axis in axes),
        fixed=tuple(fixed),
        seeds=tuple(seed for seed in roles.seeds if frame[seed].nunique() > 1),
        repeats=repeated,
        metric=roles.metric,
        minimize=minimize,
        direction=found.direction,
        test=roles.test,
        measured=_measured(roles),
        passed_over=_by_reason(roles),
        design=found.design or design.design(table, axes, came, found.sampler),
        confounded=confounding.confounded(table, axes),
        notes=(*found.notes, *noted),
    )
    table = table.drop(columns=["said", *(name for name in fixed if name != "epochs")]).reset_index(drop=True)
    notes = (*found.notes, *columns.say(roles.passed_over), *said, *_told(outcomes, kept), *noted)
    return Interpreted(table, axes, fixed, roles.metric, notes, reading)


def _without_results(frame: pd.DataFrame, roles: Roles, complete: pd.Series) -> Roles:
    """Returns roles in which columns that exactly the rows with a result have are measured: choices are known before.

    Else all rows that diverged would be left out for want of it. The name of a hyperparameter goes before that.
    """
    measured = {
        name: column
        for name, column in roles.hyperparameters.items()
        if (frame[column].notna() == complete).all()
        and not (complete.all() or names.is_known(column) or names.is_prefixed(column))
    }
    return roles._replace(
        hyperparameters={name: column for name, column in roles.hyperparameters.items() if name not in measured},
        passed_over=roles.passed_over | dict.fromkeys(measured.values(), columns.MEASURED),
    )


def _hyperparameters(
    frame: pd.DataFrame, roles: Roles, complete: pd.Series
) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """Returns (columns of hyperparameters, without rows that miss a number; columns that miss too many; notes)."""
    raw = frame[list(roles.hyperparameters.values())].set_axis(list(roles.hyperparameters), axis=1)
    depends = {name: cells.depends_on(raw[name], raw.drop(columns=name)) for name in raw}
    found = {name: cells.hyperparameter(raw[name], name, depends[name], complete) for name in raw}
    table = pd.DataFrame({name: each.values for name, each in found.items() if each.values is not None}, frame.index)
    partial = {roles.hyperparameters[name]: columns.PARTIAL for name, each in found.items() if each.values is None}
    notes = [each.note for each in found.values() if each.note]
    missing = table.isna()
    if missing.any(axis=None):
        empty = ", ".join(table.columns[missing.any()])
        notes.append(f"{missing.any(axis=1).sum()} trials without a value of {empty} are left out")
    return table[~missing.any(axis=1)], partial, notes


def _plain(column: pd.Series) -> pd.Series:
    """Returns a column whose lists and objects are texts."""
    if column.dtype != object:
        return column
    cells = [str(cell) if isinstance(cell, list | dict | tuple | set | np.ndarray) else cell for cell in column]
    return pd.Series(cells, column.index, dtype=object)


def _axes(table: pd.DataFrame, scales: Mapping[str, str]) -> tuple[tuple[Axis, ...], dict[str, Any]]:
    """Returns (axes: hyperparameters that vary; values of those that do not)."""
    axes = [make_axis(name, table[name].tolist(), scales.get(name)) for name in table]
    fixed = {axis.name: axis.values[0] for axis in axes if len(axis.values) == 1}
    return tuple(axis for axis in axes if len(axis.values) > 1), fixed


def _not_used(outcomes: pd.DataFrame, kept: pd.DataFrame) -> tuple[Rows, ...]:
    """Returns how many rows are no evidence, by what was said of them; those left out come last."""
    inside = outcomes.loc[kept.index]
    other = inside[~inside["status"].isin([records.COMPLETE, records.DIVERGED])]
    counted = [Rows(int(count), str(why)) for why, count in other["said"].value_counts(sort=False).items()]
    lost = len(outcomes) - len(kept)
    return (*counted, Rows(lost, "a hyperparameter is empty")) if lost else tuple(counted)


def _told(outcomes: pd.DataFrame, kept: pd.DataFrame) -> list[str]:
    """Returns the notes on trials without a result."""
    return [f"{each.number} trials are no evidence: {each.why}" for each in _not_used(outcomes, kept)]


def _measured(roles: Roles) -> tuple[str, ...]:
    chosen = set(roles.hyperparameters.values())
    costs = [column for column in roles.measured.values() if column not in chosen]
    return (*costs, *(column for column, why in roles.passed_over.items() if why == columns.MEASURED))


def _by_reason(roles: Roles) -> dict[str, tuple[str, ...]]:
    reasons = {why: () for why in roles.passed_over.values() if why != columns.MEASURED}
    return {why: tuple(column for column, each in roles.passed_over.items() if each == why) for why in reasons}
