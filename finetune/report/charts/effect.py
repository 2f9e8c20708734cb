"""What each hyperparameter does: one chart an axis, with the band over seeds and every run."""

import altair
import numpy as np
import pandas as pd

from finetune.analysis.answer import Answer
from finetune.analysis.effects import Effect
from finetune.analysis.evidence import Evidence
from finetune.analysis.finding import listed
from finetune.analysis.table.axis import Axis
from finetune.analysis.table.trials import Trials
from finetune.report import scale, theme
from finetune.report.figure import HEIGHT, Figure, chart_of

_RUNS = 1500  # runs drawn in one chart
_FEW, _CLEAR, _FAINT = 500, 0.55, 0.25  # how opaque fewer runs, and more runs, are
_AXES = 12  # charts, largest effects first
_JITTER = 0.012  # of the width of the axis, so that runs of one value do not hide each other


def figures(answer: Answer) -> list[Figure]:
    """Returns one chart a hyperparameter, the largest effect first, on one scale of the metric."""
    isolated = {each.axis.name: each for each in answer.effects if each.kind == "isolated"}
    marginal = {each.axis.name: each for each in answer.effects if each.kind == "marginal"}
    ordered = sorted(isolated.values(), key=lambda each: -np.nan_to_num(each.size))[:_AXES]
    domain = scale.visible(answer.trials.frame["value"], answer.trials.maximize)
    return [_figure(answer, each, marginal.get(each.axis.name), domain) for each in ordered]


def message(effect: Effect, evidence: Evidence) -> str:
    """Returns what an effect says: which values the best setting may have, as the evidence on all settings has it."""
    points = effect.points[effect.points["n"] > 0].dropna(subset=["mean"])
    axis, stands = effect.axis, evidence.stands
    if points.empty:
        return f"{axis.name}: no run has a value"
    if stands.comparison is None:
        best = points.loc[(points["mean"] if evidence.trials.maximize else -points["mean"]).idxmax()]
        return f"{axis.name}: {scale.label(axis, best['value'])} is the best seen; how sure is not known"
    if not stands.evident:
        return f"{axis.name}: no value is better than the others beyond chance"
    places = np.unique(stands.table[axis.name].to_numpy()[stands.tied])
    if len(places) == len(axis.values):
        return f"{axis.name}: every value is among the settings that may be the best"
    good = [axis.values[place] for place in places]
    return (
        f"{axis.name}: {_listed(axis, good)} {'is' if len(good) == 1 else 'are'} in the settings that may be the best"
    )


def _listed(axis: Axis, values: list) -> str:
    names = [scale.label(axis, value) for value in values]
    return f"{names[0]} to {names[-1]}" if axis.is_number and len(names) > 2 else listed(names)


def _figure(answer: Answer, isolated: Effect, marginal: Effect | None, domain: tuple[float, float]) -> Figure:
    trials, axis = answer.trials, isolated.axis
    x, y = scale.of_axis(axis, title=axis.name), scale.of_metric(trials, domain)
    *lines, dots = _lines(trials, isolated, x, y)
    layers = [*lines, _runs(trials, axis, domain, x, y), dots]  # what is pointed at lies on top
    if marginal is not None:
        layers.insert(0, _average(marginal, x, y))
    best = answer.recommendation.best
    if best is not None and axis.name in best.values:
        layers.insert(0, _chosen(isolated, best.values[axis.name], x, y))
    chart = altair.layer(*layers).properties(height=HEIGHT)
    note = scale.drawn_note(trials.frame, _RUNS)
    return Figure(f"effect_{axis.name}", "effects", message(isolated, answer.evidence), note, chart)


def _runs(trials: Trials, axis: Axis, domain: tuple[float, float], x: altair.X, y: altair.Y) -> altair.Chart:
    rows = _run_rows(trials, axis, domain)
    opacity = _CLEAR if len(rows) < _FEW else _FAINT
    points = chart_of(rows).mark_point(filled=True, opacity=1, fillOpacity=opacity, size=22)
    colours = {"run": theme.RUN, "below": theme.RUN, "diverged": theme.BAD}
    shapes = altair.Scale(domain=list(colours), range=["circle", "triangle-down", "cross"])
    return points.encode(
        x=x,
        y=y,
        shape=altair.Shape(field="kind", type="nominal", legend=None, scale=shapes),
        color=scale.colours(colours),
        tooltip=run_tooltip(trials, axis.name),
    )


def _run_rows(trials: Trials, axis: Axis, domain: tuple[float, float]) -> pd.DataFrame:
    """Returns the runs drawn; those without a value, or below the chart, lie on its lower edge."""
    frame = scale.drawn(trials.frame, _RUNS)
    width = np.ptp(axis.positions(axis.values)) or 1.0
    jitter = np.random.default_rng(0).uniform(-_JITTER, _JITTER, len(frame)) * width
    worst = domain[0] if trials.maximize else domain[1]
    sign = 1.0 if trials.maximize else -1.0
    utility = sign * frame["value"].to_numpy(dtype=float)
    kinds = np.where(np.isnan(utility), "diverged", np.where(utility < sign * worst, "below", "run"))
    return pd.DataFrame(
        {
            "id": frame["id"],
            "x": np.round(axis.positions(frame[axis.name]) + jitter, 4),
            "y": np.where(kinds == "run", frame["value"], worst),
            "value": frame["value"],
            "setting": [scale.label(axis, value) for value in frame[axis.name]],
            "seed": frame["seed"],
            "kind": kinds,
        }
    )


def run_tooltip(trials: Trials, name: str) -> list[altair.Tooltip]:
    """Returns the lines shown over one run."""
    form = scale.digits(trials.frame["value"])
    return scale.tooltip(
        ("setting", name, None), ("value", trials.metric, form), ("seed", "seed", None), ("id", "id", None)
    )


def _points(effect: Effect) -> altair.Chart:
    frame = effect.points.dropna(subset=["mean"])
    texts = [scale.label(effect.axis, value) for value in frame["value"]]
    columns = {"x": frame["position"], "y": frame["mean"], "low": frame["low"], "high": frame["high"], "n": frame["n"]}
    return chart_of(pd.DataFrame(columns).assign(setting=texts))


def _lines(trials: Trials, effect: Effect, x: altair.X, y: altair.Y) -> list[altair.Chart]:
    """Returns the best over the other hyperparameters: band and line, or for categories a bar and a point each."""
    form = scale.digits(trials.frame["value"])
    base, low_high = _points(effect).encode(x=x, y=y), scale.interval(y["scale"], "y")
    lines = scale.tooltip(
        ("setting", effect.axis.name, None),
        ("y", "best over the others", form),
        ("low", "95 % from", form),
        ("high", "95 % to", form),
        ("n", "runs", ".0f"),
    )
    dots = base.mark_point(filled=True, size=46, color=theme.ACCENT, opacity=1, clip=True).encode(tooltip=lines)
    if effect.axis.is_number:
        band = base.mark_area(color=theme.ACCENT, fillOpacity=0.18, clip=True).encode(**low_high)
        return [band, base.mark_line(color=theme.ACCENT, strokeWidth=2.2, clip=True), dots]
    return [base.mark_rule(color=theme.ACCENT, strokeWidth=2.2, clip=True).encode(**low_high), dots]


def _average(effect: Effect, x: altair.X, y: altair.Y) -> altair.Chart:
    base = _points(effect).encode(x=x, y=y)
    if effect.axis.is_number:
        return base.mark_line(color=theme.MUTED, strokeWidth=1.4, strokeDash=[4, 3], clip=True)
    return base.mark_tick(color=theme.MUTED, thickness=1.4, width=26, clip=True)


def _chosen(effect: Effect, value: object, x: altair.X, y: altair.Y) -> altair.Chart:
    """Returns a ring around the value that is recommended."""
    frame = effect.points.dropna(subset=["mean"])
    if frame.empty:
        return chart_of([]).mark_point()
    nearest = frame.iloc[int((frame["position"] - effect.axis.position(value)).abs().argmin())]
    place = chart_of([{"x": nearest["position"], "y": nearest["mean"]}])
    ring = place.mark_point(size=150, color=theme.BEST, strokeWidth=2.4, opacity=1, clip=True)
    return ring.encode(x=x, y=y)
