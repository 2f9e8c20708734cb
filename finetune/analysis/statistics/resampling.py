"""What chance may have done to means: settings drawn again, over seeds where every setting has them."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from finetune.analysis.table.trials import Trials

_DRAWS = 400


class Resampled(NamedTuple):
    """Settings, and draws of their mean utilities and weights.

    settings: as of `Trials.settings`; means, weights: float64 [draws, settings], or [1, settings] if all draws agree.
    over_seeds says what was drawn again: seeds of every setting, or else settings.
    """

    settings: pd.DataFrame
    means: np.ndarray
    weights: np.ndarray
    over_seeds: bool

    def averages(self, cells: np.ndarray, count: int) -> np.ndarray:
        """Returns the draws of the average utility of each cell, [draws, count]; cells: the cell of each setting."""
        member = np.zeros((len(cells), count))
        member[np.arange(len(cells)), cells] = 1.0
        with np.errstate(invalid="ignore"):
            return ((self.means * self.weights) @ member) / (self.weights @ member)

    def known(self, cells: np.ndarray, count: int) -> np.ndarray:
        """Says of each cell whether its draws tell how sure its average is: bool [count]."""
        return np.full(count, True) if self.over_seeds else np.bincount(cells, minlength=count) > 1


def resample(trials: Trials, settings: pd.DataFrame) -> Resampled:
    """Returns draws for the means of `trials`, whose `Trials.settings` are given.

    On full grids with seeds, residuals of each setting are drawn again, scaled by √(n / (n − 1)) since they are too
    small by that. Otherwise settings have random weights (the Bayesian bootstrap, Rubin 1981).
    """
    rng = np.random.default_rng(0)
    means, n = settings["mean"].to_numpy(float)[None], settings["n"].to_numpy(float)[None]
    whole = trials.complete and np.isfinite(trials.filled).all()
    if not whole or n.min() < 2:
        return Resampled(settings, means, rng.exponential(size=(_DRAWS, len(settings))) * n, False)
    repeats = int(n.min())
    keys = settings[trials.names].assign(row=np.arange(len(settings)))
    rows = trials.frame[trials.names].merge(keys, on=trials.names, how="left")["row"].to_numpy()
    values = trials.filled[np.argsort(rows, kind="stable")].reshape(len(settings), repeats)
    residuals = (values - values.mean(1, keepdims=True)) * np.sqrt(repeats / (repeats - 1))
    chosen = rng.integers(repeats, size=(_DRAWS, len(settings), repeats))
    drawn = np.take_along_axis(residuals[None], chosen, 2).mean(2)
    return Resampled(settings, means + drawn, np.ones_like(means), True)


def interval(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bounds that hold 95 % of the draws, along the first axis."""
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return low, high
