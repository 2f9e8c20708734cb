"""A space of settings: a range or a list for each hyperparameter, and the assignments that its points stand for.

--space=learning_rate=log:1e-5:1e-1   even in the logarithm    --space=dropout=lin:0:0.3           even as it is
--space=batch_size=16,32,64           one of these             --space=lora_rank@lora=log:1:64     of one choice
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from finetune.config import Config
from finetune.errors import UserError, one_of
from finetune.trials import assignment, hparams
from finetune.trials.assignment import AT, STATIC, Assignment, Value

LOG, LINEAR, LIST = "log", "lin", "list"
_ALLOWED = "allowed: NAME=log:LOW:HIGH, NAME=lin:LOW:HIGH or NAME=a,b,c"
_DIGITS = 6  # significant ones of a number
_DECIMALS = 12  # of a number near 0


class Dimension(NamedTuple):
    """A hyperparameter: numbers from `low` to `high`, even in their logarithm or as they are, or a list of `values`.

    choice: the static choice of the trials that it is for; "" for all others.
    """

    name: str
    choice: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    values: tuple[Value, ...] = ()

    @property
    def is_integer(self) -> bool:
        """Whether its values are whole numbers."""
        return self.name in hparams.INTEGERS

    def value(self, place: float) -> Value:
        """Returns the value at `place`, 0 <= place < 1; a whole number has all that rounds to it."""
        if self.kind == LIST:
            return self.values[int(place * len(self.values))]
        half = 0.5 if self.is_integer else 0.0
        low, high = self.low - half, self.high + half
        even = round(low + place * (high - low), _DECIMALS)
        number = low * (high / low) ** place if self.kind == LOG else even
        return int(min(max(round(number), self.low), self.high)) if self.is_integer else self.rounded(number)

    def rounded(self, number: float) -> float:
        """Returns a number of the range with 6 significant digits, so that it reads and hashes well."""
        return min(max(float(f"{number:.{_DIGITS}g}"), self.low), self.high)

    def held(self, value: Any) -> Value:
        """Returns a value as the dimension has it; raises ValueError if it does not."""
        if self.kind == LIST:
            return self.values[self.values.index(value)]
        if not isinstance(value, int | float) or isinstance(value, bool) or not self.low <= value <= self.high:
            raise ValueError(value)
        return int(value) if self.is_integer else float(value)

    @property
    def key(self) -> str:
        """NAME, or NAME@CHOICE."""
        return f"{self.name}{AT}{self.choice}" if self.choice else self.name

    def __str__(self) -> str:
        if self.kind == LIST:
            return f"{self.key}={','.join(map(str, self.values))}"
        return f"{self.key}={self.kind}:{self.low:g}:{self.high:g}"


class Space(NamedTuple):
    """dimensions: static choices first, since others may be for one of them. defaults: static choices of all trials."""

    dimensions: tuple[Dimension, ...]
    defaults: Mapping[str, Value]

    def assignment(self, point: Sequence[float]) -> Assignment:
        """Returns the assignment at a point of the unit cube; coordinates of dimensions for other choices are idle."""
        places = dict(zip(self.dimensions, point, strict=True))
        return self.chosen(lambda dimension: dimension.value(places[dimension]))

    def chosen(self, value_of: Callable[[Dimension], Value]) -> Assignment:
        """Returns the assignment that `value_of` gives, asked for one dimension after the other where it holds."""
        found: Assignment = {}
        for dimension in self.dimensions:
            if self._holds(dimension, found):
                found[dimension.name] = value_of(dimension)
        return found

    def held(self, value_of: Callable[[Dimension], Any]) -> Assignment | None:
        """Returns the same of values from elsewhere; None if one is missing (KeyError) or lies outside of the space."""
        try:
            return self.chosen(lambda dimension: dimension.held(value_of(dimension)))
        except (KeyError, ValueError):
            return None

    def _holds(self, dimension: Dimension, found: Assignment) -> bool:
        choices = {str(found.get(name, value)) for name, value in self.defaults.items()}
        if dimension.choice:
            return dimension.choice in choices
        special = {each.choice for each in self.dimensions if each.choice and each.name == dimension.name}
        return not special & choices


def parse(texts: Sequence[str], config: Config) -> Space:
    """Returns the space of all --space flags; raises UserError for one that no trial can have.

    That is a name or a value that is not allowed, an empty range, a name that comes twice, and a choice of no trial.
    """
    found: dict[str, Dimension] = {}
    for text in texts:
        each = _dimension(text)
        if each.key in found:
            raise UserError(f"--space names {each.key!r} twice, allowed: each once, its values separated by commas")
        found[each.key] = each
    if not found:
        raise UserError(f"--space is missing, {_ALLOWED}; repeatable")
    dimensions = sorted(found.values(), key=lambda each: each.name not in STATIC)
    space = Space(tuple(dimensions), {name: assignment.defaults(config)[name] for name in STATIC})
    _check_choices(space)
    return space


def _dimension(text: str) -> Dimension:
    given, equals, values = text.partition("=")
    if not equals or not values.strip():
        raise UserError(f"--space is {text!r}, {_ALLOWED}")
    name = assignment.axis_name(given.strip(), "name of --space", "allowed before the =")
    base, _, choice = name.partition(AT)
    kind, *ends = (part.strip() for part in values.split(":"))
    if kind in (LOG, LINEAR) and base not in STATIC:
        return _range(text, Dimension(base, choice, kind), ends)
    listed = assignment.axes({name: [part.strip() for part in values.split(",")]})[name]
    return Dimension(base, choice, LIST, values=tuple(dict.fromkeys(listed)))


def _range(text: str, dimension: Dimension, ends: Sequence[str]) -> Dimension:
    """Returns a dimension with its ends, both of which must be values of the hyperparameter."""
    allowed = f"allowed: {dimension.kind}:LOW:HIGH with LOW < HIGH{', and LOW > 0' * (dimension.kind == LOG)}"
    if len(ends) != 2:
        raise UserError(f"--space is {text!r}, {allowed}")
    low, high = (float(assignment.value_of(dimension.name, end)) for end in ends)
    least = hparams.RANGES[dimension.name]
    if low == least.besides or not low < high or (dimension.kind == LOG and low <= 0) or not math.isfinite(high - low):
        raise UserError(f"--space is {text!r}, {allowed}")
    return dimension._replace(low=low, high=high)


def _check_choices(space: Space) -> None:
    known = {str(value) for value in space.defaults.values()}
    known |= {str(value) for each in space.dimensions if each.name in STATIC for value in each.values}
    for dimension in space.dimensions:
        if dimension.choice and dimension.choice not in known:
            raise one_of(f"--space={dimension}: the choice after {AT}", dimension.choice, known)
