"""The report of a study: report.html, figures as PNG and SVG, and ten lines for the terminal."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the analysis and the charts take a second to import
    from finetune.analysis.answer import Answer


def write(workdir: Path, refresh: int | None = None) -> "Answer":
    """Writes report.html and figures/ of a study into its work directory and returns the answer.

    refresh: seconds after which a browser reads the page again, while the study still runs; figures are written at its
    end. Raises UserError if the directory holds no trial that has ended.
    """
    from finetune.analysis import answer
    from finetune.analysis.table import trials
    from finetune.report import document

    found = answer.analyse(trials.read_study(workdir))
    document.write(found, Path(workdir), refresh)
    return found
