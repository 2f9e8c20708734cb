"""What a study has found, as rows and as a table."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from finetune.errors import UserError, one_of
from finetune.storage import records

if TYPE_CHECKING:  # the analysis takes a second to import
    from finetune.analysis.answer import Answer
    from finetune.analysis.setting import Setting


class Results(NamedTuple):
    """What a study has found so far."""

    workdir: Path
    trials: list[dict[str, Any]]  # rows of trials.jsonl, one for each assignment that was asked for, in that order

    @property
    def exit_status(self) -> int:
        """0 if all trials are done, 1 if some have failed."""
        return int(any(row["status"] == records.FAILED for row in self.trials))

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
            for row in records.completed(self.trials)
        )

    def curves(self) -> pd.DataFrame:
        """Returns one row an epoch of each of `trials`: id, epoch, step, train_loss, and what was validated."""
        from finetune.analysis.table.from_workdir import curves

        return curves(self.workdir, {row["id"] for row in self.trials})

    def answer(self) -> "Answer":
        """Returns the answer of the whole study: print it, or show it in a notebook."""
        from finetune.analysis.answer import analyse
        from finetune.analysis.table.trials import read_study

        return analyse(read_study(self.workdir))

    @property
    def best(self) -> "Setting":
        """The setting to use: values, mean, low and high (95 % interval), test, seeds, ids of its trials."""
        choice = self.answer().recommendation.choice
        if choice is None:
            raise UserError(f"no trial of {self.workdir} has a result, allowed: a study with one")
        return choice

    def params(self, trial: str | None = None) -> dict[str, Any]:
        """Returns the parameters of a trial at its best epoch, nested dicts of arrays, adapters merged.

        trial: its id; None for one of the best setting. Raises UserError for one whose weights were not kept:
        config.checkpoint.keep says of how many trials they are, config.checkpoint.trials names others.
        """
        from finetune.member.params import unflatten
        from finetune.models.weights import from_study
        from finetune.storage import checkpoint

        kept = [identity for identity, _ in checkpoint.kept(self.workdir)]
        if trial is None:
            trial = next((identity for identity in self.best.ids if identity in kept), self.best.ids[0])
        if trial not in kept:
            raise one_of("trial with weights", trial, kept)
        return unflatten(from_study.load_trial(self.workdir, trial))


def collect(workdir: Path, asked: Iterable[str], rows: Mapping[str, dict[str, Any]]) -> Results:
    """Returns the row of each trial in `asked`, as often as it is there; those that have none are left out."""
    return Results(workdir, [rows[identity] for identity in asked if identity in rows])
