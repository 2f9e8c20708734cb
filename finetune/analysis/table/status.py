"""How trials of others ended, in our words: what counts as a result, what as a failure, and what is not final."""

import pandas as pd

from finetune.errors import UserError
from finetune.storage import records

_UNFINISHED = (
    "running", "waiting", "pending", "queued", "created", "scheduled", "active", "inprogress", "staged", "candidate",
    "idle", "paused", "preempting", "requested", "suspended", "stopping", "unfinished", "incomplete", "false",
)  # fmt: skip
_STOPPED = (
    "stopped", "pruned", "killed", "canceled", "cancelled", "aborted", "abandoned", "preempted", "earlystopped",
    "terminatedearly", "timeout", "interrupted", "closed",
)  # fmt: skip
_FAILED = (
    "fail", "failed", "failure", "crashed", "crash", "error", "errored", "invalid", "infeasible", "oom", "outofmemory",
    "nodefail", "exception",
)  # fmt: skip
_COMPLETE = (
    "complete", "completed", "finished", "success", "succeeded", "successful", "done", "ok", "ended", "terminated",
    "published", "true",
)  # fmt: skip
_STATUS = {  # what others call it, letters only -> what we do
    **dict.fromkeys(_COMPLETE, records.COMPLETE),
    **dict.fromkeys((*_STOPPED, *_UNFINISHED), records.STOPPED),
    **dict.fromkeys(_FAILED, records.FAILED),
    **dict.fromkeys(("diverged", "diverging", "nan"), records.DIVERGED),
}
RUNNING = "still running"


def read(column: pd.Series, name: str) -> tuple[pd.Series, pd.Series]:
    """Returns (status of each trial; what was said of those that are not complete); raises UserError for other words.

    A trial without a status is complete where it has a result.
    """
    said = column.map(lambda cell: "" if pd.isna(cell) else str(cell).split(".")[-1])
    letters = said.str.lower().str.replace(r"[^a-z]", "", regex=True)
    unknown = said[(said != "") & ~letters.isin(_STATUS)]
    if len(unknown):
        raise UserError(
            f"{name} holds {unknown.iloc[0][:40]!r}, allowed: what became of a trial, such as finished, failed, pruned "
            f"or running; --ignore={name} reads the table without it"
        )
    why = said.str.lower().where(~letters.isin(_UNFINISHED), RUNNING)
    return letters.map(_STATUS).fillna(records.COMPLETE).astype(object), why.where(
        letters.map(_STATUS) != records.COMPLETE, ""
    )
