"""How far each setting's hyperparameters may move, one at a time, before the metric leaves the noise of seeds."""

from typing import Any

import numpy as np
import pandas as pd

from finetune.analysis.table.trials import Trials

Reach = dict[str, tuple[Any, Any]]  # name of an axis -> (lowest, highest) value


def reaches(trials: Trials, settings: pd.DataFrame, good: np.ndarray) -> list[Reach]:
    """Returns for each setting, for each axis of numbers, the ends of the run of good neighbours that it is in.

    settings: one row a setting, for each axis the place of its value. good: bool [settings]. A setting that is not
    good has no reach.
    """
    found: list[Reach] = [{} for _ in range(len(settings))]
    for axis in trials.axes:
        others = [name for name in trials.names if name != axis.name]
        lines = list(settings.groupby(others, sort=False).indices.values()) if others else [np.arange(len(settings))]
        if not axis.is_number or len(lines) == len(settings):  # a random search has no neighbours
            continue
        places = settings[axis.name].to_numpy()
        for line in lines:
            line = line[np.argsort(places[line], kind="stable")]
            for run in _runs(good[line]):
                ends = axis.values[places[line[run[0]]]], axis.values[places[line[run[-1]]]]
                for setting in line[run]:
                    found[setting][axis.name] = ends
    return found


def _runs(good: np.ndarray) -> list[np.ndarray]:
    """Returns the stretches of consecutive True, as arrays of places."""
    places = np.flatnonzero(good)
    return np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(places) else []


def room(trials: Trials, values: dict[str, Any], reach: Reach) -> tuple[float, float]:
    """Returns (width of the ranges, distance to their nearer ends), summed over axes as shares of what was searched."""
    width = depth = 0.0
    for axis in trials.axes:
        if axis.name in reach:
            first, last = axis.position(axis.values[0]), axis.position(axis.values[-1])
            low, high = (axis.position(end) for end in reach[axis.name])
            here = axis.position(values[axis.name])
            width += (high - low) / (last - first)
            depth += min(here - low, high - here) / (last - first)
    return round(width, 9), round(depth, 9)
