"""The ten lines that end a study: the answer in plain words, and where the report is."""

import textwrap
from pathlib import Path

from finetune.analysis.answer import Answer

_LINES, _WIDTH = 10, 120
_FIRST_TO_GO = (
    "Note: ",
    "As good: ",
    "Tune together: ",
    "Among ",
    "Warning: ",
)  # begins of sentences that the report says too


def lines(answer: Answer, report: Path | None = None) -> list[str]:
    """Returns the headline in ten lines of 120 characters where it fits; what the report says too is left out first."""
    sentences = list(answer.headline)
    for begin in _FIRST_TO_GO:
        while len(_wrapped(sentences)) + (report is not None) > _LINES and any(
            each.startswith(begin) for each in sentences
        ):
            sentences.remove(next(each for each in reversed(sentences) if each.startswith(begin)))
    return [*_wrapped(sentences), f"Report: {report}"] if report is not None else _wrapped(sentences)


def _wrapped(sentences: list[str]) -> list[str]:
    """Returns the sentences in lines; a command, which is indented, stays whole so that it can be copied."""
    wrapped = []
    for sentence in sentences:
        whole = sentence.startswith(" ")
        fits = textwrap.wrap(sentence, _WIDTH, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
        wrapped += [sentence] if whole else fits
    return wrapped
