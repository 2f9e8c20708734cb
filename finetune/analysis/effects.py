"""What each hyperparameter does: the mean at each of its values, and the best that each of its values allows."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from finetune.analysis.axis import Axis
from finetune.analysis.resampling import Resampled, interval, resample
from finetune.analysis.table import Trials

MARGINAL, ISOLATED = "marginal", "isolated"


class Effect(NamedTuple):
    """The metric along an axis.

    kind "marginal" averages over the other axes, "isolated" takes the best setting of each value. points has columns
    value, position (on the searched scale), mean, low, high (95 % interval, NaN if unknown), n (trials), in units of
    the metric; size is the largest mean less the smallest. Axes of many values have the medians of up to 8 bins.
    """

    axis: Axis
    kind: str
    points: pd.DataFrame
    size: float


def effects(trials: Trials) -> tuple[Effect, ...]:
    """Returns the marginal and the isolated effect of each axis.

    Intervals of marginal means are by bootstrap: over seeds on full grids with seeds, else over settings. Those of the
    best settings are t-intervals over their seeds; they do not count that the best was chosen for being it.
    """
    resampled = resample(trials)
    found = []
    for axis in trials.axes:
        values, cells = levels(axis, resampled.settings)
        for kind, points in (
            (MARGINAL, _marginal(resampled, cells, len(values))),
            (ISOLATED, _isolated(resampled.settings, cells, len(values))),
        ):
            points = in_units(points, trials.maximize)
            points.insert(0, "value", pd.Series(list(values), dtype=float if axis.is_number else object))
            points.insert(1, "position", axis.positions(values))
            found.append(Effect(axis, kind, points, float(points["mean"].max() - points["mean"].min())))
    return tuple(found)


def levels(axis: Axis, settings: pd.DataFrame, most: int = 8) -> tuple[list, np.ndarray]:
    """Returns (values of an axis, or of its bins, in order; which of them each setting has, int [settings])."""
    binned = axis.bins(settings[axis.name].to_numpy(), most)
    if not axis.is_number:
        return list(axis.values), axis.indices(binned)
    values, cells = np.unique(binned, return_inverse=True)
    return values.tolist(), cells


def in_units(points: pd.DataFrame, maximize: bool) -> pd.DataFrame:
    """Returns utilities mean, low, high as values of the metric."""
    if maximize:
        return points
    return points.assign(mean=-points["mean"], low=-points["high"], high=-points["low"])


def _marginal(resampled: Resampled, cells: np.ndarray, count: int) -> pd.DataFrame:
    trials = resampled.settings["n"].to_numpy(float)
    n = np.bincount(cells, trials, count)
    mean = np.bincount(cells, trials * resampled.settings["mean"], count) / n
    low, high = interval(resampled.averages(cells, count))
    known = resampled.known(cells, count)
    return pd.DataFrame(
        {"mean": mean, "low": np.where(known, low, np.nan), "high": np.where(known, high, np.nan), "n": n.astype(int)}
    )


def _isolated(settings: pd.DataFrame, cells: np.ndarray, count: int) -> pd.DataFrame:
    best = pd.Series(cells).drop_duplicates()  # settings come best first
    rows = settings.iloc[best.index[np.argsort(best.to_numpy(), kind="stable")]]
    return rows[["mean", "low", "high", "n"]].reset_index(drop=True)
