"""How the experiments say and draw what they found."""

import json
from collections.abc import Iterable
from pathlib import Path

import altair
import numpy as np
import pandas as pd
import vl_convert
from absl import flags
from scipy import stats

from finetune.analysis.interactions import Shift
from finetune.analysis.table.trials import Trials
from finetune.report import figure, theme

TOLERANCE = flags.DEFINE_float("tolerance", 0.01, "accuracy below the best that still counts as good", lower_bound=0)
_FIGURES = flags.DEFINE_string("figures", str(Path(__file__).parent / "figures"), "the directory of the figure")
_WIDTH, _HEIGHT = 300, 220  # pixels of a panel


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Returns the mean of values over seeds with its 95 % t-interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    mean = float(np.mean(values))
    return mean, mean - float(half), mean + float(half)


def words(found: Iterable[float], form: str = ".3f") -> str:
    """Returns (mean, low, high) as text."""
    mean, low, high = (f"{value:{form}}" for value in found)
    return f"{mean} (95 % {low} to {high})"


def gain(trials: Trials, chosen: dict[str, object], base: dict[str, object]) -> tuple[float, float, float]:
    """Returns how much better `chosen` is than `base` on the test split, paired by seed, with its 95 % interval."""
    first, second = (tests(trials, values) for values in (chosen, base))
    return interval((first - second).dropna().to_numpy())


def tests(trials: Trials, values: dict[str, object]) -> pd.Series:
    """Returns the metric on the test split of a setting by seed."""
    rows = trials.frame[np.all([trials.frame[name] == value for name, value in values.items()], axis=0)]
    return rows.set_index("seed")["test"]


def moves(shift: Shift) -> str:
    """Returns how the best rate moves as text, and whether an edge of the grid hides how far."""
    points = shift.points
    edge = ", with a best rate at the edge of the grid" if points["at_edge"].any() else ""
    return (
        f"from {points['best'].iloc[0]:.2g} at {shift.by} {points['value'].iloc[0]:g} to "
        f"{points['best'].iloc[-1]:.2g} at {points['value'].iloc[-1]:g}: "
        f"{words((shift.octaves, shift.low, shift.high), '+.1f')} octaves{edge}"
    )


def lines(frame: pd.DataFrame, x: str, y: str, colour: str, log_y: bool = False) -> altair.FacetChart:
    """Returns a panel for each value of frame["panel"]: mean with its band low to high along x, a line a colour."""
    kinds = list(dict.fromkeys(frame[colour]))
    numbers = not isinstance(kinds[0], str)
    colours = altair.Color(
        f"{colour}:N", sort=kinds, scale=altair.Scale(domain=kinds, range=theme.steps(len(kinds), numbers))
    )
    ticks = altair.Axis(values=sorted(set(frame["x"])), format=".3~r", labelOverlap="greedy", labelSeparation=4)
    horizontal = altair.X("x:Q", title=x, scale=altair.Scale(type="log", nice=False), axis=ticks)
    vertical = altair.Scale(type="log") if log_y else altair.Scale(zero=False)
    base = altair.Chart().encode(x=horizontal, color=colours)
    band = base.mark_area(opacity=0.15).encode(y=altair.Y("low:Q", scale=vertical, title=y), y2="high:Q")
    line = base.mark_line(strokeWidth=2, point=altair.OverlayMarkDef(size=22)).encode(
        y=altair.Y("mean:Q", scale=vertical, title=y)
    )
    return panels(altair.layer(band, line), frame)


def panels(chart: altair.LayerChart | altair.Chart, frame: pd.DataFrame) -> altair.FacetChart:
    """Returns a chart once for each value of frame["panel"], in order, side by side."""
    names = list(dict.fromkeys(frame["panel"]))
    header = altair.Header(title=None, labelFontSize=12)
    rows = figure.chart_of(frame).data
    return (
        chart.properties(width=_WIDTH, height=_HEIGHT, data=rows)
        .facet(column=altair.Column("panel:N", sort=names, header=header))
        .resolve_scale(x="independent", y="independent")
    )


def save(chart: altair.FacetChart, experiment: str, title: str) -> None:
    """Writes the figure of an experiment, and says where."""
    path = Path(_FIGURES.value) / f"{experiment}.svg"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = chart.properties(title=title).to_dict() | {"config": theme.config(), "padding": 12}
    specification = json.loads(theme.in_colours(document))
    path.write_text(vl_convert.vegalite_to_svg(specification, vl_version=figure.vega_lite_version()), encoding="utf-8")
    print(f"figure: {path}")
