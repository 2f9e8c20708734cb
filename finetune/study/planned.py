"""The groups of plan.json: those that earlier runs have left, and those that this one has prepared."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.population.group import Execution
from finetune.storage import checkpoint
from finetune.study import summary, workdir

Entry = dict[str, Any]  # a group as plan.json holds it
Signature = Mapping[str, Any]


class Planned:
    """Groups as plan.json holds them, by their signatures."""

    def __init__(self, earlier: Sequence[Entry]):
        self.groups: list[Entry] = []  # of this run
        self._earlier = {key(group["signature"]): group for group in earlier}

    def earlier(self, signature: Signature) -> Entry | None:
        """Returns the group with this signature as an earlier run left it."""
        return self._earlier.get(key(signature))

    def take(self, signature: Signature) -> Entry | None:
        """Returns the same, and forgets it: this run prepares the group again."""
        return self._earlier.pop(key(signature), None)

    def document(self, directory: Path, trials: int, base: dict[str, Any], parts: dict[str, float]) -> dict[str, Any]:
        """Returns what plan.json holds.

        base: the weights that the study will save, if it has not yet. parts: seconds, see `seconds.planned`.
        """
        saved = (directory / "checkpoints" / "base").is_dir()
        disk_bytes = [workdir.size_bytes(directory), 0 if saved else checkpoint.content(base)]
        return {
            "trials": trials,
            "groups": [*self._earlier.values(), *self.groups],
            "seconds": sum(parts.values()),
            "seconds_by_part": parts,
            "disk_bytes": sum(disk_bytes) + sum(group["disk_bytes"] for group in self.groups),
            "process_bytes": summary.peak_process_bytes(),
        }


def execution(group: Entry | None) -> Execution | None:
    """Returns how a group of an earlier plan ran."""
    return Execution(group["mode"], group["on_device"], group["chunk"], group["reason"]) if group else None


def same_program(one: Signature, other: Signature) -> bool:
    """Says whether members of two groups are alike, on whatever number of devices."""
    return {**one, "devices": 0} == {**other, "devices": 0}


def key(signature: Signature) -> str:
    """Returns a signature as text, the same for equal ones."""
    return json.dumps(signature, sort_keys=True)
