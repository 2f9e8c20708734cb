"""Populations on disk while they train: the newest two, written by Orbax while training goes on.

checkpoints/population/NUMBER/members      every leaf of the members [places, ...], by Orbax
checkpoints/population/NUMBER/table.json   which trial each place holds, and how far it is
checkpoints/population/NUMBER/manifest.json   written last; without it, the others are not used
"""

import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from finetune.storage import checkpoint, manifest, records

_FORMAT = 4
_KEPT = 2
_MEMBERS, _TABLE = "members", "table.json"
# Of a study's time that may go into snapshots: where one takes long, the next one waits for longer.
_SHARE = 0.03


class Snapshot(NamedTuple):
    """A population at a moment: what table.json holds, and where its members lie."""

    signature: dict[str, Any]  # of its group in plan.json
    ids: list[str]
    curves: list[list[dict[str, Any]]]  # of each of them
    parents: list[list[str]]  # of each of them, the trial that it started from, what that one started from, and so on
    size: int  # members, ghosts included
    epoch: int  # how many are done
    micro_batches: int  # how many micro-batches of the next epoch are done
    directory: str = ""  # of the members; empty before it is written


class Saver:
    """Writes snapshots in the background, at most one at a time."""

    def __init__(self, workdir: Path, interval_seconds: float, writes: bool):
        self._directory = _directory(workdir)
        self._interval_seconds, self._writes = interval_seconds, writes
        self._number = max(map(int, _numbers(self._directory) if writes else ()), default=0)
        self._worker = ThreadPoolExecutor(1)
        self._writing: Future[float] | None = None
        self._last, self._seconds = time.monotonic(), 0.0

    def due(self) -> bool:
        """Says whether it is time for another one; raises UserError if the last one could not be written."""
        if self._interval_seconds == 0:
            return True
        if self._writing is not None and not self._writing.done():
            return False
        self.wait()
        return time.monotonic() - self._last >= max(self._interval_seconds, self._seconds / _SHARE)

    def save(self, snapshot: Snapshot, members: Any) -> None:
        """Writes a snapshot; `members` is a tree of host arrays [places, ...]. Raises what the one before ran into."""
        started = time.monotonic()
        self.wait()
        self._number += 1
        leaves = _named(members)  # a copy: the device may use the memory again
        waited = time.monotonic() - started
        self._last = time.monotonic()
        if self._writes:
            target = self._directory / f"{self._number:06d}"
            self._writing = self._worker.submit(_write, target, snapshot, leaves, waited)

    def wait(self) -> None:
        """Returns when the last snapshot is on the disk; raises UserError if it could not be written."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            self._seconds = writing.result()

    def close(self) -> None:
        """Returns when nothing is written any more."""
        self._worker.shutdown()

    def clear(self) -> None:
        """Removes all snapshots: what they hold has ended."""
        self.wait()
        if self._writes:
            shutil.rmtree(self._directory, ignore_errors=True)


def _write(target: Path, snapshot: Snapshot, leaves: dict[str, np.ndarray], waited: float) -> float:
    """Writes a snapshot, and removes all but the newest ones; returns the seconds that it took."""
    started = time.monotonic()
    checkpoint.save(target / _MEMBERS, leaves)
    shapes = {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in leaves.items()}
    records.write(target / _TABLE, {"format": _FORMAT, "leaves": shapes, **snapshot._asdict()})
    manifest.write(target)
    for number in _numbers(target.parent)[:-_KEPT]:
        shutil.rmtree(target.parent / number, ignore_errors=True)
    return time.monotonic() - started + waited


def newest(workdir: Path, tell: Callable[[str], None]) -> Snapshot | None:
    """Returns the newest snapshot that is as it was written, None if there is none; removes and tells of others."""
    directory = _directory(workdir)
    for number in reversed(_numbers(directory)):
        target = directory / number
        problem = manifest.problem(target)
        table = records.read_document(target / _TABLE) if problem is None else {}
        if problem is None and table.get("format") == _FORMAT:
            return Snapshot(**{name: table[name] for name in Snapshot._fields})._replace(directory=str(target))
        tell(f"{target} is not used: {problem or 'its format is another one'}; going on from what is before it")
        shutil.rmtree(target, ignore_errors=True)
    return None


def load(snapshot: Snapshot, template: Any, places: Sequence[int]) -> Any | None:
    """Returns the members at `places` of a snapshot as a tree of host arrays [places, ...].

    template: the tree of one member, ShapeDtypeStruct each; None is returned if the snapshot's leaves are others, or
    another group that was trained since has taken its place.
    """
    if not Path(snapshot.directory).is_dir():
        return None
    leaves = checkpoint.load(Path(snapshot.directory) / _MEMBERS)
    expected, structure = jax.tree.flatten(template)
    names = [f"{number:05d}" for number in range(len(expected))]
    if leaves.keys() != set(names):
        return None
    found = [np.asarray(leaves[name]) for name in names]
    if any(
        array.shape[1:] != leaf.shape or array.dtype != leaf.dtype for array, leaf in zip(found, expected, strict=True)
    ):
        return None
    return jax.tree.unflatten(structure, [array[np.asarray(places)] for array in found])


def _named(members: Any) -> dict[str, np.ndarray]:
    return {f"{number:05d}": np.array(leaf) for number, leaf in enumerate(jax.tree.leaves(members))}


def _directory(workdir: Path) -> Path:
    return workdir / "checkpoints" / "population"


def _numbers(directory: Path) -> list[str]:
    """Returns the names of the snapshots in a directory, oldest first."""
    if not directory.is_dir():
        return []
    return sorted(each.name for each in directory.iterdir() if each.name.isdigit())
