"""A table of trials: hyperparameters, the metric, its seeds; from a study of ours or from any table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from finetune.analysis.table import columns, direction, foreign, from_workdir
from finetune.analysis.table.axis import Axis
from finetune.analysis.table.design import TABLE
from finetune.analysis.table.interpret import Found, interpret
from finetune.analysis.table.reading import Reading
from finetune.analysis.table.stops import Stops
from finetune.errors import UserError
from finetune.storage import records

__all__ = ["Axis", "Trials", "from_frame", "read_study", "read_table"]


class Trials(NamedTuple):
    """What is known of a set of trials.

    frame has one row a trial: id, a column for each axis, seed, status, value (the metric on the validation split, NaN
    of a trial that is not complete), utility (value, or -value where less is better), test, and what else is known of:
    best_epoch, epochs, train_loss, val_loss, seconds, flops, bytes, trained_parameters. curves has id, epoch, step,
    losses and metrics.
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
    design: str = TABLE  # how settings were chosen: grid, random, adaptive, table
    reading: Reading | None = None  # how the table was read; None of one that was made otherwise
    search_seeds: tuple[int, ...] = ()  # by which finalists were chosen, of a search that has some
    stops: Stops | None = None  # of a search that stopped trials on their way

    @property
    def names(self) -> list[str]:
        """Names of the axes."""
        return [axis.name for axis in self.axes]

    @property
    def chosen_by(self) -> np.ndarray:
        """The rows of the runs by which finalists were chosen, bool [trials]; none where nothing was chosen."""
        if not self.search_seeds:
            return np.zeros(len(self.frame), bool)
        of_search = self.frame["seed"].astype(str).isin(map(str, self.search_seeds)).to_numpy()
        return of_search if not of_search.all() else ~of_search

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
    study = from_workdir.read(Path(path))
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
        found=Found(direction="as the study says", design=study.design),
    )._replace(search_seeds=study.search_seeds, stops=study.stops)


def read_table(
    path: Path | str, metric: str, minimize: bool | None = None, asked: columns.Asked | None = None
) -> Trials:
    """Returns the trials of a file: .csv, .tsv, .json, .jsonl, or an Optuna storage `sqlite:///FILE#STUDY`.

    minimize: whether less is better, None to follow the study or the metric's name; asked: what is said of columns.
    Raises UserError if there is no such file, no such column, nothing that varies, or no telling what is better.
    """
    trials = from_table(foreign.read(path), metric, minimize, str(path), asked)
    if not trials.axes:
        raise UserError(f"--trials is {str(path)!r}, where no hyperparameter has two values, allowed: one that varies")
    return trials


def from_table(
    table: foreign.Table, metric: str, minimize: bool | None, source: str, asked: columns.Asked | None = None
) -> Trials:
    """Returns the trials of a table as it was found; arguments and errors as of `read_table`."""
    if not len(table.frame):
        raise _no_rows(source)
    names = [str(name) for name in table.frame.columns]
    column = columns.objective(names, metric, table.directions)
    known = table.directions.get(column) or direction.from_ranks(table.frame, column)
    decided = direction.decide(column, minimize, known)
    return from_frame(
        table.frame,
        column,
        decided.minimize,
        source=source,
        asked=columns.asked(names, asked or columns.Asked(), column),
        found=Found(table.scales, table.notes, decided.why, table.sampler, ordered=True),
    )


def _no_rows(source: str) -> UserError:
    return UserError(f"{source} has no rows, allowed: a table with a row for each trial")


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
    asked: columns.Asked | None = None,
    found: Found | None = None,
) -> Trials:
    """Returns the trials of a table with one row a trial.

    hyperparameters names the columns that are some, guessed if None; asked says more of the columns; scales maps names
    of axes to log or linear; found is what is known of the table beside its cells. Raises UserError where rows cannot
    be read as trials.
    """
    if not len(frame):
        raise _no_rows(source)
    frame = frame.rename(columns=str).reset_index(drop=True)
    asked = asked or columns.Asked(None if hyperparameters is None else tuple(hyperparameters))
    made = interpret(frame, metric, minimize, asked, found or Found(scales=scales or {}))
    return Trials(
        made.table,
        made.axes,
        made.fixed,
        made.metric,
        not minimize,
        pd.DataFrame() if curves is None else curves,
        made.notes,
        source,
        provenance or {},
        made.reading.design.kind,
        made.reading,
    )
