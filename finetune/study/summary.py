"""What a study has come to: summary.json, and the last lines on the screen."""

import resource
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.hosts.console import console
from finetune.storage import records
from finetune.study import seconds, workdir
from finetune.study.display import table_of_settings
from finetune.study.ledger import Ledger


def describe(
    ledger: Ledger, trials: int, groups: Sequence[Mapping[str, Any]], spent: Mapping[str, float], **counts: Any
) -> dict[str, Any]:
    """Returns what summary.json holds; `groups` are those that this run has trained."""
    rows = list(ledger.done.values())
    found = Counter(row["status"] for row in rows)
    return {
        "trials": trials,
        "complete": found[records.COMPLETE],
        "diverged": found[records.DIVERGED],
        "stopped": found[records.STOPPED],
        "failed": len(ledger.failed),
        **counts,
        "flops": sum(group["flops"] + group["trunk_flops"] for group in groups),
        "seconds": dict(spent),
        "disk_bytes": workdir.size_bytes(ledger.recorder.workdir),
        "process_bytes": peak_process_bytes(),
    }


def show_plan(file: Path, plan: Mapping[str, Any]) -> None:
    """Prints what the whole study of a plan will take; `file` is where it is written."""
    console.print(
        f"{seconds.in_words(plan['seconds_by_part'])}, {plan['process_bytes'] / 1e9:.2f} GB of memory, "
        f"{plan['disk_bytes'] / 1e6:.0f} MB on disk; the plan is in {file}"
    )


def show(ledger: Ledger, metric: str, larger_is_better: bool, spent: Mapping[str, float]) -> None:
    """Prints the best settings, how many trials there are, and where the time went."""
    rows, failed = list(ledger.done.values()), len(ledger.failed)
    if rows:
        console.print(table_of_settings(rows, metric, larger_is_better))
    found = Counter(row["status"] for row in rows)
    stopped = found[records.STOPPED]
    counts = f"{found[records.DIVERGED]} diverged" + (f", {stopped} stopped" if stopped else "")
    counts += f", {failed} failed" if failed else ""
    parts = ", ".join(f"{name} {value:.1f}" for name, value in spent.items())
    console.print(f"{len(rows)} trials ({counts}) in {ledger.recorder.workdir} · {sum(spent.values()):.0f} s: {parts}")


def peak_process_bytes() -> int:
    """Returns the most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # in bytes on macOS, else in units of 1024
