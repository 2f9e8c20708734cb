"""How hyperparameters act together: how far the best learning rate moves with another one, and maps of pairs."""

import itertools
from typing import NamedTuple

import numpy as np
import pandas as pd

from finetune.analysis.effects import levels
from finetune.analysis.evidence import Evidence
from finetune.analysis.statistics.resampling import Resampled, interval, resample
from finetune.analysis.table.axis import LOG, Axis

_RATES = ("learning_rate", "lr", "base_lr", "peak_lr", "max_lr", "eta", "step_size")
_BATCHES = ("batch_size", "batch", "bs", "train_batch_size", "per_device_train_batch_size")
_MOST_LEVELS = 4  # bins of a sampled axis that the rate is looked at in


class Shift(NamedTuple):
    """How the best learning rate moves with another hyperparameter.

    points has columns value (of `by`), best, low, high (95 % interval, NaN if unknown), at_edge (the best is the first
    or last rate searched, and may lie beyond). octaves is log2 of the best at the last value over that at the first.
    evident: whether the two are shown to depend on each other, and the interval of octaves leaves out 0.
    exponent is the slope of log best against log batch size, only where `by` is it.
    """

    rate: str
    by: str
    points: pd.DataFrame
    octaves: float
    low: float
    high: float
    exponent: float | None
    exponent_low: float | None
    exponent_high: float | None
    evident: bool


def interactions(evidence: Evidence) -> tuple[tuple[Shift, ...], dict[tuple[str, str], pd.DataFrame]]:
    """Returns (the shifts of the best learning rate, if that is an axis; a table for each pair that can be compared).

    Tables have a row for each cell: a, b (values, or medians of bins), mean over the other axes and best, in units of
    the metric, n (trials) and diverged (share of trials without a result).
    """
    trials = evidence.counted
    rate = next((axis for axis in trials.axes if _goes_by(axis, _RATES) and axis.scale == LOG), None)
    shifts: list[Shift] = []
    if rate is not None and rate.name not in evidence.conditional and np.isfinite(trials.filled).any():
        resampled = resample(trials, evidence.settings)
        others = (axis for axis in trials.axes if axis is not rate and axis.name not in evidence.conditional)
        shifts = [shift for axis in others if (shift := _shift(evidence, resampled, rate, axis)) is not None]
    settings = evidence.settings
    coded = {axis.name: levels(axis, settings) for axis in trials.axes}
    pairs = filter(evidence.comparable, itertools.combinations(trials.names, 2))
    return tuple(shifts), {(a, b): _map(settings, coded[a], coded[b], trials.maximize) for a, b in pairs}


def _goes_by(axis: Axis, names: tuple[str, ...]) -> bool:
    return axis.is_number and axis.name.lower().replace("-", "_").rpartition(".")[2] in names


def _shift(evidence: Evidence, resampled: Resampled, rate: Axis, by: Axis) -> Shift | None:
    """Returns the shift of the best rate with `by`, None where some pair of values was never tried."""
    rates, rate_cells = levels(rate, resampled.settings)
    values, by_cells = levels(by, resampled.settings, _MOST_LEVELS)
    cells, count = by_cells * len(rates) + rate_cells, len(values) * len(rates)
    positions = rate.positions(rates)
    if len(rates) < 3 or len(np.unique(cells)) < count:
        return None
    weights = resampled.settings["n"].to_numpy(float)
    means = np.bincount(cells, weights * resampled.settings["mean"], count) / np.bincount(cells, weights, count)
    best, at_edge = _peaks(positions, means.reshape(1, len(values), len(rates)))
    drawn, _ = _peaks(positions, resampled.averages(cells, count).reshape(-1, len(values), len(rates)))
    if not resampled.known(cells, count).all():
        drawn = np.full_like(drawn, np.nan)
    low, high = interval(drawn)
    octaves = (drawn[:, -1] - drawn[:, 0]) * np.log2(10)
    points = pd.DataFrame({"value": values, "best": 10 ** best[0], "low": 10**low, "high": 10**high})
    least, most = (float(bound) for bound in interval(octaves))
    together = any(set(share.terms) == {rate.name, by.name} for share in evidence.mattered)
    exponent, exponent_low, exponent_high = _exponent(by, values, best, drawn)
    return Shift(
        rate=rate.name,
        by=by.name,
        points=points.assign(at_edge=at_edge[0]),
        octaves=float((best[0, -1] - best[0, 0]) * np.log2(10)),
        low=least,
        high=most,
        exponent=exponent,
        exponent_low=exponent_low,
        exponent_high=exponent_high,
        evident=together and least * most > 0,
    )


def _peaks(positions: np.ndarray, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (where means [draws, values, rates] peak, by a parabola through the best rate and its neighbours; edges).

    A peak at the first or last rate stays there: what lies beyond was not searched.
    """
    top = means.argmax(-1)
    at_edge = (top == 0) | (top == len(positions) - 1)
    middle = np.clip(top, 1, len(positions) - 2)
    left, centre, right = (
        (positions[middle + i], np.take_along_axis(means, middle[..., None] + i, -1)[..., 0]) for i in (-1, 0, 1)
    )
    up, down = (centre[1] - left[1]) / (centre[0] - left[0]), (right[1] - centre[1]) / (right[0] - centre[0])
    curvature = np.where(up > down, up - down, np.inf)
    # The slope falls from `up`, half-way to the left, to `down`, half-way to the right, and is 0 at the peak.
    vertex = (left[0] + centre[0]) / 2 + up / curvature * (right[0] - left[0]) / 2
    vertex = np.where(np.isinf(curvature), centre[0], np.clip(vertex, left[0], right[0]))
    return np.where(at_edge, positions[top], vertex), at_edge


def _exponent(by: Axis, values: list, best: np.ndarray, drawn: np.ndarray) -> tuple[float | None, ...]:
    """Returns the slope of log best rate against log batch size and its interval, None if `by` is something else."""
    if not _goes_by(by, _BATCHES) or min(values) <= 0:
        return None, None, None
    x = np.log10(values) - np.mean(np.log10(values))
    low, high = interval(drawn @ x / np.sum(x**2))
    return float(best[0] @ x / np.sum(x**2)), float(low), float(high)


def _map(
    settings: pd.DataFrame, a: tuple[list, np.ndarray], b: tuple[list, np.ndarray], maximize: bool
) -> pd.DataFrame:
    (a_values, a_cells), (b_values, b_cells) = a, b
    cells, count = a_cells * len(b_values) + b_cells, len(a_values) * len(b_values)
    n = np.bincount(cells, settings["n"], count)
    best = np.full(count, -np.inf)
    np.maximum.at(best, cells, settings["mean"].to_numpy(float))
    sign = 1.0 if maximize else -1.0
    table = pd.DataFrame(
        {
            "a": np.repeat(np.array(a_values, dtype=object), len(b_values)),
            "b": np.tile(np.array(b_values, dtype=object), len(a_values)),
            "mean": sign * np.bincount(cells, settings["n"] * settings["mean"], count) / np.maximum(n, 1),
            "best": sign * best,
            "n": n.astype(int),
            "diverged": np.bincount(cells, settings["n"] * settings["diverged"], count) / np.maximum(n, 1),
        }
    )
    return table[table["n"] > 0].infer_objects().reset_index(drop=True)
