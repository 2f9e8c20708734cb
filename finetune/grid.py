"""Axes -> trials. A grid is the product of its axes; a trial's id is a hash of all that its result depends on."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from finetune import chain, hparams
from finetune.config import CHOICES, OWN_MODEL, Config
from finetune.errors import UserError, one_of
from finetune.params import adapts

# Axes that change the program, and the setting each stands for.
STATIC = {"trainable": "trainable", "optimizer.name": "optimizer.name", "schedule": "optimizer.schedule"}

AT = "@"  # learning_rate@head: an axis of the trials whose choice is `head` alone

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

    A name may be HYPERPARAMETER@CHOICE: see `make_trials`.

    >>> parse_axis("learning_rate=log:1e-4:1e-2:3")
    ('learning_rate', [0.0001, 0.001, 0.01])
    """
    name, equals, values = text.partition("=")
    name = name.strip()
    if not equals or not values.strip():
        raise UserError(f"--grid is {text!r}, allowed: NAME=a,b,c or NAME=log:LOW:HIGH:N or NAME=lin:LOW:HIGH:N")
    if name in STATIC:
        return name, [_choice(name, part.strip()) for part in values.split(",")]
    base, at, choice = (part.strip() for part in name.partition(AT))
    if at and (base in STATIC or not choice):
        raise UserError(f"--grid is {text!r}, allowed before the =: NAME, or HYPERPARAMETER{AT}CHOICE such as "
                        f"learning_rate{AT}head")  # fmt: skip
    if base not in hparams.NAMES:
        raise one_of("axis of --grid", base, (*hparams.NAMES, *STATIC))
    kind = values.split(":")[0].strip()
    numbers = _spaced(text, values) if kind in ("log", "lin") else [part.strip() for part in values.split(",")]
    return base + at + choice, [hparams.check({base: number})[base] for number in numbers]


def _choice(name: str, value: str) -> str:
    value = chain.spelt(value) if name == "trainable" else value
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
    """Returns the trials of every assignment of `sweep` crossed with all `axes`, each once, over config's defaults.

    An axis called HYPERPARAMETER@CHOICE, such as learning_rate@head, holds the values for trials one of whose static
    choices is CHOICE, in place of those that the hyperparameter has in other trials. Raises UserError for a CHOICE
    that no trial has.
    """
    defaults: Assignment = {**hparams.from_config(config.hparams), **_choices_of(config)}
    has_rates = config.model.name == OWN_MODEL  # it may have, which shows when it is built
    if not has_rates and defaults["dropout"] == hparams.OWN_RATES:
        defaults["dropout"] = 0.0
    if (size := math.prod(len(values) for name, values in axes.items() if AT not in name)) > _MOST_TRIALS:
        raise UserError(f"the grid has {size} trials, allowed: at most {_MOST_TRIALS}")
    trials: dict[str, Trial] = {}
    sweep = [_checked(paired) for paired in sweep]
    _check_conditions(axes, [{**defaults, **paired} for paired in sweep])
    for paired in sweep:
        for values in _product(axes, {**defaults, **paired}):
            assignment = {**defaults, **paired, **values}
            trial = Trial(
                hparams={name: assignment[name] for name in hparams.NAMES},
                choices={name: str(assignment[name]) for name in STATIC},
            )
            if not has_rates and trial.hparams["dropout"] == hparams.OWN_RATES:
                raise UserError(f"dropout is -1, allowed for model.name={config.model.name!r}: 0 <= value < 1")
            trials.setdefault(trial.id(""), trial)
    if not trials:
        raise UserError("the sweep has no trials, allowed: at least one")
    _check_adapters(list(trials.values()))
    return list(trials.values())


def _product(axes: Mapping[str, Sequence[Value]], assignment: Assignment) -> Iterator[Assignment]:
    """Yields the values of all axes; those under a condition take the place of others in the trials that meet it."""
    plain = {name: values for name, values in axes.items() if AT not in name}
    static = [name for name in plain if name in STATIC and len(plain) < len(axes)]
    for choices in itertools.product(*(plain[name] for name in static)):
        chosen = assignment | dict(zip(static, choices, strict=True))
        ranges = plain | {name: [chosen[name]] for name in static}
        for name, values in axes.items():
            base, at, choice = name.partition(AT)
            if at and choice in [chosen[each] for each in STATIC]:
                if ranges.get(base) is not plain.get(base):
                    raise UserError(f"--grid: two axes {base}{AT}... hold for the same trials, allowed: one of them")
                ranges[base] = values
        for values in itertools.product(*ranges.values()):
            yield dict(zip(ranges, values, strict=True))


def _check_conditions(axes: Mapping[str, Sequence[Value]], assignments: Sequence[Assignment]) -> None:
    """Raises UserError for an axis under a condition that no trial meets."""
    known = {str(each[name]) for each in assignments for name in STATIC}
    known |= {str(value) for name in STATIC for value in axes.get(name, ())}
    for name in axes:
        _, at, choice = name.partition(AT)
        if at and choice not in known:
            raise one_of(f"--grid={name}=...: the choice after {AT}", choice, known)


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
        "trainable": chain.spelt(config.trainable),
        "optimizer.name": config.optimizer.name,
        "schedule": config.optimizer.schedule,
    }
