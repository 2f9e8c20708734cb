"""What a user of Python calls beside `run`: a plan, an earlier study, and the answer to any table."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.config import Config
from finetune.errors import UserError
from finetune.storage import records
from finetune.study.results import Results
from finetune.study.run import run

if TYPE_CHECKING:  # the analysis takes a second to import
    import pandas as pd

    from finetune.analysis.answer import Answer


def plan(
    config: Config, workdir: str | Path, grid: Mapping[str, Iterable[Any]] | None = None, **more: Any
) -> dict[str, Any]:
    """Returns what a study would take, measured on two steps of each group; nothing is trained.

    Arguments and errors are those of `run`; what is returned is plan.json: trials, seconds, process_bytes, disk_bytes,
    and groups, each with its mode, its chunks, and how its frozen part is computed and why.
    """
    return records.read_document(run(config, workdir, grid, plan_only=True, **more).workdir / "plan.json")


def read(workdir: str | Path) -> Results:
    """Returns the results of a study, in the order in which trials ended; raises UserError where there is none."""
    directory = Path(workdir)
    if not (directory / "config.json").is_file():
        raise UserError(f"workdir is {str(workdir)!r}, allowed: the work directory of a study")
    return Results(directory, records.read_trials(directory))


def analyse(
    frame: "pd.DataFrame",
    metric: str,
    *,
    minimize: bool | None = None,
    hyperparameters: Iterable[str] | None = None,
    ignore: Iterable[str] = (),
    seed_column: str | None = None,
    worth: float | None = None,
) -> "Answer":
    """Returns the answer to a table with one row a trial, wherever it comes from.

    metric: its column; minimize: whether less is better, None to follow its name. hyperparameters, ignore, seed_column:
    what columns are, where names and values do not tell it. worth: the smallest difference that matters in practice.
    Raises UserError where rows cannot be read as trials.
    """
    from finetune.analysis import answer
    from finetune.analysis.table import columns, foreign, trials

    asked = columns.Asked(None if hyperparameters is None else tuple(hyperparameters), tuple(ignore), seed_column)
    table = foreign.Table(frame.rename(columns=str), {}, [], {}, None)
    return answer.analyse(trials.from_table(table, metric, minimize, "table", asked), worth)
