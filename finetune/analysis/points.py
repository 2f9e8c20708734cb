"""Effects in points of the metric: what the choice gains, and what is lost if a hyperparameter is left as it was."""

import math
from typing import Any, NamedTuple

import numpy as np

from finetune.analysis.evidence import Evidence
from finetune.analysis.statistics.paired import LEVEL
from finetune.analysis.table.axis import Axis

DEFAULT, MEDIAN = "the default", "the median setting"


class Gain(NamedTuple):
    """By how much the chosen setting is better than another, in units of the metric, with its 95 % interval.

    against: the default, or the median setting where no default was tried. The interval allows for the choice.
    """

    against: str
    values: dict[str, Any]
    gain: float
    low: float
    high: float


class Loss(NamedTuple):
    """How far the best setting with one value of an axis lies behind the best of all, with its 95 % interval."""

    axis: str
    value: Any
    loss: float
    low: float
    high: float


def gain(evidence: Evidence) -> Gain | None:
    """Returns the gain over the default or the median setting; None where nothing was repeated or there is no other."""
    stands = evidence.stands
    if stands.comparison is None or len(stands.order) < 2 or evidence.trials.chosen_by.any():
        return None  # the median of finalists is none of the settings
    place, against = _reference(evidence)
    if place == 0:
        return None
    first, second = np.array([0]), np.array([place])
    choices = max(len(stands.tied), 1) * (2 if against == MEDIAN else 1)  # the median was chosen by its results too
    low, high = stands.comparison.bounds(first, second, LEVEL / 2 / choices, LEVEL / 2)
    values = stands.values(evidence.trials, int(stands.order[place]))
    return Gain(against, values, float(stands.comparison.behind[place]), float(low[0]), float(high[0]))


def losses(evidence: Evidence) -> tuple[Loss, ...]:
    """Returns for each axis what is lost if it stays at its default, or else at its median value; largest first.

    Nothing is said of a value that one setting alone has: what is lost there may be due to its other hyperparameters.
    """
    stands = evidence.stands
    if (
        stands.comparison is None
        or evidence.conditional
        or len(evidence.trials.axes) < 2
        or evidence.trials.chosen_by.any()
    ):
        return ()
    found, known = [], defaults(evidence)
    for axis in evidence.trials.axes:
        places = stands.table[axis.name].to_numpy()[stands.order]
        value = _left(axis, known, places)
        part = np.flatnonzero(places == value)
        if value is None or len(part) < 2:
            continue
        loss, low, high = stands.comparison.behind_best(part)
        found.append(Loss(axis.name, axis.values[value], loss, low, high))
    return tuple(sorted(found, key=lambda each: -each.loss))


def within(evidence: Evidence, worth: float) -> tuple[int, int]:
    """Returns (settings that surely, settings that perhaps lie less than `worth` behind the best)."""
    comparison = evidence.stands.comparison
    if comparison is None:
        return 0, 0
    ends = [comparison.behind_best(np.array([place])) for place in range(len(comparison.behind))]
    return sum(high <= worth for _, _, high in ends), sum(low <= worth for _, low, _ in ends)


def defaults(evidence: Evidence) -> dict[str, Any]:
    """Returns the default of each axis that is among its values, as far as the study says."""
    known = (evidence.trials.provenance.get("config") or {}).get("hparams") or {}
    return {axis.name: known[axis.name] for axis in evidence.trials.axes if known.get(axis.name) in axis.values}


def _reference(evidence: Evidence) -> tuple[int, str]:
    """Returns (place in stands.order, name) of the setting that others are compared with."""
    stands, known = evidence.stands, defaults(evidence)
    if known and len(known) == len(evidence.trials.axes):
        for place, setting in enumerate(stands.order):
            if stands.values(evidence.trials, int(setting)) == known:
                return place, DEFAULT
    return math.ceil((len(stands.order) - 1) / 2), MEDIAN


def _left(axis: Axis, known: dict[str, Any], places: np.ndarray) -> int | None:
    """Returns the place of the value at which an axis is left: its default, or that whose best setting is median."""
    if axis.name in known:
        value = int(axis.indices([known[axis.name]])[0])
        return value if value in places else None
    ranked = list(dict.fromkeys(places.tolist()))  # settings come best first
    return ranked[math.ceil((len(ranked) - 1) / 2)] if len(ranked) > 1 else None
