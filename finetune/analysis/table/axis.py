"""An axis: one hyperparameter that varies, its values, and the scale on which they were searched."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

MANY = 12  # an axis with more distinct numbers than this was sampled, not listed

LOG, LINEAR, CATEGORY = "log", "linear", "category"
_LEAST_RATIO = 4.0  # of largest to smallest: below it a logarithm changes no picture
_LEAST_RATIO_OF_TWO = 8.0  # two values have no spacing to look at
_LEAST_RATIO_OF_MANY = 30.0
# Rates and decays are searched by factors, even where a list such as 0.001, 0.005, 0.01 is not spaced so.
_BY_FACTORS = re.compile(r"(.*[^a-z])?(lr|learning_?rate|weight_?decay|wd|l1|l2|l2_sp)|rate|decay")


class Axis(NamedTuple):
    """One hyperparameter that varies: distinct values, numbers ascending, categories in order of appearance.

    scale is "log", "linear" or "category"; a log axis may hold zero beside positive numbers.
    """

    name: str
    scale: str
    values: tuple[Any, ...]

    @property
    def is_number(self) -> bool:
        return self.scale != CATEGORY

    def position(self, value: Any) -> float:
        """Returns where `value` lies on the searched scale: log10, the number itself, or the category's index.

        Zero on a log axis lies one typical step below the smallest positive value.
        """
        if not self.is_number:
            return float(self.values.index(value))
        return float(self.positions([value])[0])

    def positions(self, values: Sequence[Any] | np.ndarray) -> np.ndarray:
        """Returns `position` of each value, float64 [n]."""
        if not self.is_number:
            return self.indices(values).astype(float)
        numbers = np.asarray(values, float)
        if self.scale == LINEAR:
            return numbers
        return np.log10(np.where(numbers > 0, numbers, self._stand_in_for_zero))

    def indices(self, values: Sequence[Any] | np.ndarray) -> np.ndarray:
        """Returns where each value stands among the axis's, int [n]."""
        if self.is_number:
            return np.searchsorted(np.asarray(self.values, float), np.asarray(values, float))
        index = {value: i for i, value in enumerate(self.values)}
        return np.array([index[value] for value in values], int)

    def at(self, position: float) -> float:
        """Returns the number at `position`, the inverse of `position` on axes of numbers."""
        return float(10.0**position if self.scale == LOG else position)

    @property
    def _stand_in_for_zero(self) -> float:
        positive = np.log10([value for value in self.values if value > 0])
        step = np.median(np.diff(positive)) if len(positive) > 1 else 1.0
        return float(10.0 ** (positive[0] - step))

    def format(self, value: Any) -> str:
        """Returns `value` as text, such as 0.001 or 1e-05."""
        return f"{value:g}" if self.is_number else str(value)

    def describe(self) -> str:
        """Returns the searched range as text, such as `1e-4 to 0.1 (7 values)` or `adamw, sgd`."""
        if self.is_number and len(self.values) > 2:
            low, high = (f"{self.values[i]:.3g}" for i in (0, -1))
            return f"{low} to {high} ({len(self.values)} values)"
        listed = [self.format(value) for value in self.values[:6]]
        return ", ".join(listed) + (f", ... ({len(self.values)} values)" if len(self.values) > 6 else "")

    def bins(self, values: Sequence[Any] | np.ndarray, most: int = 8) -> np.ndarray:
        """Returns for each value what stands for its bin: itself, or on a sampled axis the median of its quantile bin.

        Axes with at most `MANY` distinct values, and categories, are left as they are; returns an array [n].
        """
        if not self.is_number or len(self.values) <= MANY:
            return np.array(values, float if self.is_number else object)
        numbers = np.asarray(values, float)
        inner = np.quantile(numbers, np.arange(1, most) / most)
        places = np.searchsorted(np.unique(inner), numbers, side="left")
        medians = {place: float(np.median(numbers[places == place])) for place in np.unique(places)}
        return np.array([medians[place] for place in places])


def make_axis(name: str, column: Sequence[Any], scale: str | None = None) -> Axis:
    """Returns the axis of a column without missing cells; the scale is guessed from the spacing if not given.

    A column that holds anything but numbers is of categories; rates and decays are log where that matters.
    """
    numeric = all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in column)
    if not numeric or scale == CATEGORY:
        return Axis(name, CATEGORY, tuple(dict.fromkeys(column)))
    values = np.unique(np.asarray(column, float))
    return Axis(
        name,
        scale or (LOG if _is_by_factors(name, values) else _scale(values)),
        tuple(_plain(value) for value in values),
    )


def _plain(number: float) -> float | int:
    return int(number) if number == int(number) and abs(number) < 2**53 else float(number)


def _is_by_factors(name: str, values: np.ndarray) -> bool:
    """Says whether numbers have the name of a rate or decay, and reach far enough for a logarithm to matter."""
    positive = values[values > 0]
    named = _BY_FACTORS.fullmatch(re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower())
    return bool(named and values[0] >= 0 and len(positive) > 1 and positive[-1] >= _LEAST_RATIO_OF_TWO * positive[0])


def _scale(values: np.ndarray) -> str:
    """Returns log if distinct ascending values lie more evenly on a log scale than on a linear one, else linear."""
    positive = values[values > 0]
    if values[0] < 0 or len(positive) < 2:
        return LINEAR
    ratio = math.exp(min(700.0, math.log(positive[-1]) - math.log(positive[0])))
    if len(positive) == 2:
        return LOG if ratio >= _LEAST_RATIO_OF_TWO else LINEAR
    if len(positive) > MANY:
        return LOG if ratio >= _LEAST_RATIO_OF_MANY and _skew(np.log(positive)) < _skew(positive) else LINEAR
    return LOG if ratio >= _LEAST_RATIO and _unevenness(np.log(positive)) < _unevenness(positive) else LINEAR


def _skew(values: np.ndarray) -> float:
    """Returns how far the median lies from the middle of the values, in [0, 1]."""
    middle, half = (values[0] + values[-1]) / 2, (values[-1] - values[0]) / 2
    return float(abs(np.median(values) - middle) / half)


def _unevenness(values: np.ndarray) -> float:
    steps = np.diff(values)
    return float(steps.std() / steps.mean())
