"""What trials cost, which of them nothing cheaper beats, and how good the best of n trials is."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from finetune.analysis.table.design import ADAPTIVE
from finetune.analysis.table.trials import Trials

_MEASURES = {"seconds": "seconds", "flops": "FLOPs", "epochs": "epochs", "trained_parameters": "trained parameters"}
_POINTS = 60  # budgets for which the expected best is computed


class Cost(NamedTuple):
    """The cost of each trial, float64 [trials], NaN where unknown, and what it counts; "" if nothing is known."""

    values: np.ndarray
    unit: str


def cost(trials: Trials) -> Cost:
    """Returns the first of seconds, FLOPs, epochs, trained parameters that is known of the trials."""
    for name, unit in _MEASURES.items():
        values = known(trials, name)
        if values is not None and (values > 0).any():
            return Cost(values, unit)
    return Cost(np.full(len(trials.frame), np.nan), "")


def known(trials: Trials, name: str) -> np.ndarray | None:
    """Returns a quantity of each trial, float64 [trials], be it measured or a hyperparameter; None if unknown."""
    column = trials.frame[name] if name in trials.frame else pd.Series(trials.fixed.get(name), trials.frame.index)
    values = pd.to_numeric(column, errors="coerce").to_numpy(float)
    return values if np.isfinite(values).any() else None


def pareto(trials: Trials, spent: Cost) -> pd.DataFrame:
    """Returns one row a trial with a result and a known cost, cheapest first.

    Columns: id, the axes, cost, unit, value, on_front (no trial is as good for less, or better for as much).
    """
    table = trials.frame[["id", *trials.names, "value", "utility"]].assign(cost=spent.values, unit=spent.unit)
    table = table[table["cost"].notna() & table["utility"].notna()]
    table = table.sort_values(["cost", "utility"], ascending=[True, False], kind="stable", ignore_index=True)
    before = table["utility"].cummax().shift(fill_value=-np.inf)
    table["on_front"] = (table["utility"] > before).to_numpy(bool)
    return table[["id", *trials.names, "cost", "unit", "value", "on_front"]]


def expected_best(trials: Trials) -> pd.DataFrame:
    """Returns how good the best of n trials is that are drawn from these, for budgets n = 1 ... number of trials.

    Columns: n, expected, low, high; 90 % of all draws lie between low and high, in units of the metric. The
    distribution of the largest of n draws is the n-th power of the empirical one (Dodge et al. 2019, Show Your Work,
    equation 7). A trial that diverged counts as the worst. Empty where
    trials were chosen by the results of others.
    """
    drawn = trials.chosen_by if trials.chosen_by.any() else np.ones(len(trials.frame), bool)  # finalists are not
    utility = np.sort(trials.filled[drawn & np.isfinite(trials.filled)])
    size = len(utility) if trials.design != ADAPTIVE else 0
    if not size:
        return pd.DataFrame({name: [] for name in ("n", "expected", "low", "high")}, dtype=float)
    budgets = np.unique(np.geomspace(1, size, _POINTS).round().astype(int))
    sign = 1.0 if trials.maximize else -1.0
    ranks = np.arange(size + 1) / size
    rows = []
    for budget in budgets:
        below = ranks**budget  # the chance that the best of n is among the worst i
        at_least = np.minimum(np.searchsorted(below[1:], (0.05, 0.95)), size - 1)
        low, high = sorted(sign * utility[at_least])
        rows.append((int(budget), sign * float(utility @ np.diff(below)), float(low), float(high)))
    return pd.DataFrame(rows, columns=["n", "expected", "low", "high"])
