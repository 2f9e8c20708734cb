"""Axes -> trials. A grid is the product of its axes; a trial's id is a hash of all that its result depends on."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from finetune.config import OWN_MODEL, Config
from finetune.errors import UserError, one_of
from finetune.trials import assignment, hparams
from finetune.trials.assignment import AT, LONGEST_AXIS, STATIC, Assignment, Value
from finetune.trials.chain import adapts

_MOST_TRIALS = 1_000_000


class Trial(NamedTuple):
    """One assignment of hyperparameters, seeds included, and of the static choices named in STATIC."""

    hparams: dict[str, float | int]
    choices: dict[str, str]

    def id(self, fingerprint: str) -> str:
        """Returns the trial's id, the same on every machine; `fingerprint` stands for data, model and objective."""
        return digest([fingerprint, hparams.told(self.hparams), self.choices])

    @property
    def told(self) -> dict[str, Value]:
        """What a row of trials.jsonl says of it."""
        return {**hparams.told(self.hparams), **self.choices}


def from_row(values: Mapping[str, Value]) -> Trial:
    """Returns the trial that a row of trials.jsonl describes by its "hparams"."""
    choices = {name: str(value) for name, value in values.items() if name in STATIC}
    return Trial(hparams.whole({name: value for name, value in values.items() if name not in STATIC}), choices)


def digest(content: Any) -> str:
    """Returns 12 hex digits of the sha256 of `content` in canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def parse_axis(text: str) -> tuple[str, list[Value]]:
    """Returns (name, values) of `name=a,b,c`, `name=log:LOW:HIGH:N` or `name=lin:LOW:HIGH:N`.

    A name may be HYPERPARAMETER@CHOICE: see `make_trials`.

    >>> parse_axis("learning_rate=log:1e-4:1e-2:3")
    ('learning_rate', [0.0001, 0.001, 0.01])
    """
    given, equals, values = text.partition("=")
    if not equals or not values.strip():
        raise UserError(f"--grid is {text!r}, allowed: NAME=a,b,c or NAME=log:LOW:HIGH:N or NAME=lin:LOW:HIGH:N")
    name = assignment.axis_name(given.strip(), "axis of --grid", "allowed before the =")
    kind = values.split(":")[0].strip()
    spaced = kind in ("log", "lin") and name not in STATIC
    listed = _spaced(text, values) if spaced else [part.strip() for part in values.split(",")]
    return name, assignment.axes({name: listed})[name]


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
    if number > LONGEST_AXIS:
        raise UserError(f"--grid is {text!r}: {number} values, allowed: at most {LONGEST_AXIS} on an axis")
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
    return with_seeds(axes, seeds)


def with_seeds(axes: Mapping[str, list[Value]], seeds: int | None) -> dict[str, list[Value]]:
    """Returns axes with the seeds 0 to `seeds` - 1 as one of them, None for none; raises UserError unless it can be."""
    if seeds is None:
        return dict(axes)
    if not isinstance(seeds, int) or not 1 <= seeds <= LONGEST_AXIS:
        raise UserError(f"--seeds is {seeds}, allowed: 1 or more, at most {LONGEST_AXIS}")
    if "seed" in axes:
        raise UserError("both --seeds and --grid=seed=... are given, allowed: one of them")
    return {**axes, "seed": list(range(seeds))}


def make_trials(
    config: Config, axes: Mapping[str, Iterable[Any]], sweep: Iterable[Mapping[str, Any]] = ({},)
) -> list[Trial]:
    """Returns the trials that are asked for, each once; see `asked`."""
    return distinct(asked(config, axes, sweep))


def distinct(trials: Iterable[Trial]) -> list[Trial]:
    """Returns `trials` without those that are there before."""
    return list({trial.id(""): trial for trial in trials}.values())


def asked(config: Config, axes: Mapping[str, Iterable[Any]], sweep: Iterable[Mapping[str, Any]] = ({},)) -> list[Trial]:
    """Returns the trial of every assignment of `sweep` crossed with all `axes` over config's defaults, in that order.

    An axis called HYPERPARAMETER@CHOICE, such as learning_rate@head, holds the values for trials one of whose static
    choices is CHOICE, in place of those that the hyperparameter has in other trials. Raises UserError for a CHOICE
    that no trial has, and for a name or a value that is not allowed.
    """
    defaults, ranges = assignment.defaults(config), assignment.axes(axes)
    has_rates = config.model.name == OWN_MODEL  # it may have, which shows when it is built
    if not has_rates and defaults["dropout"] == hparams.OWN_RATES:
        defaults["dropout"] = 0.0
    if (size := math.prod(len(values) for name, values in ranges.items() if AT not in name)) > _MOST_TRIALS:
        raise UserError(f"the grid has {size} trials, allowed: at most {_MOST_TRIALS}")
    if not isinstance(sweep, Iterable):
        raise UserError(f"sweep is {sweep!r}, allowed: dicts, one for each trial")
    paired = [{**defaults, **assignment.checked(each, "sweep()")} for each in sweep]
    _check_conditions(ranges, paired)
    trials = [_trial(each | values) for each in paired for values in _product(ranges, each)]
    if not trials:
        raise UserError("the sweep has no trials, allowed: at least one")
    if not has_rates and any(trial.hparams["dropout"] == hparams.OWN_RATES for trial in trials):
        raise UserError(f"dropout is -1, allowed for model.name={config.model.name!r}: 0 <= value < 1")
    _check_adapters(trials)
    return trials


def _trial(values: Assignment) -> Trial:
    return Trial(
        hparams={name: values[name] for name in hparams.NAMES},  # type: ignore[misc]
        choices={name: str(values[name]) for name in STATIC},
    )


def _product(axes: Mapping[str, Sequence[Value]], values_of: Assignment) -> Iterator[Assignment]:
    """Yields the values of all axes; those under a condition take the place of others in the trials that meet it."""
    plain = {name: values for name, values in axes.items() if AT not in name}
    static = [name for name in plain if name in STATIC and len(plain) < len(axes)]
    for choices in itertools.product(*(plain[name] for name in static)):
        chosen = values_of | dict(zip(static, choices, strict=True))
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
