"""The ten lines that end a study: the answer in plain words, and where the report is."""

import textwrap
from pathlib import Path

from finetune.analysis.answer import Answer
from finetune.analysis.finding import NOTE, WARNING
from finetune.analysis.headline import COMMAND, GOOD, TIED, TOGETHER, Line

_LINES, _WIDTH = 10, 120
_FIRST_TO_GO = (NOTE, TIED, TOGETHER, GOOD, WARNING)  # the report says these too


def lines(answer: Answer, report: Path | None = None) -> list[str]:
    """Returns the headline in ten lines of 120 characters where it fits; what the report says too is left out first."""
    said = list(answer.lines)
    last = [f"Report: {report}"] if report is not None else []
    for kind in _FIRST_TO_GO:
        for line in [each for each in reversed(said) if each.kind == kind]:
            if len(_wrapped(said)) + len(last) > _LINES:
                said.remove(line)
    return [*_wrapped(said), *last]


def _wrapped(said: list[Line]) -> list[str]:
    """Returns the headline in lines that fit; a command stays whole so that it can be copied."""
    wrapped = []
    for line in said:
        fits = textwrap.wrap(str(line), _WIDTH, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
        wrapped += [str(line)] if line.kind == COMMAND else fits
    return wrapped
