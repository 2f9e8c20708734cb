"""What halving has stopped, and how often that was wrong: trials that chance spared from it tell."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scipy import stats

from finetune.storage import records


class Stops(NamedTuple):
    """stopped: trials that ended on their way, of `trials` that halving has treated.

    spared: those that it would have stopped, had chance not made them the control; wrong: those of them that ended
    better than the best of those that went on.
    """

    trials: int
    stopped: int
    spared: int
    wrong: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the share of stops that are wrong (Clopper and Pearson 1934)."""
        if not self.spared:
            return 0.0, 1.0
        found = stats.binomtest(self.wrong, self.spared).proportion_ci(0.95, "exact")
        return float(found.low), float(found.high)


def stops(rows: Sequence[Mapping[str, Any]]) -> Stops | None:
    """Returns what halving did to the trials in rows of trials.jsonl; None where it has stopped none."""
    treated = [row for row in rows if row.get("halving")]
    stopped = sum(row["status"] == records.STOPPED for row in treated)
    if not stopped:
        return None
    went_on = [row["best"]["value"] for row in treated if row["best"] and not row["halving"]["out"]]
    spared = [row for row in treated if row["halving"]["out"] and row["status"] in records.DONE]
    best = max(went_on, default=float("inf"))
    wrong = sum(row["best"] is not None and row["best"]["value"] > best for row in spared)
    return Stops(len(treated), stopped, len(spared), wrong)
