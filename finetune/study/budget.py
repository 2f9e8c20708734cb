"""The minutes of a search: what it has spent, in this run of the command and in those before, and what still fits."""

import time
from pathlib import Path

from finetune.errors import UserError
from finetune.storage import records

_FIELD = "spent"  # of search.json: the waves that are done, and the seconds that they took
_MOST_MINUTES = 60.0 * 24 * 365


class Budget:
    """The time of a search whose `file` is search.json; minutes: None for as long as it takes."""

    def __init__(self, minutes: float | None, file: Path):
        self.minutes, self._file = minutes, file
        earlier = records.read_document(file).get(_FIELD) or {"waves": 0, "seconds": 0.0}
        self._waves, self._before = int(earlier["waves"]), float(earlier["seconds"])
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """The seconds that the search has taken, as far as its waves came to their end."""
        return self._before + time.monotonic() - self._started

    def fits(self, wave: int, runs: int) -> bool:
        """Says whether wave number `wave`, from 0, may begin: it was done before, or there is time for so many runs."""
        return self.minutes is None or wave < self._waves or self._left() >= runs * self._seconds_a_run()

    def possible_runs(self) -> int:
        """Returns how many runs fit into the time that is left, as those of the first wave are planned."""
        return int(self._left() / max(self._seconds_a_run(), 1e-9))

    def ended(self, wave: int) -> None:
        """Notes that a wave is done."""
        spent = {"waves": max(self._waves, wave + 1), "seconds": self.seconds}
        records.write(self._file, records.read_document(self._file) | {_FIELD: spent})

    def _left(self) -> float:
        assert self.minutes is not None
        plan = records.read_document(self._file.parent / "plan.json")
        return 60 * self.minutes - self.seconds - float(plan.get("seconds_by_part", {}).get("report", 0.0))

    def _seconds_a_run(self) -> float:
        """Returns the seconds of a run as the groups that were trained are planned: measured on steps of them."""
        groups = records.read_document(self._file.parent / "plan.json").get("groups", [])
        runs = sum(group["trials"] for group in groups)
        return sum(group["seconds"] for group in groups) / runs if runs else 0.0


def check(minutes: float | None, waves: int) -> None:
    """Raises UserError for a budget that is none, and for one that nothing can be fitted into."""
    if minutes is None:
        return
    if not 0 < minutes <= _MOST_MINUTES:
        raise UserError(f"--minutes is {minutes:g}, allowed: more than 0, at most a year")
    if waves < 2:
        raise UserError(f"--minutes is {minutes:g} with --waves={waves}, allowed: 2 or more waves, since there must be "
                        "some to leave out")  # fmt: skip
