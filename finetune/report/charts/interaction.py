"""What depends on what: heat maps of two hyperparameters, the shift of the best rate, and where training diverges."""

from collections.abc import Iterable, Mapping
from typing import Any

import altair
import numpy as np
import pandas as pd

from finetune.analysis.answer import Answer
from finetune.analysis.interactions import Shift
from finetune.analysis.table.axis import Axis
from finetune.analysis.table.trials import Trials
from finetune.report import scale, theme
from finetune.report.figure import HEIGHT, Figure, chart_of

_MAPS = 6  # heat maps drawn, those of the largest shares first
_CELLS = 15  # columns with a number in each cell
_LONG = 60  # characters of labels beside each other; more are turned
_SHIFTS = 4  # of the best rate drawn, those that are sure first
_RATIO = 12.0  # of the rates that a chart shows at least
_ROW = 34  # pixels of a row of a heat map


def figures(answer: Answer) -> list[Figure]:
    """Returns the shifts of the best learning rate, then the heat maps of pairs."""
    axes = {axis.name: axis for axis in answer.trials.axes}
    known = [each for each in answer.shifts if each.points["best"].notna().any()]
    known.sort(key=lambda each: not each.evident)
    shifts = [_shift(axes, each) for each in known[:_SHIFTS]]
    weight = {
        frozenset(each.terms): each.share
        for each in (answer.anova.shares if answer.anova else ())
        if len(each.terms) > 1
    }
    pairs = sorted(answer.heat_maps, key=lambda pair: -weight.get(frozenset(pair), 0.0))[:_MAPS]
    if not pairs:
        return shifts
    domain = _colours(pd.concat([answer.heat_maps[pair]["mean"] for pair in pairs]), answer.trials.maximize)
    return shifts + [_heat_map(answer.trials, axes, pair, answer.heat_maps[pair], domain) for pair in pairs]


def divergence(answer: Answer) -> list[Figure]:
    """Returns the map of where runs diverged or failed, none if no run did."""
    trials = answer.trials
    lost = trials.frame["value"].isna()
    if not lost.any() or not trials.axes:
        return []
    binned = {axis.name: axis.bins(trials.frame[axis.name]) for axis in trials.axes}
    spread = {name: np.ptp(lost.groupby(values).mean()) for name, values in binned.items()}
    axes = sorted(trials.axes, key=lambda axis: -spread[axis.name])[:2]
    cells = lost.groupby([binned[axis.name] for axis in axes]).agg(["mean", "sum", "size"]).reset_index()
    return [_divergence(axes, cells.set_axis([*"xy"[: len(axes)], "mean", "sum", "size"], axis=1), float(lost.mean()))]


def _ordinal(axis: Axis, values: Iterable[Any], channel: type, field: str) -> Any:
    """Returns the encoding of cells: every value, or bin of values, takes the same room."""
    order = [scale.label(axis, value) for value in (sorted(set(values)) if axis.is_number else axis.values)]
    if channel is altair.Y and axis.is_number:
        order = order[::-1]
    turned = -40 if channel is altair.X and sum(map(len, order)) > _LONG else 0
    ticks = altair.Axis(labelOverlap="greedy", labelLimit=120, domain=False, ticks=False, labelAngle=turned)
    return channel(field=field, type="nominal", sort=order, title=axis.name, axis=ticks)


def _heat_map(
    trials: Trials, axes: Mapping[str, Axis], pair: tuple[str, str], table: pd.DataFrame, domain: list[float]
) -> Figure:
    first, second = axes[pair[0]], axes[pair[1]]
    x, y = ([scale.label(axis, value) for value in table[name]] for axis, name in ((first, "a"), (second, "b")))
    frame = table.assign(x=x, y=y)
    chart = altair.layer(*_map_layers(trials, frame, domain, first, second))
    title = f"{pair[0]} × {pair[1]}"
    if frame["mean"].notna().any():
        best = frame.loc[(frame["mean"] if trials.maximize else -frame["mean"]).idxmax()]
        title += f": best seen at {best['x']} and {best['y']}"
    rows = max(frame["y"].nunique(), 2)
    note = "Mean over the other hyperparameters and seeds; darker is better, on one scale for all maps."
    return Figure(f"map_{pair[0]}_{pair[1]}", "interactions", title, note, chart.properties(height=_ROW * rows))


def _colours(values: pd.Series, maximize: bool) -> list[float]:
    """Returns the values of the palest and the darkest colour; all that is much worse than the median is pale."""
    low, high = scale.visible(values, maximize)
    finite = values.dropna()
    low, high = max(low, finite.min()), min(high, finite.max())
    return [low, high] if maximize else [high, low]


def _map_layers(
    trials: Trials, frame: pd.DataFrame, domain: list[float], first: Axis, second: Axis
) -> list[altair.Chart]:
    form = scale.digits(trials.frame["value"])
    middle = 0.45 * domain[0] + 0.55 * domain[1]
    sign = 1 if trials.maximize else -1
    frame = frame.assign(text=[f"{value:{form}}" if np.isfinite(value) else "×" for value in frame["mean"]])
    frame["shade"] = np.where(sign * (frame["mean"] - middle) > 0, "dark", "pale")
    base = chart_of(frame.drop(columns=["a", "b"])).encode(
        x=_ordinal(first, frame["a"], altair.X, "x"), y=_ordinal(second, frame["b"], altair.Y, "y")
    )
    lines = scale.tooltip(
        ("x", first.name, None),
        ("y", second.name, None),
        ("mean", "mean", form),
        ("best", "best", form),
        ("n", "runs", ".0f"),
        ("diverged", "diverged", ".0%"),
    )
    colour = altair.Color(
        field="mean",
        type="quantitative",
        legend=None,
        scale=altair.Scale(
            domain=sorted(domain), scheme=theme.QUALITY, clamp=True, reverse=not trials.maximize, zero=False
        ),
    )
    layers = [base.mark_rect(stroke=theme.PAPER, strokeWidth=2, cornerRadius=2).encode(color=colour, tooltip=lines)]
    if frame["x"].nunique() <= _CELLS:
        ink = scale.colours({"dark": "#ffffff", "pale": "#1b2128"}, "shade")
        layers.append(base.mark_text(fontSize=10).encode(text=altair.Text(field="text", type="nominal"), color=ink))
    return layers


def _shift(axes: Mapping[str, Axis], shift: Shift) -> Figure:
    rate, by = axes[shift.rate], axes[shift.by]
    points = shift.points.dropna(subset=["best"])
    columns = {
        "x": by.positions(points["value"]),
        "setting": [scale.label(by, value) for value in points["value"]],
        "y": points["best"],
        "low": points["low"],
        "high": points["high"],
    }
    base = chart_of(pd.DataFrame(columns)).encode(x=scale.of_axis(by, title=by.name))
    lines = scale.tooltip(
        ("setting", by.name, None),
        ("y", f"best {rate.name}", ".2~e"),
        ("low", "95 % from", ".2~e"),
        ("high", "to", ".2~e"),
    )
    low, high = float(np.nanmin(points[["low", "best"]])), float(np.nanmax(points[["high", "best"]]))
    room = max(1.2, (_RATIO * low / high) ** 0.5)
    y_scale = altair.Scale(type="log", domain=[low / room, high * room], nice=False)
    ticks = altair.Axis(values=scale.round_numbers(low / room, high * room), format=".0~e", grid=True)
    y = altair.Y(field="y", type="quantitative", title=f"best {rate.name}", scale=y_scale, axis=ticks)
    bars = base.mark_rule(color=theme.ACCENT, strokeWidth=2).encode(**scale.interval(y_scale, "y"))
    dots = base.mark_point(filled=True, size=60, color=theme.ACCENT, opacity=1).encode(y=y, tooltip=lines)
    line = base.mark_line(color=theme.ACCENT, strokeDash=[4, 3], strokeWidth=1.4).encode(y=y)
    layers = [line, bars, dots] if by.is_number else [bars, dots]
    chart = altair.layer(*layers).properties(height=HEIGHT)
    return Figure(f"shift_{rate.name}_{by.name}", "interactions", shift_message(shift), shift_note(shift), chart)


def shift_message(shift: Shift) -> str:
    """Returns how far the best learning rate moves."""
    if not shift.evident:
        return f"The best {shift.rate} does not move with {shift.by} beyond chance"
    return f"The best {shift.rate} moves by {_signed(shift.octaves)} octaves along {shift.by}"


def _signed(octaves: float) -> str:
    return f"{round(octaves, 1) + 0.0:+.1f}"


def shift_note(shift: Shift) -> str:
    """Returns the interval of a shift, and the exponent where there is one."""
    ends = f"{_signed(shift.low)} to {_signed(shift.high)}"
    note = f"From its first to its last value: {_signed(shift.octaves)} octaves (95 %: {ends})."
    if shift.exponent is None:
        return note
    return f"{note} Exponent of the best rate against {shift.by}: {shift.exponent:+.2f}."


def _divergence(axes: list[Axis], cells: pd.DataFrame, share: float) -> Figure:
    places = [
        _ordinal(axis, cells[name], channel, name)
        for axis, name, channel in zip(axes, "xy", (altair.X, altair.Y), strict=False)
    ]
    for name, axis in zip("xy", axes, strict=False):
        cells[name] = [scale.label(axis, value) for value in cells[name]]
    cells["text"] = [f"{100 * value:.0f} %" if value else "" for value in cells["mean"]]
    lines = scale.tooltip(
        *((channel, axis.name, None) for channel, axis in zip("xy", axes, strict=False)),
        ("sum", "diverged or failed", ".0f"),
        ("size", "of runs", ".0f"),
    )
    base = chart_of(cells).encode(*places)
    opacity = altair.Opacity(
        field="mean", type="quantitative", legend=None, scale=altair.Scale(domain=[0, 1], range=[0.06, 0.9])
    )
    rect = base.mark_rect(color=theme.BAD, stroke=theme.PAPER, strokeWidth=2, cornerRadius=2)
    layers = [rect.encode(opacity=opacity, tooltip=lines)]
    if cells["x"].nunique() <= _CELLS:
        layers.append(base.mark_text(fontSize=10).encode(text=altair.Text(field="text", type="nominal")))
    rows = cells["y"].nunique() if len(axes) > 1 else 1
    chart = altair.layer(*layers).properties(height=max(2, rows) * _ROW)
    lost = cells[cells["mean"] > 0]
    title = f"{100 * share:.2g} % of runs diverged or failed"
    if len(lost) < len(cells):
        title += f", in {len(lost)} of {len(cells)} cells"
    return Figure("divergence", "training", title, "Share of runs that diverged or failed in each cell.", chart)
