"""What a study has found, as rows and as a table."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from finetune.storage import records


class Results(NamedTuple):
    """What a study has found so far."""

    workdir: Path
    trials: list[dict[str, Any]]  # rows of trials.jsonl, one for each assignment that was asked for, in that order

    @property
    def exit_status(self) -> int:
        """0 if all trials are done, 1 if some have failed."""
        return int(any(row["status"] not in records.DONE for row in self.trials))

    def table(self) -> pd.DataFrame:
        """Returns one row for each of `trials`: id, hyperparameters, status, metrics, best_epoch, steps, reason."""
        return pd.DataFrame(
            {
                "id": row["id"],
                **row["hparams"],
                "status": row["status"],
                **row["metrics"],
                "best_epoch": row["best"]["epoch"] if row["best"] else None,
                "steps": row["steps"],
                "reason": row["reason"],
            }
            for row in self.trials
        )


def collect(workdir: Path, asked: Iterable[str], rows: Mapping[str, dict[str, Any]]) -> Results:
    """Returns the row of each trial in `asked`, as often as it is there; those that have none are left out."""
    return Results(workdir, [rows[identity] for identity in asked if identity in rows])
