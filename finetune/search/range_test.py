"""A learning-rate range test: an epoch each at rates over a wide range, and between which of them to search.

After Smith 2017 (Cyclical learning rates), but every rate has a trial of its own where he raises one trial's rate. What
comes out are the ends of a range, never the rate to use: an epoch does not tell that.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from finetune.search.space import LOG, Dimension
from finetune.trials.assignment import Assignment

RATE = "learning_rate"
_LEARNT = 0.1  # of the largest fall of the loss: from here on a rate has learnt something


class Ends(NamedTuple):
    """The rates to search between; beyond: whether the test has ended before the loss did, below and above."""

    low: float
    high: float
    beyond: tuple[bool, bool]

    def __str__(self) -> str:
        return f"--space={RATE}={LOG}:{self.low:g}:{self.high:g}"


def settings(dimension: Dimension, count: int) -> list[Assignment]:
    """Returns trials of one epoch at `count` rates, even in the logarithm, both ends included, without a schedule."""
    places = [place / max(count - 1, 1) for place in range(count)]
    rates = [dimension.rounded(dimension.low * (dimension.high / dimension.low) ** place) for place in places]
    return [{RATE: rate, "epochs": 1, "warmup_fraction": 0.0, "schedule": "constant"} for rate in rates]


def ends(rates: Sequence[float], losses: Sequence[float], epochs: int) -> Ends | None:
    """Returns the rates to search between in trainings of `epochs` epochs; None if no rate has learnt anything.

    rates: ascending. losses: on the validation split after an epoch, infinite where it diverged. What counts is the
    fall from the loss at the lowest rate: around the best, the rates with at least a tenth of the largest fall. A rate
    so many times lower as there are epochs moves as far in all of them, so that the lower end is lowered by that.
    """
    falls = [losses[0] - loss if math.isfinite(loss) else -math.inf for loss in losses]
    best = max(range(len(falls)), key=lambda place: falls[place])
    if not math.isfinite(losses[0]) or not falls[best] > 0:
        return None
    low = high = best
    while low > 0 and falls[low - 1] >= _LEARNT * falls[best]:
        low -= 1
    while high < len(falls) - 1 and falls[high + 1] >= _LEARNT * falls[best]:
        high += 1
    return Ends(float(f"{rates[low] / epochs:.2g}"), rates[high], (low <= 1, high == len(falls) - 1))
