"""Weights on disk, by Orbax: what all trials of a study start from, once, and what the best of them trained.

checkpoints/base          every parameter before training (pretrained, or drawn with seed 0)
checkpoints/trials/ID/best, last   the leaves that trial ID trained, at its best and its last epoch
A trial's full parameters are `base` with its own leaves laid over it.
"""

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from finetune import records
from finetune.errors import UserError
from finetune.params import flatten, unflatten

HostLeaves = dict[str, np.ndarray]


def save(path: Path, leaves: HostLeaves) -> None:
    """Writes {path: host array} to the directory `path`, whole or not at all; replaces what is there."""
    alone = ocp.options.MultiprocessingOptions(primary_host=jax.process_index(), active_processes={jax.process_index()})
    with ocp.StandardCheckpointer(multiprocessing_options=alone) as checkpointer:
        checkpointer.save(path.absolute(), unflatten(leaves), force=True)


def load(path: Path) -> HostLeaves:
    """Returns {path: host array} of the checkpoint in the directory `path`; raises UserError if it cannot be read."""
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            return flatten(checkpointer.restore(path.absolute()))
    except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged directory
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(
            f"checkpoint {str(path)!r} cannot be read ({reason}), allowed: one that finetune wrote"
        ) from None


class Keeper:
    """Keeps on disk the weights of the best `keep` trials of a study; `values` of those that are there already."""

    def __init__(self, workdir: Path, keep: int, values: dict[str, float], writes: bool):
        self.keep = keep
        self._directory = workdir / "checkpoints" / "trials"
        self._values = dict(values)
        self._writes = writes

    def wants(self, value: float) -> bool:
        """Says whether a trial with this value, larger is better, is among the best so far."""
        return self.keep > 0 and (len(self._values) < self.keep or value > min(self._values.values()))

    def offer(self, identity: str, value: float, best: HostLeaves, last: HostLeaves) -> None:
        """Saves a trial's weights if it is among the best so far, and removes those it displaces."""
        if not self.wants(value):
            return
        self._values[identity] = value
        if self._writes:
            save(self._directory / identity / "best", best)
            save(self._directory / identity / "last", last)
        while len(self._values) > self.keep:
            worst = min(self._values, key=lambda each: self._values[each])
            del self._values[worst]
            if self._writes:
                shutil.rmtree(self._directory / worst, ignore_errors=True)


def kept(workdir: Path) -> list[tuple[str, float]]:
    """Returns (id, value) of every trial whose weights are on disk and whose result is recorded."""
    values = {row["id"]: row["best"]["value"] for row in records.read_trials(workdir) if row.get("best")}
    directory = workdir / "checkpoints" / "trials"
    there = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    return sorted((name, values[name]) for name in there if values.get(name) is not None)


def load_best(workdir: Path) -> HostLeaves:
    """Returns the full parameters of a study's best trial at its best epoch; raises UserError if there is none."""
    values = dict(kept(workdir))
    if not values:
        raise UserError(f"study {str(workdir)!r} holds no finished trial's weights, allowed: a study that has run")
    identity = max(values, key=lambda each: values[each])
    return {**load(workdir / "checkpoints" / "base"), **load(workdir / "checkpoints" / "trials" / identity / "best")}


def content(leaves: dict[str, Any]) -> int:
    """Returns the bytes of all leaves together."""
    return sum(np.dtype(leaf.dtype).itemsize * int(np.prod(leaf.shape)) for leaf in leaves.values())
