"""Studies side by side: the best of each, and runs paired by id, or by setting and seed."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from finetune.analysis.answer import Answer
from finetune.analysis.statistics.paired import LEVEL
from finetune.analysis.statistics.variance import t_interval
from finetune.analysis.table.trials import Trials
from finetune.errors import UserError
from finetune.report import scale


class Pairs(NamedTuple):
    """Runs of the first study beside those of another; the difference is another − first, in the metric's units.

    low, high: of the 95 % interval of the mean difference, for all studies at once; NaN below two seeds, since runs of
    one seed have its luck in common. seeds: how many tell it.
    """

    other: str
    by: str  # what a pair shares
    frame: pd.DataFrame  # id, first, other_id, other: ids and values of the metric
    mean: float
    low: float
    high: float
    seeds: int


class Comparison(NamedTuple):
    """What several studies say together."""

    answers: tuple[Answer, ...]
    names: tuple[str, ...]
    differing: dict[str, tuple[Any, ...]]  # settings of the studies that are not the same, one value a study
    pairs: tuple[Pairs, ...]
    sentences: tuple[str, ...]


def compare(answers: Sequence[Answer]) -> Comparison:
    """Returns the comparison of studies with the first; raises UserError if their metrics are not the same."""
    first, *others = [answer.trials for answer in answers]
    for other in others:
        if (other.metric, other.maximize) != (first.metric, first.maximize):
            raise UserError(
                f"{other.source} is chosen by {other.metric!r}, allowed: {first.metric!r}, as {first.source} is"
            )
    names = _names([answer.trials.source for answer in answers])
    pairs = tuple(_pairs(first, other, name, len(others)) for other, name in zip(others, names[1:], strict=True))
    differing = _differing([answer.trials for answer in answers])
    made = Comparison(tuple(answers), names, differing, pairs, ())
    return made._replace(sentences=(_best(made), *(_sentence(first, names[0], each) for each in pairs)))


def _names(sources: Sequence[str]) -> tuple[str, ...]:
    """Returns the shortest ends of the paths that tell the studies apart."""
    paths = [Path(source).resolve().parts for source in sources]
    for length in range(1, max(map(len, paths)) + 1):
        names = tuple("/".join(parts[-length:]) for parts in paths)
        if len(set(names)) == len(names):
            return names
    return tuple(f"{source} ({index + 1})" for index, source in enumerate(sources))


def _settings(trials: Trials) -> pd.DataFrame:
    """Returns every hyperparameter of every trial, those that do not vary too."""
    return trials.frame[trials.names].assign(
        **{name: [value] * len(trials.frame) for name, value in trials.fixed.items()}
    )


def _pairs(first: Trials, other: Trials, name: str, others: int) -> Pairs:
    both = [
        each.frame[["id", "seed", "value"]].assign(key=_keys(each, *_shared(first, other))) for each in (first, other)
    ]
    by = "id" if set(both[0]["id"]) & set(both[1]["id"]) else "setting and seed"
    column = "id" if by == "id" else "key"
    left, right = (part.assign(on=part[column]).drop_duplicates("on") for part in both)
    joined = left.merge(right, on="on", suffixes=("", "_other")).dropna(subset=["value", "value_other"])
    frame = pd.DataFrame(
        {"id": joined["id"], "first": joined["value"], "other_id": joined["id_other"], "other": joined["value_other"]}
    )
    by_seed = (frame["other"] - frame["first"]).groupby(joined["seed"].astype(str)).mean().to_numpy(float)
    mean, half = t_interval(by_seed, LEVEL / max(others, 1))
    return Pairs(name, by, frame, mean, mean - half, mean + half, len(by_seed))


def _shared(first: Trials, other: Trials) -> tuple[str, ...]:
    """Returns the hyperparameters that a pair shares: all that both know, but those that set the studies apart."""
    known = [name for name in (*first.names, *first.fixed) if name in other.names or name in other.fixed]
    apart = {name for name in known if name in first.fixed and name in other.fixed}
    return tuple(sorted(name for name in known if name not in apart or first.fixed[name] == other.fixed[name]))


def _keys(trials: Trials, *names: str) -> list[str]:
    rows = _settings(trials)[list(names)].assign(seed=trials.frame["seed"]).to_dict("records")
    return [json.dumps(row, sort_keys=True, default=str) for row in rows]


def _differing(studies: Sequence[Trials]) -> dict[str, tuple[Any, ...]]:
    flat = [{**_flat(study.provenance.get("config") or {}), **study.fixed} for study in studies]
    names = dict.fromkeys(name for each in flat for name in each)
    values = {name: tuple(each.get(name, "(none)") for each in flat) for name in names}
    return {name: each for name, each in values.items() if len({json.dumps(value, default=str) for value in each}) > 1}


def _flat(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in document.items():
        if prefix == "hparams.":  # what trials differ in is told by the trials
            continue
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _best(compared: Comparison) -> str:
    known = [
        (name, answer.recommendation.best)
        for name, answer in zip(compared.names, compared.answers, strict=True)
        if answer.recommendation.best is not None
    ]
    if not known:
        return "No study has a setting to recommend."
    trials = compared.answers[0].trials
    sign, form = (1 if trials.maximize else -1), scale.digits(trials.frame["value"])
    ordered = sorted(known, key=lambda each: -sign * each[1].mean)
    text = ", ".join(f"{name} {best.mean:{form}} ({best.low:{form}} to {best.high:{form}})" for name, best in ordered)
    return f"Best setting of each study by {trials.metric}, best first, with 95 % intervals: {text}."


def _sentence(first: Trials, name: str, pairs: Pairs) -> str:
    count, form = len(pairs.frame), scale.digits(first.frame["value"])
    if not count:
        return f"{pairs.other} and {name} share no run with a value: they are compared by their best settings only."
    what = f"over {count:,} pair{'s' * (count > 1)} of runs with the same {pairs.by}"
    if (pairs.frame["first"] == pairs.frame["other"]).all():
        return f"{pairs.other} and {name} have the same values {what}."
    if not math.isfinite(pairs.low):
        return (
            f"{pairs.other} is {pairs.mean:+{form}} from {name} {what}; with one seed that may be chance: "
            "repeat both with others."
        )
    ends = f"{pairs.mean:+{form}} (95 %: {pairs.low:+{form}} to {pairs.high:+{form}}, {pairs.seeds} seeds)"
    if pairs.low <= 0 <= pairs.high:
        return f"{pairs.other} and {name} do not differ beyond chance: {ends} {what}."
    better = (pairs.mean > 0) == first.maximize
    return f"{pairs.other} is {'better' if better else 'worse'} than {name} by {ends} {what}."
