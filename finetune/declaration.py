"""What is declared of a setting beside its default: what it is, what it may be, and whether results depend on it."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from finetune.errors import UserError, one_of

LARGEST = 2**31 - 1  # of whole numbers
_TYPES: dict[type, tuple[type | tuple[type, ...], str]] = {  # of values, by the type of the default
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    str: (str, "text"),
    tuple: ((tuple, list), "a tuple of texts"),
}


@dataclass(frozen=True)
class Range:
    """What a number may be: low <= value <= high, without the ends that are excluded; `words` say it otherwise."""

    low: float
    high: float
    high_excluded: bool = False
    low_excluded: bool = False
    besides: float | None = None  # a value that stands for something
    words: str = ""

    def __contains__(self, number: Any) -> bool:
        if number == self.besides:
            return True
        above = self.low < number or (number == self.low and not self.low_excluded)
        return above and (number < self.high or (number == self.high and not self.high_excluded))

    def __str__(self) -> str:
        if self.words:
            return self.words
        if self.high == math.inf:
            return f"{'>' if self.low_excluded else '>='} {self.low:g} and finite"
        signs = ["<" if excluded else "<=" for excluded in (self.low_excluded, self.high_excluded)]
        besides = "" if self.besides is None else f", or {self.besides:g}"
        return f"{self.low:g} {signs[0]} value {signs[1]} {self.high:g}{besides}"


def setting(
    default: Any, what: str, allowed: Range | tuple[str, ...] | None = None, of_result: bool = True, later: bool = False
) -> Any:
    """Returns a field of a dataclass of settings.

    what: what it is, its unit too. allowed: a closed list or a range; None: whatever the type of the default allows.
    of_result: whether results depend on it beyond rounding; a study goes on with another value of one that is of none.
    later: whether it came when there were studies without it, so that nothing is told of it, in ids of trials least of
    all, where it is what they had: its default, of a hyperparameter 0.
    """
    about = {"what": what, "allowed": allowed, "of_result": of_result, "later": later}
    return field(default=default, metadata=about)


def fields(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) for every leaf setting of a config, those included that a config file made up."""
    for name, value in vars(config).items():
        if dataclasses.is_dataclass(value):
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def check(name: str, value: Any, default: Any, allowed: Range | tuple[str, ...] | None) -> None:
    """Raises UserError for a value of another type than the default, or one that is not allowed."""
    types, words = _TYPES[type(default)]
    if not isinstance(value, types) or isinstance(value, bool):
        raise UserError(f"{name} is {value!r}, allowed: {words}")
    if isinstance(allowed, tuple) and value not in allowed:
        raise one_of(name, value, allowed)
    if isinstance(allowed, Range) and value not in allowed:
        raise UserError(f"{name} is {value}, allowed: {allowed}")
    if types is int and isinstance(value, int) and not 0 <= value <= LARGEST:
        raise UserError(f"{name} is {value}, allowed: 0 to {LARGEST}")
