"""All runs: what quality costs, and where good runs pass."""

import altair
import numpy as np
import pandas as pd

from finetune.analysis.answer import Answer
from finetune.analysis.table.trials import Trials
from finetune.report import scale, theme
from finetune.report.figure import HEIGHT, Figure, chart_of

_POINTS = 1500  # points of the Pareto chart
_LINES = 250  # runs of the parallel axes
_AXES = 12  # parallel axes
_AXIS_ROW = 72  # pixels between parallel axes


def cost(answer: Answer) -> list[Figure]:
    """Returns quality against cost with the front that nothing beats, none if the cost is unknown or one for all."""
    trials, table = answer.trials, answer.pareto
    if table is None or table.empty:
        return []
    table = table.dropna(subset=["cost", "value"])
    if table["cost"].nunique() < 2:
        return []
    unit = str(table["unit"].iloc[0])
    front = table[table["on_front"]].sort_values("cost")
    rest = table[~table["on_front"]]
    rest = rest.sample(_POINTS, random_state=0) if len(rest) > _POINTS else rest
    chart = altair.layer(*_cost_layers(trials, rest, front, unit)).properties(height=HEIGHT)
    title = f"{len(front)} run{'s' * (len(front) > 1)} no other beats in both quality and cost"
    return [Figure("pareto", "cost", title, "Vermilion: the Pareto front.", chart)]


def _cost_layers(trials: Trials, rest: pd.DataFrame, front: pd.DataFrame, unit: str) -> list[altair.Chart]:
    every = pd.concat([rest, front])
    form = scale.digits(trials.frame["value"])
    wide = every["cost"].min() > 0 and every["cost"].max() > 8 * every["cost"].min()
    limits = altair.Scale(type="log", nice=True) if wide else altair.Scale(nice=True, zero=False)
    x = altair.X(
        field="cost",
        type="quantitative",
        title=unit,
        scale=limits,
        axis=altair.Axis(tickCount=5, format="~s", labelOverlap=True),
    )
    y = scale.of_metric(trials, scale.visible(every["value"], trials.maximize), "value")
    lines = scale.tooltip(
        ("setting", "setting", None), ("value", trials.metric, form), ("cost", unit, ".4~s"), ("id", "id", None)
    )
    layers = []
    for part, colour, size, opacity in ((rest, theme.RUN, 22, 0.5), (front, theme.BEST, 60, 1.0)):
        labelled = part[["id", "cost", "value"]].assign(
            setting=[scale.setting(trials, row) for row in part.to_dict("records")]
        )
        base = chart_of(labelled).encode(x=x, y=y)
        if colour == theme.BEST:
            layers.append(base.mark_line(color=colour, interpolate="step-after", strokeWidth=1.6, clip=True))
        points = base.mark_point(filled=True, color=colour, size=size, opacity=1, fillOpacity=opacity, clip=True)
        layers.append(points.encode(tooltip=lines))
    return layers


def parallel(answer: Answer) -> list[Figure]:
    """Returns all runs as lines across the hyperparameters, one row an axis so that names stay readable on a phone."""
    trials = answer.trials
    axes = list(trials.axes)[:_AXES]
    frame = scale.drawn(trials.frame.dropna(subset=["value"]), _LINES)
    if len(axes) < 2 or frame.empty:
        return []
    places, marks = _places(trials, axes, frame)
    good = frame["utility"] >= frame["utility"].quantile(0.9)
    best = set(answer.recommendation.best.ids) if answer.recommendation.best else set()
    kinds = dict(zip(frame["id"], np.where(frame["id"].isin(best), "best", np.where(good, "good", "run")), strict=True))
    lines = pd.concat(places)
    order = [axis.name for axis in axes] + [trials.metric]
    lines["kind"], lines["rank"] = lines["id"].map(kinds), lines["axis"].map(order.index)
    chart = altair.layer(*_parallel_layers(trials, lines, marks, order)).properties(
        height=_AXIS_ROW * (len(order) - 1) + 30
    )
    note = "A line a run. Vermilion: the best setting; blue: the best tenth of runs."
    note = f"{note} {scale.drawn_note(trials.frame, _LINES)}".strip()
    return [Figure("parallel", "runs", "Where good runs pass, and where no good run passes", note, chart, wide=True)]


def _places(trials: Trials, axes: list, frame: pd.DataFrame) -> tuple[list[pd.DataFrame], pd.DataFrame]:
    """Returns where each run crosses each axis (0 to 1), and the labels of the axes."""
    random, places, marks = np.random.default_rng(0), [], []
    for axis in axes:
        low, width = min(axis.positions(axis.values)), np.ptp(axis.positions(axis.values)) or 1.0
        spot = (axis.positions(frame[axis.name]) - low) / width
        spread = 0.022 if len(axis.values) <= 12 else 0.0
        spot = spot + random.uniform(-spread, spread, len(frame))
        places.append(pd.DataFrame({"id": frame["id"], "axis": axis.name, "x": spot, "value": frame["value"]}))
        shown = axis.values if len(axis.values) <= 8 else (axis.values[0], axis.values[-1])
        marks += [
            {"axis": axis.name, "x": (axis.position(value) - low) / width, "text": scale.label(axis, value)}
            for value in shown
        ]
    low, high = scale.visible(frame["value"], trials.maximize)
    spot = ((frame["value"] - low) / (high - low)).clip(0, 1)
    places.append(pd.DataFrame({"id": frame["id"], "axis": trials.metric, "x": spot, "value": frame["value"]}))
    form = scale.digits(trials.frame["value"])
    marks += [{"axis": trials.metric, "x": end, "text": f"{level:{form}}"} for end, level in ((0, low), (1, high))]
    return places, pd.DataFrame(marks)


def _parallel_layers(trials: Trials, lines: pd.DataFrame, marks: pd.DataFrame, order: list[str]) -> list[altair.Chart]:
    axis = altair.Axis(title=None, labelColor=theme.INK, labelLimit=110, grid=True)
    y = altair.Y(field="axis", type="nominal", sort=order, scale=altair.Scale(type="point", padding=0.3), axis=axis)
    x = altair.X(field="x", type="quantitative", axis=None, scale=altair.Scale(domain=[-0.05, 1.05], nice=False))
    form = scale.digits(trials.frame["value"])
    layers = []
    for kind, colour, width, opacity in (
        ("run", theme.RUN, 1.0, 0.16),
        ("good", theme.ACCENT, 1.3, 0.55),
        ("best", theme.BEST, 1.8, 1.0),
    ):
        part = lines[lines["kind"] == kind]
        base = chart_of(part[["id", "axis", "rank", "x", "value"]])
        layers.append(
            base.mark_line(color=colour, strokeWidth=width, strokeOpacity=opacity).encode(
                x=x,
                y=y,
                order=altair.Order(field="rank", type="quantitative"),
                detail=altair.Detail(field="id", type="nominal"),
                tooltip=scale.tooltip(("id", "id", None), ("value", trials.metric, form)),
            )
        )
    texts = chart_of(marks).mark_text(dy=13, fontSize=11)
    texts = texts.encode(x=x, y=y, text=altair.Text(field="text", type="nominal"))
    halo = {"stroke": theme.PAPER, "strokeWidth": 4, "strokeJoin": "round"}
    return [*layers, texts.mark_text(dy=13, fontSize=11, **halo), texts]
