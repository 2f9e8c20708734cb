"""Hparams: the scalars in which trials differ. They are arrays in the program, never constants baked into it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from finetune.config import HparamsConfig
from finetune.errors import UserError, one_of

OWN_RATES = -1.0  # in place of a dropout rate: each layer drops at the one that it was built with


class Hparams(NamedTuple):
    """The hyperparameters of one member: scalars, or arrays [members] once stacked.

    Fields mean what they mean in `config.HparamsConfig`; RANGES holds what each may be.
    """

    learning_rate: jax.Array
    warmup_fraction: jax.Array
    weight_decay: jax.Array
    l2: jax.Array
    l1: jax.Array
    l2_sp: jax.Array
    dropout: jax.Array
    label_smoothing: jax.Array
    clip_norm: jax.Array
    layer_decay: jax.Array
    momentum: jax.Array
    beta1: jax.Array
    beta2: jax.Array
    lora_rank: jax.Array
    lora_alpha: jax.Array
    lora_ratio: jax.Array
    batch_size: jax.Array
    epochs: jax.Array
    seed: jax.Array
    data_seed: jax.Array


class Range(NamedTuple):
    """What a hyperparameter may be: low <= value <= high, without the ends that are excluded."""

    low: float
    high: float
    high_excluded: bool = False
    low_excluded: bool = False
    besides: float | None = None  # a value that stands for something

    def __contains__(self, value: object) -> bool:
        number = float(value)  # type: ignore[arg-type]
        if number == self.besides:
            return True
        above = self.low < number or (number == self.low and not self.low_excluded)
        return above and (number < self.high or (number == self.high and not self.high_excluded))

    def __str__(self) -> str:
        if self.high == np.inf:
            return f"{'>' if self.low_excluded else '>='} {self.low:g} and finite"
        signs = ["<" if excluded else "<=" for excluded in (self.low_excluded, self.high_excluded)]
        besides = "" if self.besides is None else f", or {self.besides:g}"
        return f"{self.low:g} {signs[0]} value {signs[1]} {self.high:g}{besides}"


_NON_NEGATIVE = Range(0.0, np.inf, high_excluded=True)
_POSITIVE = Range(0.0, np.inf, high_excluded=True, low_excluded=True)
_FRACTION = Range(0.0, 1.0, high_excluded=True)
_COUNT = Range(1, 2**31 - 1)
_SEED = Range(0, 2**31 - 1)

RANGES: dict[str, Range] = {
    "learning_rate": _NON_NEGATIVE,
    "warmup_fraction": Range(0.0, 1.0),
    "weight_decay": _NON_NEGATIVE,
    "l2": _NON_NEGATIVE,
    "l1": _NON_NEGATIVE,
    "l2_sp": _NON_NEGATIVE,
    "dropout": _FRACTION._replace(besides=OWN_RATES),
    "label_smoothing": _FRACTION,
    "clip_norm": _NON_NEGATIVE,
    "layer_decay": Range(0.0, 1.0, low_excluded=True),
    "momentum": _FRACTION,
    "beta1": _FRACTION,
    "beta2": _FRACTION,
    "lora_rank": _COUNT,
    "lora_alpha": _POSITIVE,
    "lora_ratio": _POSITIVE,
    "batch_size": _COUNT,
    "epochs": _COUNT,
    "seed": _SEED,
    "data_seed": _SEED,
}

NAMES = Hparams._fields
INTEGERS = ("lora_rank", "batch_size", "epochs", "seed", "data_seed")


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


def stack(rows: Sequence[Mapping[str, float | int]], size: int) -> Hparams:
    """Returns hyperparameters as host arrays [size]: int32 for counts and seeds, else the default float dtype.

    Places beyond the last row are ghosts: members that train for 0 epochs.
    """
    rows = [*rows, *[{**rows[0], "epochs": 0}] * (size - len(rows))]
    float_dtype = jax.dtypes.canonicalize_dtype(float)
    columns: list[Any] = [
        np.array([row[name] for row in rows], np.int32 if name in INTEGERS else float_dtype) for name in NAMES
    ]
    return Hparams(*columns)
