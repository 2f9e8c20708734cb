"""Weights on disk, by Orbax: what all trials of a study start from, once, and what the best of them trained.

checkpoints/base                   every parameter before training (pretrained, or drawn with seed 0)
checkpoints/trials/ID/best, last   the leaves that trial ID trained, at its best and its last epoch
checkpoints/population             see snapshot.py
A trial's full parameters are `base` with its own leaves laid over it; adapters are stored with columns of its own rank.
"""

import contextlib
import errno
import functools
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from finetune.errors import UserError
from finetune.storage import manifest, records

HostLeaves = dict[str, np.ndarray]

_REFUSALS = errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO  # of a disk

_one_at_a_time = threading.Lock()  # two saves of a process take each other's signals in Orbax, and wait for ever


def save(path: Path, leaves: HostLeaves) -> None:
    """Writes {path: host array} to the directory `path`, whole or not at all; replaces what is there.

    Raises UserError if it cannot be written.
    """
    try:
        with _one_at_a_time, _silent(), ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer:
            checkpointer.save(path.absolute(), traverse_util.unflatten_dict(leaves, sep="/"), force=True)
        manifest.write(path)
    except Exception as error:  # Orbax and TensorStore raise many kinds where a disk is full
        for unfinished in (path, *path.parent.glob(f"{path.name}.orbax-checkpoint-tmp*")):
            shutil.rmtree(unfinished, ignore_errors=True)  # room for what is recorded after it
        raise error if isinstance(error, UserError) else records.unwritable(path, _of_system(error)) from None


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps Orbax and TensorStore from printing, from threads of their own, what they raise as well."""
    log = logging.getLogger("absl")
    log.addFilter(_nothing)
    _expect_late_writes()
    try:
        yield
    finally:
        log.removeFilter(_nothing)


def _nothing(_: logging.LogRecord) -> bool:
    return False


@functools.cache  # once
def _expect_late_writes() -> None:
    """Passes over what TensorStore hands to the event loop of a save that has failed and ended, whenever it does."""
    hook = sys.unraisablehook

    def said(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    sys.unraisablehook = said


def _of_system(error: Exception) -> Exception:
    """Returns what the operating system said, where TensorStore quotes it on a page of its own."""
    found = [number for number in _REFUSALS if os.strerror(number) in str(error)]
    return OSError(found[0], os.strerror(found[0])) if found else error


def _alone() -> ocp.options.MultiprocessingOptions:
    """Returns what keeps Orbax from waiting for other processes, which neither read nor write."""
    process = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=process, active_processes={process})


def save_base(workdir: Path, leaves: HostLeaves) -> None:
    """Writes what all trials of a study start from, if it is not there yet."""
    if not (workdir / "checkpoints" / "base").is_dir():
        save(workdir / "checkpoints" / "base", leaves)


def load(path: Path) -> HostLeaves:
    """Returns {path: host array} of the checkpoint in the directory `path`; raises UserError if it is damaged."""
    reason = manifest.problem(path)
    if reason is None:
        try:
            handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=_alone())
            with _one_at_a_time, _silent(), ocp.Checkpointer(handler, multiprocessing_options=_alone()) as checkpointer:
                return traverse_util.flatten_dict(checkpointer.restore(path.absolute()), sep="/")
        except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged directory
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    raise UserError(f"checkpoint {str(path)!r} cannot be read ({reason}), allowed: one that finetune wrote")


class Keeper:
    """Keeps on disk the weights of the best `keep` trials of a study, and of those that are `named`.

    values: of those that are there already; larger is better. needed: gives those that others start from, of trials
    with values.
    """

    def __init__(
        self, workdir: Path, keep: int, named: Collection[str], values: Mapping[str, float], writes: bool,
        needed: Callable[[Mapping[str, float]], Collection[str]] = lambda values: (),
    ):  # fmt: skip
        self._keep, self._named, self._needed = keep, frozenset(named), needed
        self._directory = workdir / "checkpoints" / "trials"
        self._values = dict(values)
        self._writes = writes

    def wanted(self, values: Mapping[str, float]) -> list[str]:
        """Returns which of the trials that have ended with these values are to be kept."""
        kept = self._kept({**self._values, **values})
        return [identity for identity in values if identity in kept]

    def take(self, identity: str, value: float, best: HostLeaves, last: HostLeaves) -> None:
        """Saves a trial's weights, and removes those it displaces."""
        self._values[identity] = value
        if self._writes:
            save(self._directory / identity / "best", best)
            save(self._directory / identity / "last", last)
        self.settle()

    def best_leaves(self, identity: str) -> HostLeaves:
        """Returns the leaves that a trial trained, at its best epoch; none on a process that does not write.

        Raises UserError if they are not there, or damaged.
        """
        return load(self._directory / identity / "best") if self._writes else {}

    def forget(self, trials: Collection[str]) -> None:
        """Removes the weights of `trials`: they are trained again."""
        self._values = {identity: value for identity, value in self._values.items() if identity not in trials}
        self.settle()

    def settle(self) -> None:
        """Removes the weights of trials that are not among the best any more, or have no result."""
        kept = self._kept(self._values)
        self._values = {identity: value for identity, value in self._values.items() if identity in kept}
        if self._writes and self._directory.is_dir():
            for directory in self._directory.iterdir():
                if directory.name not in self._values:
                    shutil.rmtree(directory, ignore_errors=True)

    def _kept(self, values: Mapping[str, float]) -> set[str]:
        return self._best(values) | self._named | set(self._needed(values))

    def _best(self, values: Mapping[str, float]) -> set[str]:
        """Returns the ids of the best, of equals those that came first."""
        return set(sorted(values, key=lambda each: values[each], reverse=True)[: self._keep])


def damaged(workdir: Path) -> dict[str, str]:
    """Returns what is wrong with the checkpoints of a study, by their paths below `checkpoints`."""
    directory = workdir / "checkpoints"
    found = [
        directory / "base",
        *sorted((directory / "trials").glob("*/best")),
        *sorted(directory.glob("trials/*/last")),
    ]
    problems = {each.relative_to(directory).as_posix(): manifest.problem(each) for each in found if each.is_dir()}
    return {name: reason for name, reason in problems.items() if reason is not None}


def kept(workdir: Path) -> list[tuple[str, float]]:
    """Returns (id, value) of every trial whose weights are on disk and whose result is recorded."""
    values = {row["id"]: row["best"]["value"] for row in records.read_trials(workdir) if row.get("best")}
    directory = workdir / "checkpoints" / "trials"
    there = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    return sorted((name, values[name]) for name in there if values.get(name) is not None)


def content(leaves: dict[str, Any]) -> int:
    """Returns the bytes of all leaves together."""
    return sum(np.dtype(leaf.dtype).itemsize * int(np.prod(leaf.shape)) for leaf in leaves.values())
