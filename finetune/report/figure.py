"""A figure: one chart whose title is its message, drawn in the page and as PNG and SVG files."""

import dataclasses
import functools
import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import altair
import pandas as pd
import vl_convert

from finetune.errors import UserError
from finetune.report import theme
from finetune.report.library import vega_lite_version
from finetune.storage import files

WIDTH, HEIGHT = 460, 240  # pixels of a chart in a file; in the page the width follows the screen
_SCALE = 2.0  # pixels of a PNG for one of the chart
_LINE = 74  # characters of a title in a file


@dataclasses.dataclass(frozen=True)
class Figure:
    """A chart with its message."""

    name: str  # of the files, such as effect_learning_rate
    section: str  # of the page
    title: str  # the message, a sentence
    note: str  # how to read it, or what is left out
    chart: altair.Chart | altair.LayerChart | altair.FacetChart
    wide: bool = False  # takes the whole width of the page

    @functools.cached_property
    def _drawing(self) -> dict[str, Any]:
        """The chart as Vega-Lite; altair has checked its parts as they were made, and a test checks the whole."""
        return self.chart.to_dict(validate=False)

    def specification(self) -> dict[str, Any]:
        """Returns the chart as Vega-Lite for the page: as wide as its place, colours by CSS variables."""
        place = {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
        return (
            {name: part for name, part in self._drawing.items() if name != "$schema"}
            | {"config": theme.config()}
            | place
        )

    def for_file(self) -> str:
        """Returns the chart as Vega-Lite JSON with a width, colours and its title."""
        title = {"text": _wrapped(self.title), "subtitle": _wrapped(self.note)}
        place = {"width": WIDTH * (2 if self.wide else 1), "title": title, "padding": 12}
        return theme.in_colours(self._drawing | {"config": theme.config()} | place)


class _Rows(altair.InlineData):
    """The data of a chart, which no copy of the chart copies: altair copies a chart for every property it is given."""

    _class_is_valid_at_instantiation = False  # altair then checks the chart, not every value of every row

    def __deepcopy__(self, memo: Any) -> "_Rows":
        return self


def chart_of(rows: Iterable[dict[str, Any]] | pd.DataFrame) -> altair.Chart:
    """Returns the chart of some rows as data: JSON holds no NaN, and seven digits are more than a screen shows."""
    rows = rows.to_dict("records") if isinstance(rows, pd.DataFrame) else rows
    return altair.Chart(_Rows(values=[{name: _plain(value) for name, value in row.items()} for row in rows]))


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return float(f"{value:.7g}") if abs(value) < float("inf") else None
    return value


def _wrapped(text: str) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) >= _LINE:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    return [*lines, line]


def save(figures: Sequence[Figure], directory: Path) -> None:
    """Writes every figure as NAME.png and NAME.svg, without a browser; raises UserError if that cannot be."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda figure: _save(figure, directory), figures))
    except OSError as error:
        raise UserError(f"{directory} cannot be written ({error.strerror}), allowed: a directory to write to") from None


def _save(figure: Figure, directory: Path) -> None:
    path = directory / file_name(figure)
    svg = vl_convert.vegalite_to_svg(json.loads(figure.for_file()), vl_version=vega_lite_version())
    files.replace(path.with_suffix(".svg"), svg)
    files.replace(path.with_suffix(".png"), vl_convert.svg_to_png(svg, scale=_SCALE))


def file_name(figure: Figure) -> str:
    """Returns the name of a figure's files, without a suffix and without characters that a file name cannot have."""
    return re.sub(r"[^\w-]+", "_", figure.name)
