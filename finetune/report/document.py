"""Writes what a reader opens: report.html in one step, so that no reader sees half of it, and the figures beside it."""

from pathlib import Path

from finetune.analysis.answer import Answer
from finetune.errors import UserError
from finetune.report import charts, figure, page
from finetune.storage import files


def write(answer: Answer, directory: Path, refresh: int | None = None) -> Path:
    """Writes report.html and, unless it is to be refreshed, figures/*.png and *.svg; returns the path of the page."""
    figures = charts.figures(answer)
    path = replace(directory / "report.html", page.render(answer, figures, refresh))
    if refresh is None:
        figure.save(figures, directory / "figures")
    return path


def replace(path: Path, content: str | bytes) -> Path:
    """Writes a file in one step; raises UserError if that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}), allowed: a directory to write to") from None
    return path
