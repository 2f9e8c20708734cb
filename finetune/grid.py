"""Axes -> trials. A grid is the product of its axes; a trial's id is a hash of all that its result depends on."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from finetune import hparams
from finetune.config import CHOICES, Config
from finetune.errors import UserError, one_of
from finetune.params import adapts

# Axes that change the program, and the setting each stands for.
STATIC = {"trainable": "trainable", "optimizer.name": "optimizer.name", "schedule": "optimizer.schedule"}

_LONGEST_AXIS, _MOST_TRIALS = 100_000, 1_000_000

Value = float | int | str
Assignment = dict[str, Value]


class Trial(NamedTuple):
    """One assignment of hyperparameters, seeds included, and of the static choices named in STATIC."""

    hparams: dict[str, float | int]
    choices: dict[str, str]

    def id(self, fingerprint: str) -> str:
        """Returns the trial's id, the same on every machine; `fingerprint` stands for data, model and objective."""
        return digest([fingerprint, self.hparams, self.choices])


def from_row(values: Mapping[str, Value]) -> Trial:
    """Returns the trial that a row of trials.jsonl describes by its "hparams"."""
    choices = {name: str(value) for name, value in values.items() if name in STATIC}
    return Trial({name: value for name, value in values.items() if name not in STATIC}, choices)  # type: ignore[misc]


def digest(content: Any) -> str:
    """Returns 12 hex digits of the sha256 of `content` in canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def parse_axis(text: str) -> tuple[str, list[Value]]:
    """Returns (name, values) of `name=a,b,c`, `name=log:LOW:HIGH:N` or `name=lin:LOW:HIGH:N`.

    >>> parse_axis("learning_rate=log:1e-4:1e-2:3")
    ('learning_rate', [0.0001, 0.001, 0.01])
    """
    name, equals, values = text.partition("=")
    name = name.strip()
    if not equals or not values.strip():
        raise UserError(f"--grid is {text!r}, allowed: NAME=a,b,c or NAME=log:LOW:HIGH:N or NAME=lin:LOW:HIGH:N")
    if name in STATIC:
        return name, [_choice(name, part.strip()) for part in values.split(",")]
    if name not in hparams.NAMES:
        raise one_of("axis of --grid", name, (*hparams.NAMES, *STATIC))
    kind = values.split(":")[0].strip()
    numbers = _spaced(text, values) if kind in ("log", "lin") else [part.strip() for part in values.split(",")]
    return name, [hparams.check({name: number})[name] for number in numbers]


def _choice(name: str, value: str) -> str:
    allowed = CHOICES.get(STATIC[name])
    if not value:
        raise UserError(f"axis {name} has an empty value, allowed: names separated by commas")
    if allowed and value not in allowed:
        raise one_of(name, value, allowed)
    return value


def _spaced(text: str, values: str) -> list[float]:
    """Returns N values from LOW to HIGH, rounded to 6 significant digits so that they read and hash well."""
    kind, *parts = values.split(":")
    try:
        low, high, number = float(parts[0]), float(parts[1]), int(parts[2])
        valid = len(parts) == 3 and number >= 2 and bool(np.isfinite([low, high, high - low]).all())
        valid = valid and low < high and (low > 0 or kind.strip() == "lin")
    except (ValueError, IndexError):
        valid = False
    if not valid:
        raise UserError(f"--grid is {text!r}, allowed: {kind}:LOW:HIGH:N with LOW < HIGH, N >= 2, and LOW > 0 for log")
    if number > _LONGEST_AXIS:
        raise UserError(f"--grid is {text!r}: {number} values, allowed: at most {_LONGEST_AXIS} on an axis")
    space = np.geomspace if kind.strip() == "log" else np.linspace
    return [float(f"{value:.6g}") for value in space(low, high, number)]


def parse_axes(texts: Sequence[str], seeds: int | None) -> dict[str, list[Value]]:
    """Returns the axes of all --grid flags and of --seeds; raises UserError for an axis given twice."""
    axes: dict[str, list[Value]] = {}
    for text in texts:
        name, values = parse_axis(text)
        if name in axes:
            raise UserError(f"--grid names {name!r} twice, allowed: each axis once, its values separated by commas")
        axes[name] = values
    if seeds is not None:
        if not 1 <= seeds <= _LONGEST_AXIS:
            raise UserError(f"--seeds is {seeds}, allowed: 1 or more, at most {_LONGEST_AXIS}")
        if "seed" in axes:
            raise UserError("both --seeds and --grid=seed=... are given, allowed: one of them")
        axes["seed"] = list(range(seeds))
    return axes


def make_trials(
    config: Config, axes: Mapping[str, Sequence[Value]], sweep: Iterable[Mapping[str, Any]] = ({},)
) -> list[Trial]:
    """Returns the trials of every assignment of `sweep` crossed with all `axes`, each once, over config's defaults."""
    defaults: Assignment = {**hparams.from_config(config.hparams), **_choices_of(config)}
    if (size := math.prod(map(len, axes.values()))) > _MOST_TRIALS:
        raise UserError(f"the grid has {size} trials, allowed: at most {_MOST_TRIALS}")
    trials: dict[str, Trial] = {}
    for paired in sweep:
        for values in itertools.product(*axes.values()):
            assignment = {**defaults, **_checked(paired), **dict(zip(axes, values, strict=True))}
            trial = Trial(
                hparams={name: assignment[name] for name in hparams.NAMES},  # type: ignore[misc]
                choices={name: str(assignment[name]) for name in STATIC},
            )
            trials.setdefault(trial.id(""), trial)
    if not trials:
        raise UserError("the sweep has no trials, allowed: at least one")
    _check_adapters(list(trials.values()))
    return list(trials.values())


def _check_adapters(trials: Sequence[Trial]) -> None:
    """Raises UserError for an axis of adapters where no trial has any: it would train copies."""
    if any(adapts(trial.choices["trainable"]) for trial in trials):
        return
    for name in ("lora_rank", "lora_alpha", "lora_ratio"):
        if len({trial.hparams[name] for trial in trials}) > 1:
            raise UserError(
                f"axis {name} has no effect, since trainable is {trials[0].choices['trainable']!r}, "
                "allowed: with a trainable that holds lora"
            )


def _checked(paired: Mapping[str, Any]) -> Assignment:
    if not isinstance(paired, Mapping):
        raise UserError(f"sweep() yields {paired!r}, allowed: a dict for each trial, such as {{'learning_rate': 1e-3}}")
    for name in paired:
        if name not in hparams.NAMES and name not in STATIC:
            raise one_of("name in sweep()", name, (*hparams.NAMES, *STATIC))
    numbers = hparams.check({name: value for name, value in paired.items() if name in hparams.NAMES})
    return {**numbers, **{name: _choice(name, str(value)) for name, value in paired.items() if name in STATIC}}


def _choices_of(config: Config) -> dict[str, str]:
    return {
        "trainable": config.trainable,
        "optimizer.name": config.optimizer.name,
        "schedule": config.optimizer.schedule,
    }
