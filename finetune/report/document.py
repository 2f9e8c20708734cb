"""Writes what a reader opens: report.html in one step, so that no reader sees half of it, and the figures beside it."""

import os
from pathlib import Path

from finetune.analysis.answer import Answer
from finetune.errors import UserError
from finetune.report import charts, figure, page


def write(answer: Answer, directory: Path, refresh: int | None = None) -> Path:
    """Writes report.html and, unless it is to be refreshed, figures/*.png and *.svg; returns the path of the page."""
    figures = charts.figures(answer)
    path = replace(directory / "report.html", page.render(answer, figures, refresh))
    if refresh is None:
        figure.save(figures, directory / "figures")
    return path


def replace(path: Path, text: str) -> Path:
    """Writes a file in one step; raises UserError if that cannot be."""
    temporary = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}), allowed: a directory to write to") from None
    return path
