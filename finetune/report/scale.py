"""Axes of charts: a hyperparameter on the scale it was searched on, a metric over the part that matters."""

import json
import math
from collections.abc import Mapping
from typing import Any

import altair
import numpy as np
import pandas as pd

from finetune.analysis.table.axis import Axis
from finetune.analysis.table.trials import Trials

_LARGE, _SMALL = 1e5, 1e-3  # beyond these, numbers are written with an exponent
_TICKS = 12  # values of an axis that are all labelled
_LONG = 34  # characters of labels beside each other; more are turned
_DECADES = 4  # from 1, beyond which powers of ten are written with an exponent
_STEPPED = 4  # decades with ticks between the powers of ten
_CUT = 0.25  # share of runs that may lie below a chart
_SPANS = 3.0  # medians to best that a chart shows below the median


def label(axis: Axis, value: Any) -> str:
    """Returns a value of an axis in at most three digits, or as the name it is."""
    if not axis.is_number or isinstance(value, str):
        return str(value)
    if value == int(value) and abs(value) < _LARGE:
        return str(int(value))
    text = f"{value:.3g}"
    return (
        f"{float(text):.0f}" if "e+0" in text and abs(value) < _LARGE else text.replace("e-0", "e-").replace("e+0", "e")
    )


def setting(trials: Trials, values: dict[str, Any]) -> str:
    """Returns the values of a setting in a line."""
    return " · ".join(label(axis, values[axis.name]) for axis in trials.axes if axis.name in values)


def digits(values: pd.Series) -> str:
    """Returns the format of a metric, for Python and for D3 alike: as many digits as tell the better half apart."""
    finite = values[np.isfinite(values)]
    if finite.empty:
        return ".4f"
    spread, size = float(finite.quantile(0.75) - finite.quantile(0.25)), float(finite.abs().max())
    if size >= _LARGE or 0 < size < _SMALL:
        return ".3g"
    return f".{min(5, max(4 if size <= 1 else 1, math.ceil(-math.log10(spread or size or 1)) + 2))}f"


def ticks(form: str) -> str:
    """Returns the format of the ticks of an axis whose values have format `form`: without trailing zeros."""
    return form.replace("f", "~f").replace("g", "~g")


def metric_name(trials: Trials) -> str:
    """Returns the metric in words, with what is better."""
    return f"{trials.metric.replace('_', ' ')} ({'higher' if trials.maximize else 'lower'} is better)"


def of_axis(axis: Axis, channel: type = altair.X, title: str | None = None, field: str = "x") -> Any:
    """Returns the encoding of positions on a hyperparameter's axis: its values as ticks, unless there are many."""
    positions = axis.positions(axis.values).tolist()
    low, high = min(positions), max(positions)
    pad = (high - low) * 0.06 or 0.5
    texts = [label(axis, value) for value in axis.values]
    if len(positions) <= _TICKS:
        ticks = {"values": positions, "labelExpr": f"{json.dumps(texts)}[indexof({positions}, datum.value)]"}
        if channel is altair.X and sum(map(len, texts)) > _LONG and not axis.is_number:
            ticks |= {"labelAngle": -30, "labelLimit": 110}
    elif axis.scale == "log":
        ticks = {
            "tickCount": 6,
            "labelExpr": f"format(pow(10, datum.value), abs(datum.value) > {_DECADES} ? '.1~e' : '.3~r')",
        }
    else:
        ticks = {"tickCount": 6}
    return channel(
        field=field,
        type="quantitative",
        title=title,
        scale=altair.Scale(domain=[low - pad, high + pad], nice=False, zero=False),
        axis=altair.Axis(labelOverlap="greedy", **ticks),
    )


def visible(values: pd.Series, maximize: bool) -> tuple[float, float]:
    """Returns the range of a metric that a chart shows: all, unless a few bad runs would flatten the good ones."""
    finite = values[np.isfinite(values)]
    if finite.empty:
        return 0.0, 1.0
    sign = 1.0 if maximize else -1.0
    utility = sign * finite
    best, middle, worst = utility.max(), utility.median(), utility.min()
    floor = max(worst, middle - _SPANS * (best - middle))
    if (utility < floor).mean() > _CUT:
        floor = worst
    margin = 0.05 * (best - floor) or 0.05 * abs(best) or 0.05
    low, high = sorted((sign * (floor - margin), sign * (best + margin)))
    return float(low), float(high)


def of_metric(trials: Trials, domain: tuple[float, float], field: str = "y", channel: type = altair.Y) -> Any:
    """Returns the encoding of the metric; charts that share `domain` can be compared."""
    return channel(
        field=field,
        type="quantitative",
        title=metric_name(trials),
        scale=altair.Scale(domain=list(domain), nice=False, zero=False),
        axis=altair.Axis(tickCount=5, format=ticks(digits(trials.frame["value"]))),
    )


def drawn(frame: pd.DataFrame, most: int) -> pd.DataFrame:
    """Returns the trials that a chart draws: all, or the best tenth of `most` and a random sample of the others."""
    if len(frame) <= most:
        return frame
    best = frame["utility"].fillna(-np.inf).nlargest(most // 10).index
    others = frame.index.difference(best)
    chosen = np.random.default_rng(0).choice(others, most - len(best), replace=False)
    return frame.loc[np.sort(np.concatenate([best, chosen]))]


def drawn_note(frame: pd.DataFrame, most: int) -> str:
    """Returns the sentence that says how many trials are drawn, empty if all are."""
    return f"{most:,} of {len(frame):,} runs are drawn." if len(frame) > most else ""


def interval(limits: altair.Scale, channel: str = "x") -> dict[str, Any]:
    """Returns the encoding of an interval from low to high, on an axis of these limits."""
    first, second = (altair.X, altair.X2) if channel == "x" else (altair.Y, altair.Y2)
    return {channel: first(field="low", type="quantitative", scale=limits), f"{channel}2": second(field="high")}


def colours(of: Mapping[str, str], field: str = "kind") -> altair.Color:
    """Returns the encoding of kinds of marks by colours that the note of a chart explains."""
    domain = altair.Scale(domain=list(of), range=list(of.values()))
    return altair.Color(field=field, type="nominal", legend=None, scale=domain)


def tooltip(*fields: tuple[str, str, str | None]) -> list[altair.Tooltip]:
    """Returns the lines of a tooltip: (field, title, format of a number or None for text)."""
    return [
        altair.Tooltip(field=field, type="quantitative", title=title, format=form)
        if form
        else altair.Tooltip(field=field, type="nominal", title=title)
        for field, title, form in fields
    ]


def round_numbers(low: float, high: float) -> list[float]:
    """Returns 1, 2 and 5 of each decade between two numbers, or the decades alone where there are many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= _STEPPED else (1,)
    return [value for decade in decades for step in steps if low <= (value := step * 10.0**decade) <= high]
