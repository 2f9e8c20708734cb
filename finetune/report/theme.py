"""How the charts look: one palette for light and one for dark, as the style sheet of the page and as colours of files.

A chart names its colours by CSS variables. In the page they follow the reader's light or dark setting; in a PNG or SVG
file they are replaced by the light ones. Blue and vermilion are safe for colour-blind readers (Okabe and Ito, 2008).
"""

import json
from typing import Any, Literal

LIGHT = {
    "paper": "#ffffff",
    "panel": "#f6f7f9",
    "ink": "#1b2128",
    "muted": "#5d6772",
    "rule": "#dfe3e8",
    "run": "#8b95a1",
    "accent": "#0b63a8",
    "best": "#b54708",
    "bad": "#a3195b",
}
DARK = {
    "paper": "#14181d",
    "panel": "#1c2229",
    "ink": "#e8ecf0",
    "muted": "#9aa5b1",
    "rule": "#313942",
    "run": "#7c8793",
    "accent": "#6db4f2",
    "best": "#ff9a57",
    "bad": "#f279b2",
}
INK, MUTED, RULE, RUN, PAPER = (f"var(--{name})" for name in ("ink", "muted", "rule", "run", "paper"))
ACCENT, BEST, BAD = (f"var(--{name})" for name in ("accent", "best", "bad"))
STANDING = {"best": BEST, "tied": ACCENT, "other": RUN}  # of settings: tied may be the best
QUALITY: Literal["yellowgreenblue"] = (
    "yellowgreenblue"  # light for bad, dark for good; even in lightness, and safe for colour-blind readers
)
_CATEGORIES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8b95a1"]
_RAMP = ["#5a3d9a", "#4660b4", "#2f81b7", "#1f9ca8", "#35b08c", "#6fbf62", "#a9c13c", "#dcb52a"]
FONT = '-apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


def variables() -> str:
    """Returns the palette as CSS: light, dark where the reader prefers it, and light again on paper."""
    light, dark = (
        "".join(f"--{name}:{value};" for name, value in palette.items()) + f"color-scheme:{scheme}"
        for palette, scheme in ((LIGHT, "light"), (DARK, "dark"))
    )
    return f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}:root{{--font:{FONT}}}"


def config() -> dict[str, Any]:
    """Returns the Vega-Lite config that all charts share."""
    axis = {
        "labelColor": MUTED,
        "titleColor": MUTED,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "domainColor": RULE,
        "tickColor": RULE,
        "gridColor": RULE,
        "gridOpacity": 0.7,
        "tickSize": 4,
        "labelPadding": 4,
    }
    text = {"labelColor": MUTED, "titleColor": MUTED, "labelFontSize": 11, "titleFontSize": 11}
    return {
        "font": FONT,
        "background": "transparent",
        "view": {"stroke": None},
        "axis": axis,
        "axisX": {"grid": False},
        "axisY": {"domain": False, "ticks": False},
        "legend": text | {"titleFontWeight": "normal", "orient": "top", "symbolStrokeWidth": 2, "symbolOpacity": 1},
        "text": {"color": INK, "fontSize": 11},
        "title": {"color": INK, "anchor": "start", "fontSize": 13, "offset": 10, "subtitleColor": MUTED},
    }


def in_colours(chart: dict[str, Any]) -> str:
    """Returns a chart as JSON with the light palette in place of CSS variables, for a file of its own."""
    text = json.dumps(chart | {"background": LIGHT["paper"]})
    for name, value in LIGHT.items():
        text = text.replace(f"var(--{name})", value)
    return text


def steps(count: int, ordered: bool) -> list[str]:
    """Returns `count` colours that are told apart: blue to yellow for numbers, Okabe and Ito's for categories."""
    if not ordered:
        return (_CATEGORIES * (count // len(_CATEGORIES) + 1))[:count]
    return [_RAMP[round(index * (len(_RAMP) - 1) / max(1, count - 1))] for index in range(count)]
