"""Where every setting stands: its mean, its repeats, and whether chance may explain how far it lies behind the best."""

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from finetune.analysis.paired import Comparison, arrange, compare
from finetune.analysis.table import Trials

_TOP = 0.1  # share of settings that count as near the best where nothing was repeated


class Standing(NamedTuple):
    """Settings in order of appearance, and how they compare.

    table: one row a setting: for each axis the place of its value, n (trials), finished (whether all have a result),
    mean (utility of those that have one). rows: the trials of each setting. order: finished settings, or else those
    with any result, best first. comparison: of those in `order`, in that order; None where nothing was repeated.
    """

    table: pd.DataFrame
    rows: list[np.ndarray]
    order: np.ndarray
    comparison: Comparison | None

    @property
    def evident(self) -> bool:
        """Whether settings differ by more than chance, or some have come to no result."""
        return self.comparison is not None and (self.comparison.evident or len(self.order) < len(self.table))

    @property
    def tied(self) -> np.ndarray:
        """The settings that may be the best, the leader first; none where nothing was repeated."""
        if self.comparison is None:
            return self.order[:0]
        return self.order[self.comparison.tied]

    @property
    def near(self) -> np.ndarray:
        """The settings to look at: those tied, or the first tenth where nothing was repeated."""
        return self.tied if self.comparison is not None else self.order[: math.ceil(len(self.order) * _TOP)]

    def trials_near(self) -> np.ndarray:
        """Returns the rows of the trials of `near`."""
        return np.concatenate([self.rows[setting] for setting in self.near]) if len(self.near) else np.array([], int)

    def values(self, trials: Trials, setting: int) -> dict[str, Any]:
        """Returns the values of a setting's axes, as the axes hold them."""
        return {axis.name: axis.values[self.table[axis.name].iat[setting]] for axis in trials.axes}


def standing(trials: Trials) -> Standing:
    """Returns where every setting stands."""
    repeats = arrange(trials)
    first = pd.Series(repeats.setting).drop_duplicates().index.to_numpy()
    known = np.isfinite(repeats.utility)
    counts = known.sum(axis=1)
    sums = np.where(known, repeats.utility, 0.0).sum(axis=1)
    means = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    table = pd.DataFrame(
        {axis.name: axis.indices(trials.frame[axis.name].to_numpy()[first]) for axis in trials.axes}
        | {"n": np.bincount(repeats.setting, minlength=len(counts)), "finished": repeats.finished, "mean": means}
    )
    candidates = np.flatnonzero(repeats.finished if repeats.finished.any() else counts > 0)
    order = candidates[np.argsort(-means[candidates], kind="stable")]
    comparison = compare(repeats.utility[order]) if len(order) else None
    if comparison is not None and comparison.leader:  # one with few repeats may have a larger mean than the leader
        order = np.concatenate([order[[comparison.leader]], np.delete(order, comparison.leader)])
        comparison = compare(repeats.utility[order])
    rows = trials.frame.groupby(repeats.setting, sort=True).indices
    return Standing(table, [rows[i] for i in range(len(counts))], order, comparison)
