"""A finding: one sentence with numbers in it, and what to type if it calls for an experiment."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from finetune.analysis.table.trials import Trials

NOTE, WARNING = "note", "warning"
_NOTHING = 1e-12  # what is left of a difference of equal floats


class Finding(NamedTuple):
    """kind: what it is about, such as edge, epochs, failed, noise. severity: note or warning."""

    kind: str
    severity: str
    sentence: str
    axis: str | None = None
    command: str | None = None


def metric_words(trials: Trials) -> str:
    """Returns the metric's name in words: val_accuracy is validation accuracy."""
    name = trials.metric
    return f"validation {name.removeprefix('val_')}" if name.startswith("val_") else name


def number(value: float) -> str:
    """Returns a metric as text: four decimals, or four significant digits where that says more."""
    if not math.isfinite(value):
        return "unknown"
    if abs(value) < _NOTHING:
        return "0"
    return f"{value:.4f}" if 0.001 <= abs(value) < 1000 else f"{value:.4g}"


def rounded(value: float, width: float) -> str:
    """Returns a metric as text, with the digits that an interval of this width allows; as `number` if it is unknown.

    >>> rounded(0.95604, 0.0028), rounded(0.95604, 0.3), rounded(0.95604, float("nan"))
    ('0.9560', '0.96', '0.9560')
    """
    if not math.isfinite(value) or not math.isfinite(width) or width <= 0 or not 0.001 <= abs(value) < 1000:
        return number(value)
    return f"{value:.{min(max(1 - math.floor(math.log10(width)), 0), 4)}f}"


def span(low: float, high: float) -> str:
    """Returns the ends of an interval as text, with the digits that it allows: `0.9531 to 0.9574`."""
    return f"{rounded(low, high - low)} to {rounded(high, high - low)}"


def setting_words(trials: Trials, values: Mapping[str, Any]) -> str:
    """Returns a setting as text, such as `learning_rate 0.003, weight_decay 0`."""
    return ", ".join(f"{axis.name} {value_words(values[axis.name])}" for axis in trials.axes)


def value_words(value: Any) -> str:
    """Returns a value of an axis as text, numbers to three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def percent(share: float) -> str:
    """Returns a share in percent: one decimal below 10, and no zero for what is not none."""
    if 0 < share < 0.0005:
        return "under 0.1"
    return f"{100 * share:.0f}" if share >= 0.0995 or share == 0 else f"{100 * share:.1f}"


def count(amount: int, noun: str) -> str:
    """Returns `1 trial`, `2 trials`."""
    return f"{amount:,} {noun}" + ("" if amount == 1 else "s")


def listed(words: Sequence[str], joint: str = "and") -> str:
    """Returns `a, b and c`."""
    return f" {joint} ".join([part for part in (", ".join(words[:-1]), words[-1]) if part])
