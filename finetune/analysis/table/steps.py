"""Notices tables that have a row for each epoch or step of a run, which are no tables of trials."""

import pandas as pd

from finetune.analysis.table import measured
from finetune.analysis.table.columns import Roles
from finetune.errors import UserError

_COUNTERS = ("epoch", "step", "global_step", "iteration")
_LEAST_STEPS = 3


def check(frame: pd.DataFrame, roles: Roles) -> None:
    """Raises UserError if a column counts the steps of runs: of one run, or of each run in turn."""
    named = set(roles.hyperparameters.values()) | {roles.metric}
    for column in frame.columns:
        if str(column).lower() not in _COUNTERS or roles.is_ignored(column) or not measured.is_numeric(frame[column]):
            continue
        steps = pd.to_numeric(frame[column])
        others = [each for each in named if each not in (column, roles.metric)]
        runs = _runs(frame, roles, others)
        if steps.notna().all() and any(_counts(steps, run) for run in runs):
            raise UserError(
                f"{column} counts up from {steps.min():g} to {steps.max():g}: rows are steps of a run, allowed: "
                f"one row a trial; --ignore={column} reads each row as a trial"
            )


def _runs(frame: pd.DataFrame, roles: Roles, others: list[str]) -> list[pd.Series]:
    """Returns labels of what may be one run each: all rows, those of an id, those that agree in all that was chosen."""
    listed = [each for each in others if measured.is_listed(frame[each])]
    runs = [] if listed else [pd.Series(0, frame.index)]
    if roles.identity is not None and frame[roles.identity].duplicated().any():
        runs.append(frame[roles.identity].astype(str))
    same = [*listed, *roles.seeds]
    return [*runs, frame.groupby(same, dropna=False).ngroup()] if same else runs


def _counts(steps: pd.Series, runs: pd.Series) -> bool:
    """Says whether steps never fall within a run, and reach at least three in most."""
    groups = steps.groupby(runs)
    several = groups.nunique() >= _LEAST_STEPS
    return bool(several.mean() > 0.5 and groups.apply(lambda each: each.is_monotonic_increasing).all())
