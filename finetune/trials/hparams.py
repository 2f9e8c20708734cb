"""Hparams: the scalars in which trials differ. They are arrays in the program, never constants baked into it."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from finetune.config import OWN_RATES as OWN_RATES
from finetune.config import HparamsConfig
from finetune.declaration import Range
from finetune.errors import UserError, one_of

_FIELDS = dataclasses.fields(HparamsConfig)
NAMES = tuple(each.name for each in _FIELDS)
RANGES: dict[str, Range] = {each.name: each.metadata["allowed"] for each in _FIELDS}
_LATER: dict[str, Any] = {each.name: each.default for each in _FIELDS if each.metadata["later"]}
INTEGERS = tuple(each.name for each in _FIELDS if isinstance(each.default, int))

_namedtuple: Any = collections.namedtuple  # of names that a type checker does not see
_Scalars: Any = _namedtuple("Hparams", NAMES)


class Hparams(_Scalars):
    """The hyperparameters of one member: scalars, or arrays [members] once stacked; fields as of `HparamsConfig`."""

    __slots__ = ()


def check(values: dict[str, object]) -> dict[str, float | int]:
    """Returns `values` as plain numbers of the right type; raises UserError for a name or value that is not allowed."""
    checked: dict[str, float | int] = {}
    for name, value in values.items():
        if name not in NAMES:
            raise one_of("hyperparameter", name, NAMES)
        try:
            number = _number(value) + 0.0  # -0.0 becomes 0.0, which is the same trial
        except (TypeError, ValueError, OverflowError):
            raise UserError(f"{name} is {value!r}, allowed: a number, {RANGES[name]}") from None
        if number not in RANGES[name]:
            raise UserError(f"{name} is {value}, allowed: {RANGES[name]}")
        if name in INTEGERS:
            if number != int(number):
                raise UserError(f"{name} is {value}, allowed: whole numbers, {RANGES[name]}")
            number = int(number)
        checked[name] = number
    return checked


def _number(value: Any) -> float:
    """Returns a number, or the text of one, as Python's float; raises TypeError or ValueError for anything else.

    A number of NumPy or JAX with fewer digits is what it is written as: float32 0.001 is 0.001.
    """
    if isinstance(value, np.ndarray | jax.Array) and value.ndim == 0:
        value = np.asarray(value)[()]
    if isinstance(value, bool | bytes | np.ndarray | jax.Array):
        raise TypeError(f"{value!r} is no number")
    return float(str(value) if isinstance(value, np.generic) else value)


def from_config(config: HparamsConfig) -> dict[str, float | int]:
    """Returns every hyperparameter of `config` as a checked plain number."""
    return check({name: getattr(config, name) for name in NAMES})


def told(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns hyperparameters without those that came later and are off: a trial without them is what it was."""
    return {name: value for name, value in values.items() if name not in _LATER or value != _LATER[name]}


def whole(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what `told` has left of hyperparameters with what it has not told."""
    return {**_LATER, **values}


def stack(rows: Sequence[Mapping[str, float | int]], size: int) -> Hparams:
    """Returns hyperparameters as host arrays [size]: int32 for counts and seeds, else the default float dtype.

    Places beyond the last row are ghosts: members that train for 0 epochs.
    """
    rows = [whole(row) for row in (*rows, *[{**rows[0], "epochs": 0}] * (size - len(rows)))]
    float_dtype = jax.dtypes.canonicalize_dtype(float)
    columns: list[Any] = [
        np.array([row[name] for row in rows], np.int32 if name in INTEGERS else float_dtype) for name in NAMES
    ]
    return Hparams(*columns)
