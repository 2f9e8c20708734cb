"""A table of trials: hyperparameters, the metric, its seeds; from a study of ours or from any table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from finetune import records
from finetune.analysis import cells, columns, foreign, workdir
from finetune.analysis.axis import Axis, make_axis
from finetune.errors import UserError

ADAPTIVE = "adaptive"  # a design: trials were chosen by looking at the results of others

__all__ = ["Axis", "Trials", "from_frame", "read_study", "read_table"]


class Trials(NamedTuple):
    """What is known of a set of trials.

    frame has one row a trial: id, a column for each axis, seed, status, value (the metric on the validation split, NaN
    if none), utility (value, or -value where less is better), test, and what else is known of: best_epoch, epochs,
    train_loss, val_loss, seconds, flops, bytes, trained_parameters. curves has id, epoch, step, losses and metrics.
    """

    frame: pd.DataFrame
    axes: tuple[Axis, ...]
    fixed: dict[str, Any]
    metric: str
    maximize: bool
    curves: pd.DataFrame
    notes: tuple[str, ...]
    source: str
    provenance: dict[str, Any]
    design: str = ""

    @property
    def names(self) -> list[str]:
        """Names of the axes."""
        return [axis.name for axis in self.axes]

    @property
    def step(self) -> float | None:
        """What results are rounded to: one example of the validation split, None where that is not known."""
        examples = (self.provenance.get("splits") or {}).get("validation")
        return 1 / examples if examples and self.metric == "val_accuracy" else None

    @property
    def filled(self) -> np.ndarray:
        """Utility, float64 [trials]; of a trial that diverged the worst that any reached, NaN of one that failed."""
        utility = self.frame["utility"].to_numpy(float)
        worst = np.nanmin(utility) if np.isfinite(utility).any() else np.nan
        diverged = (self.frame["status"] == records.DIVERGED).to_numpy()
        return np.where(np.isnan(utility) & diverged, worst, utility)

    @property
    def complete(self) -> bool:
        """True of a full grid: every combination of axis values with every seed, exactly once."""
        sizes = [len(axis.values) for axis in self.axes] + [self.frame["seed"].nunique()]
        full = np.prod(sizes, dtype=float) == len(self.frame)
        return bool(full and self.axes and not self.frame.duplicated([*self.names, "seed"]).any())

    def settings(self) -> pd.DataFrame:
        """Returns one row per combination of axis values with a result or a divergence, best first.

        Columns: the axes, n (trials that ended in one or the other), mean and std of their utility, test_mean,
        diverged (share of them that diverged).
        """
        frame = self.frame.assign(utility=self.filled, diverged=self.frame["utility"].isna())
        frame = frame[frame["utility"].notna()]
        groups = frame.groupby(self.names or (lambda _: 0), sort=False)
        table = groups["utility"].agg(n="size", mean="mean", std="std")
        table = table.assign(test_mean=groups["test"].mean(), diverged=groups["diverged"].mean())
        table = table.reset_index(drop=not self.axes)
        return table.sort_values("mean", ascending=False, kind="stable", na_position="last", ignore_index=True)


def read_study(path: Path) -> Trials:
    """Returns the trials of a work directory that have ended; raises UserError if none has."""
    study = workdir.read(Path(path))
    metric = study.provenance.get("config", {}).get("evaluation", {}).get("metric", "accuracy")
    if f"val_{metric}" not in study.frame:  # every trial has diverged before its first evaluation
        study.frame[f"val_{metric}"] = np.nan
    return from_frame(
        study.frame,
        f"val_{metric}",
        not study.provenance.get("larger_is_better", metric != "loss"),
        hyperparameters=study.hyperparameters,
        source=str(path),
        curves=study.curves,
        provenance=study.provenance,
    )


def read_table(path: Path | str, metric: str, minimize: bool) -> Trials:
    """Returns the trials of a file: .csv, .tsv, .json, .jsonl, or an Optuna storage `sqlite:///FILE#STUDY`.

    Raises UserError if there is no such file, no such metric, or nothing in it that varies.
    """
    table = foreign.read(path)
    trials = from_frame(table.frame, metric, minimize, source=str(path), scales=table.scales, notes=table.notes)
    if not trials.axes:
        raise UserError(f"--trials is {str(path)!r}, where no hyperparameter has two values, allowed: one that varies")
    return trials


def from_frame(
    frame: pd.DataFrame,
    metric: str,
    minimize: bool,
    *,
    hyperparameters: Sequence[str] | None = None,
    source: str = "table",
    scales: Mapping[str, str] | None = None,
    curves: pd.DataFrame | None = None,
    provenance: dict[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Trials:
    """Returns the trials of a table with one row a trial.

    hyperparameters names the columns that are some, guessed if None; scales maps names of axes to log or linear.
    """
    if not len(frame):
        raise UserError(f"{source} has no rows, allowed: a table with a row for each trial")
    frame = frame.rename(columns=str).reset_index(drop=True)
    roles = columns.assign(frame, metric, hyperparameters)
    table, said = cells.outcomes(frame, roles, minimize)
    noted = [*notes, *columns.say(roles.passed_over), *said]
    kept, said = _hyperparameters(frame.loc[table.index], roles)
    table = table.loc[kept.index].join(kept)
    axes, fixed = _axes(kept, scales or {})
    table["seed"] = cells.seeds(frame.loc[kept.index], roles, _settings(kept), said)
    return Trials(
        table.drop(columns=[name for name in fixed if name != "epochs"]).reset_index(drop=True),
        axes,
        fixed,
        roles.metric,
        not minimize,
        pd.DataFrame() if curves is None else curves,
        (*noted, *said),
        source,
        provenance or {},
    )


def _hyperparameters(frame: pd.DataFrame, roles: columns.Roles) -> tuple[pd.DataFrame, list[str]]:
    """Returns (the columns of hyperparameters, without rows that miss a number; notes)."""
    found = {name: cells.hyperparameter(frame[column], name) for name, column in roles.hyperparameters.items()}
    table = pd.DataFrame({name: each.values for name, each in found.items() if each.values is not None}, frame.index)
    notes = [each.note for each in found.values() if each.note]
    missing = table.isna()
    if missing.any(axis=None):
        names = ", ".join(table.columns[missing.any()])
        notes.append(f"{missing.any(axis=1).sum()} trials without a value of {names} are left out")
    return table[~missing.any(axis=1)], notes


def _axes(table: pd.DataFrame, scales: Mapping[str, str]) -> tuple[tuple[Axis, ...], dict[str, Any]]:
    """Returns (axes: hyperparameters that vary; values of those that do not)."""
    axes = [make_axis(name, table[name].tolist(), scales.get(name)) for name in table]
    fixed = {axis.name: axis.values[0] for axis in axes if len(axis.values) == 1}
    return tuple(axis for axis in axes if len(axis.values) > 1), fixed


def _settings(table: pd.DataFrame) -> pd.Series:
    """Returns a label of each row's combination of hyperparameters."""
    return table.groupby(list(table.columns)).ngroup() if len(table.columns) else pd.Series(0, table.index)
