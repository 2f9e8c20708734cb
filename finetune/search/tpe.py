"""Settings that Optuna's tree-structured Parzen estimator asks for, many at once, from all results so far."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from finetune.search.space import LIST, LOG, Dimension, Space
from finetune.trials.assignment import Assignment, Value


def ask(
    space: Space, told: Sequence[tuple[Assignment, float]], count: int, seed: int,
    stopped: Sequence[tuple[Assignment, int, float]] = (),
) -> list[Assignment]:  # fmt: skip
    """Returns `count` assignments to try next.

    told: assignments and what each reached, larger is better, -inf where it diverged; their order counts. Those that
    are asked for together keep apart from each other (constant liar). Dimensions of one choice are modelled among the
    trials of that choice (group). stopped: assignments, when they were stopped, and what they had reached; the
    estimator takes them for worse than all that came to an end, those that got further for better.
    """
    import optuna  # slow to import

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of `group`
        sampler = optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=0
        )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    worst = min((value for _, value in told if math.isfinite(value)), default=0.0)
    for tried, value in told:
        study.add_trial(_made(space, tried, value=value if math.isfinite(value) else worst))
    for tried, when, value in stopped:
        reached = {when: value if math.isfinite(value) else worst}
        study.add_trial(_made(space, tried, state=optuna.trial.TrialState.PRUNED, intermediate_values=reached))
    return [space.chosen(_suggester(study.ask())) for _ in range(count)]


def _made(space: Space, tried: Assignment, **outcome: Any) -> Any:
    """Returns a trial of Optuna with the parameters of an assignment."""
    import optuna

    known = optuna.trial.FixedTrial(
        {each.key: _place(each, tried[each.name]) for each in space.dimensions if each.name in tried}
    )
    space.chosen(_suggester(known))
    return optuna.trial.create_trial(params=known.params, distributions=known.distributions, **outcome)


def _suggester(trial: Any) -> Callable[[Dimension], Value]:
    """Returns what asks a trial of Optuna for the value of a dimension."""

    def suggest(dimension: Dimension) -> Value:
        if _is_ordered(dimension):
            return dimension.values[trial.suggest_int(dimension.key, 0, len(dimension.values) - 1)]
        if dimension.kind == LIST:
            return trial.suggest_categorical(dimension.key, dimension.values)
        low, high, is_log = dimension.low, dimension.high, dimension.kind == LOG
        if dimension.is_integer:
            return int(trial.suggest_int(dimension.key, int(low), int(high), log=is_log))
        return dimension.rounded(trial.suggest_float(dimension.key, low, high, log=is_log))

    return suggest


def _is_ordered(dimension: Dimension) -> bool:
    """Says whether a dimension is a list of numbers that rise: it is modelled by their places."""
    numbers = [value for value in dimension.values if not isinstance(value, str)]
    return dimension.kind == LIST and len(numbers) == len(dimension.values) and numbers == sorted(numbers)


def _place(dimension: Dimension, value: Value) -> Value:
    return dimension.values.index(value) if _is_ordered(dimension) else value
