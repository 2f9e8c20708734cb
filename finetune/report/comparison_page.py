"""comparison.html: several studies in one page, in the frame of a report."""

from html import escape
from pathlib import Path

import numpy as np

from finetune.report import document, figure, page, provenance, scale, tables
from finetune.report.charts import comparing
from finetune.report.comparison import Comparison


def write(compared: Comparison, directory: Path) -> Path:
    """Writes comparison.html and figures/*.png and *.svg; returns the path of the page."""
    figures = comparing.figures(compared)
    path = document.replace(directory / "comparison.html", render(compared, figures))
    figure.save(figures, directory / "figures")
    return path


def render(compared: Comparison, figures: list[figure.Figure]) -> str:
    """Returns the page: sentences, a table of the studies, what sets them apart, charts, all runs."""
    runs = tables.columns_of_all(compared.answers, compared.names)
    sentences = "".join(f"<p>{page.text(sentence)}</p>" for sentence in compared.sentences)
    drawn = "".join(page.figure_place(index, each) for index, each in enumerate(figures))
    sources = "".join(provenance.section(answer.trials) for answer in compared.answers)
    body = (
        f'<section id="answer"><div class="sentences">{sentences}</div></section>'
        f'<section id="studies"><h2>The studies</h2>{_studies(compared)}</section>'
        f'<section id="charts-of-studies"><h2>Side by side</h2><div class="figures two">{drawn}</div></section>'
        f'<section id="runs"><h2>All runs</h2>{tables.place(runs)}</section>{sources}'
    )
    about = escape(f"{len(compared.names)} studies · {scale.metric_name(compared.answers[0].trials)}")
    return page.fill(title=" and ".join(compared.names), about=about, body=body, figures=figures, runs=runs)


def _studies(compared: Comparison) -> str:
    """Returns a table with a row for each study: its best setting, and what sets it apart."""
    heads = ["study", "runs", "diverged", "best setting", "mean", "95 %", "test", *compared.differing]
    rows = "".join(f"<tr>{tables.cells(_row(compared, index), 'td')}</tr>" for index in range(len(compared.names)))
    head = f"<thead><tr>{tables.cells(heads, 'th')}</tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div>'


def _row(compared: Comparison, index: int) -> list[str]:
    answer = compared.answers[index]
    trials, best = answer.trials, answer.recommendation.best
    form = scale.digits(trials.frame["value"])
    cells = [compared.names[index], f"{len(trials.frame):,}", f"{100 * trials.frame['value'].isna().mean():.0f} %"]
    if best is None:
        cells += ["-"] * 4
    else:
        setting = ", ".join(f"{axis.name} {scale.label(axis, best.values[axis.name])}" for axis in trials.axes)
        test = best.test if best.test is not None and np.isfinite(best.test) else None
        cells += [setting, f"{best.mean:{form}}", f"{best.low:{form}} to {best.high:{form}}"]
        cells.append("-" if test is None else f"{test:{form}}")
    return [*cells, *(str(values[index]) for values in compared.differing.values())]
