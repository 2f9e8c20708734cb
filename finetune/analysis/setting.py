"""A setting: one combination of hyperparameters, what it reached over seeds, and what it cost."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from finetune.analysis import robust
from finetune.analysis.cost import known as known_of
from finetune.analysis.evidence import Evidence
from finetune.analysis.statistics.variance import t_interval


class Setting(NamedTuple):
    """One combination of axis values.

    mean, low, high: the metric on the validation split over seeds, of trials that did not fail, with a 95 % interval
    that allows for its having been chosen (NaN where nothing was repeated). test: the mean metric on the test split,
    None if unknown; test_half: half of its t-interval. seeds: trials that count; lost: those that diverged or
    collapsed. ids: of all its trials. cost, trained_parameters: means of its trials.
    reach: for each axis the (lowest, highest) value that stays within one seed deviation of
    the best, others equal.
    """

    values: dict[str, Any]
    mean: float
    low: float
    high: float
    test: float | None
    test_half: float
    seeds: int
    lost: int
    ids: tuple[str, ...]
    cost: float | None
    trained_parameters: float | None
    reach: robust.Reach


def make_settings(evidence: Evidence, places: Iterable[int], among: int | None = None) -> tuple[Setting, ...]:
    """Returns the settings in these rows of `stands.table`, each with at least one result that counts.

    among: the number of settings that each is the best seen of, which its interval allows for; None: of those tied.
    """
    trials, stands, spent = evidence.trials, evidence.stands, evidence.cost.values
    value, test, ids = (trials.frame[name].to_numpy() for name in ("value", "test", "id"))
    counts = ~stands.failures.collapsed[stands.place] & ~trials.chosen_by & np.isfinite(value.astype(float))
    trained, sign = known_of(trials, "trained_parameters"), 1 if trials.maximize else -1
    made = []
    for place in map(int, places):
        rows = stands.rows[place]
        kept = rows[counts[rows]]
        low, high = sorted(sign * end for end in stands.interval(place, len(stands.tied) if among is None else among))
        test_mean, test_half = t_interval(test[kept].astype(float))
        known = spent[rows][np.isfinite(spent[rows])]
        made.append(
            Setting(
                values=stands.values(trials, place),
                mean=float(value[kept].astype(float).mean()),
                low=low,
                high=high,
                test=None if math.isnan(test_mean) else test_mean,
                test_half=test_half,
                seeds=len(kept),
                lost=int(stands.table["lost"].iat[place]),
                ids=tuple(ids[rows]),
                cost=float(known.mean()) if len(known) else None,
                trained_parameters=None if trained is None else float(trained[rows].mean()),
                reach=evidence.reach[place],
            )
        )
    return tuple(made)
