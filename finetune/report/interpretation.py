"""How a table was read, where a reader sees it first: above the answer in the terminal and beside it on the page."""

import textwrap
from html import escape

from finetune.analysis.table import reading
from finetune.analysis.table.trials import Trials

_WIDTH = 120


def block(trials: Trials) -> str:
    """Returns the part of a page's first section that says how its table was read, "" for a study of ours."""
    if trials.reading is None or trials.provenance:
        return ""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(words)}</dd>" for name, words in reading.lines(trials.reading))
    return f'<div class="findings reading"><h2>How this table was read</h2><dl class="facts">{items}</dl></div>'


def lines(trials: Trials) -> list[str]:
    """Returns the same for the terminal: a heading, then two lines at most for each of its parts, and an empty line."""
    if trials.reading is None:
        return []
    said = [f"  {name}: {words}" for name, words in reading.lines(trials.reading)]
    wrapped = [
        line
        for each in said
        for line in textwrap.wrap(each, _WIDTH, subsequent_indent="    ", max_lines=2, break_on_hyphens=False)
    ]
    return ["How this table was read:", *wrapped, ""]
