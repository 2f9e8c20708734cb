"""Assignment: a value for each thing in which trials differ, made plain and checked, wherever it comes from.

The one gate for axes of a shell and of Python, for what sweep() yields and for the defaults of a config. What passes
has one spelling, so that one trial has one id.
"""

import itertools
from collections.abc import Iterable, Mapping, Set
from typing import Any

from finetune.config import CHOICES, Config
from finetune.errors import UserError, one_of
from finetune.trials import chain, hparams

# Axes that change the program, and the setting each stands for.
STATIC = {"trainable": "trainable", "optimizer.name": "optimizer.name", "schedule": "optimizer.schedule"}
NAMES = (*hparams.NAMES, *STATIC)

AT = "@"  # learning_rate@head: an axis of the trials whose choice is `head` alone
LONGEST_AXIS = 100_000

Value = float | int | str
Assignment = dict[str, Value]


def value_of(name: str, given: object) -> Value:
    """Returns a value of one of NAMES, plain and in its one spelling; raises UserError for one that is not allowed."""
    return _choice(name, given) if name in STATIC else hparams.check({name: given})[name]


def checked(given: object, where: str) -> Assignment:
    """Returns what is given for some of NAMES; raises UserError, which begins with `where`, unless it is a mapping."""
    if not isinstance(given, Mapping):
        raise UserError(f"{where} yields {given!r}, allowed: a dict for each trial, such as {{'learning_rate': 1e-3}}")
    for name in given:
        if name not in NAMES:
            raise one_of(f"name in {where}", name, NAMES)
    return {name: value_of(name, value) for name, value in given.items()}


def defaults(config: Config) -> Assignment:
    """Returns the values of all NAMES that a config has for trials which say nothing of them."""
    choices = {
        "trainable": chain.spelt(config.trainable),  # where it is empty, what trains is asked later
        "optimizer.name": value_of("optimizer.name", config.optimizer.name),
        "schedule": value_of("schedule", config.optimizer.schedule),
    }
    return {**hparams.from_config(config.hparams), **choices}


def axis_name(given: object, where: str, allowed: str = "allowed") -> str:
    """Returns NAME or HYPERPARAMETER@CHOICE in its one spelling; raises UserError, which begins with `where`."""
    base, at, choice = (part.strip() for part in str(given).partition(AT))
    if at and (base in STATIC or not choice):
        raise UserError(f"{where} is {given!r}, {allowed}: NAME, or HYPERPARAMETER{AT}CHOICE such as "
                        f"learning_rate{AT}head")  # fmt: skip
    if base not in NAMES:
        raise one_of(where, base, NAMES)
    return base + at + chain.spelt(choice)


def axes(given: object) -> dict[str, list[Value]]:
    """Returns axes by their names, each a list of values; arrays and other sequences are taken.

    Raises UserError for a name, for values that are no list, for an empty one, and for a value that is not allowed.
    """
    if not isinstance(given, Mapping):
        raise UserError(f"axes are {given!r}, allowed: a dict of lists, such as {{'learning_rate': [1e-3, 1e-2]}}")
    found: dict[str, list[Value]] = {}
    for name, values in given.items():
        spelt = axis_name(name, "axis")
        if spelt in found:
            raise UserError(f"axis {spelt!r} is there twice, allowed: each axis once")
        base = spelt.partition(AT)[0]
        found[spelt] = [value_of(base, value) for value in _listed(spelt, values)]
    return found


def _listed(name: str, values: Any) -> list[object]:
    is_one = isinstance(values, str | bytes | Mapping | Set) or getattr(values, "ndim", 1) == 0
    if is_one or not isinstance(values, Iterable):
        raise UserError(f"axis {name} is {values!r}, allowed: a list of values")
    listed = list(itertools.islice(values, LONGEST_AXIS + 1))
    if not 0 < len(listed) <= LONGEST_AXIS:
        raise UserError(f"axis {name} has {'no' if not listed else 'more'} values, allowed: 1 to {LONGEST_AXIS}")
    return listed


def _choice(name: str, given: Any) -> str:
    if not isinstance(given, str):
        raise UserError(f"{name} is {given!r}, allowed: text")
    value = chain.spelt(given) if name == "trainable" else str(given).strip()
    allowed = CHOICES.get(STATIC[name])
    if not value:
        raise UserError(f"axis {name} has an empty value, allowed: names separated by commas")
    if allowed and value not in allowed:
        raise one_of(name, value, allowed)
    return value
