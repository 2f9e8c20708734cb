"""What each hyperparameter does: the mean at each of its values, and the best that each of its values allows."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from finetune.analysis.evidence import Evidence
from finetune.analysis.statistics import decomposition
from finetune.analysis.table.axis import Axis
from finetune.analysis.table.trials import Trials

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


def effects(evidence: Evidence) -> tuple[Effect, ...]:
    """Returns the marginal and the isolated effect of each axis that has one range.

    Intervals of marginal means on full grids say how sure their distance from the overall mean is: what seeds do to
    all settings alike is left out. Elsewhere they are those of means of settings drawn at random. Intervals of the best
    settings allow for their having been chosen.
    """
    settings, found = evidence.settings, []
    for axis in [each for each in evidence.trials.axes if each.name not in evidence.conditional]:
        values, cells = levels(axis, settings)
        for kind, points in (
            (MARGINAL, _marginal(evidence, settings, cells, len(values), axis)),
            (ISOLATED, _isolated(evidence, settings, cells, len(values))),
        ):
            points = in_units(points, evidence.trials.maximize)
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


def _marginal(evidence: Evidence, settings: pd.DataFrame, cells: np.ndarray, count: int, axis: Axis) -> pd.DataFrame:
    size = np.bincount(cells, minlength=count)
    mean = np.divide(np.bincount(cells, settings["mean"], count), size, out=np.full(count, np.nan), where=size > 0)
    half = _halves_of_grid(evidence, axis, count)
    if half is None:
        half = np.array([_half_of_sample(settings["mean"].to_numpy()[cells == cell]) for cell in range(count)])
    n = np.bincount(cells, settings["n"], count).astype(int)
    return pd.DataFrame({"mean": mean, "low": mean - half, "high": mean + half, "n": n})


def _halves_of_grid(evidence: Evidence, axis: Axis, count: int) -> np.ndarray | None:
    """Returns half of the interval of each value's mean less the overall mean; None where the settings fill no grid."""
    cells = evidence.cells
    if cells is None or count != len(axis.values):
        return None
    stands, noise = evidence.stands, evidence.noise
    if noise is not None:
        place = stands.table[axis.name].to_numpy()
        inside = [(place == value) / (place == value).sum() - 1 / len(place) for value in range(count)]
        everything = np.arange(len(place))
        halves = [float(noise.of_average(everything, each).half(0.025)[0]) for each in inside]
        common = stats.t.isf(0.025, noise.total) * np.sqrt(
            [noise.pooled * (each**2 / noise.repeats).sum() for each in inside]
        )
        return np.maximum(halves, common)  # a value whose settings look steady may have been lucky
    return _half_of_single_runs(cells, evidence.counted, axis)


def _half_of_single_runs(cells: np.ndarray, trials: Trials, axis: Axis) -> np.ndarray:
    residual = decomposition.interactions(cells, tuple(trials.names))
    if residual is None:
        return np.full(len(axis.values), np.nan)
    runs = cells.size / len(axis.values)
    error = math.sqrt(residual.squares / residual.freedom * (1 / runs - 1 / cells.size))
    return np.full(len(axis.values), float(stats.t.isf(0.025, residual.freedom)) * error)


def _half_of_sample(means: np.ndarray) -> float:
    if len(means) < 2:
        return math.nan
    return float(stats.t.isf(0.025, len(means) - 1) * means.std(ddof=1) / math.sqrt(len(means)))


def _isolated(evidence: Evidence, settings: pd.DataFrame, cells: np.ndarray, count: int) -> pd.DataFrame:
    """Returns the best setting of each value, of those that can be chosen or else of all."""
    rows = []
    for cell in range(count):
        part = settings[cells == cell]  # settings come best first
        if not len(part):
            rows.append({"mean": math.nan, "low": math.nan, "high": math.nan, "n": 0})
            continue
        place = evidence.place_of(part.iloc[0])
        low, high = evidence.stands.interval(place, len(part))
        rows.append({"mean": part["mean"].iat[0], "low": low, "high": high, "n": int(part["n"].iat[0])})
    return pd.DataFrame(rows, columns=["mean", "low", "high", "n"])
