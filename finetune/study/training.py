"""Trials of a group, trained to their ends: recorded as they end, saved on the way, parted where they fail."""

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import jax

from finetune.errors import OutOfMemory, UserError
from finetune.hosts import processes, signals
from finetune.hosts.console import console
from finetune.population.group import Group
from finetune.population.train import Leaves, Listener, Population, Row, Start, train_chunk
from finetune.search.halving import Halving
from finetune.storage.snapshot import Saver
from finetune.study.chunk import Chunk, snapshot_of, start, steps_a_call
from finetune.study.display import Display
from finetune.study.ledger import Ledger
from finetune.trials.grid import Trial

OUT_OF_MEMORY = "out of memory"

Trials = Mapping[str, Trial]  # by id


class OrphanError(Exception):
    """A trial was to start from the best of others, and none of them has a result."""


class Work(Protocol):
    """What is done to parts of a group."""

    def left(self, trials: Trials) -> Trials: ...  # those that are still to be trained
    def prepare(self, group: Group, most: int) -> list[Chunk]: ...  # of at most `most` members, 0 = as many as fit
    def train(self, chunk: Chunk) -> None: ...  # to its end
    def fail(self, group: Group, trials: Trials, error: Exception) -> None: ...
    def shrink(self, size: int, smaller: int) -> None: ...  # where chunks of `size` do not fit into memory
    def ended(self) -> None: ...  # after a chunk, however it ended


def train_group(group: Group, most: int, work: Work) -> None:
    """Trains the trials of a group, each to its end or its failure, in chunks of at most `most`, 0 = as many as fit.

    Where memory runs out, what is left is prepared again in chunks half as large. Whatever else is raised, halves are
    tried, until the trial is found that raises it; what raises before a program runs is the fault of all.
    """
    waiting = [Chunk(group, group.trials)]  # a part that is not measured yet is prepared first
    while waiting:
        part = waiting.pop(0)
        trials, size = work.left(part.trials), part.group.execution.size
        try:
            if part.group.is_measured:
                work.train(part)
            elif trials:
                waiting = [*work.prepare(part.group._replace(trials=trials), most), *waiting]
        except OutOfMemory as error:  # of one member alone
            work.fail(part.group, trials, MemoryError(str(error)))
        except UserError:
            raise
        except Exception as error:  # whatever a model raises on some trial
            processes.met_by_all(error)
            if is_out_of_memory(error) and size > 1:
                most = -(-size // 2)
                work.shrink(size, most)
                waiting = _unprepared(group, part, waiting)
                continue
            waiting = [*_halves_or_failed(part, work, error), *waiting]
        if size:
            work.ended()


def _unprepared(group: Group, part: Chunk, waiting: list[Chunk]) -> list[Chunk]:
    """Returns what waits, with `part` and the other chunks of its group as one that is to be prepared again."""
    chunks = [part, *(each for each in waiting if each.group is part.group)]
    trials = {identity: trial for chunk in chunks for identity, trial in chunk.trials.items()}
    return [Chunk(group, trials), *(each for each in waiting if each.group is not part.group)]


def _halves_or_failed(part: Chunk, work: Work, error: Exception) -> list[Chunk]:
    """Returns halves of a part that has failed, from their start; none where its trials have failed with it."""
    trials = list(work.left(part.trials).items())
    middle = len(trials) // 2
    if middle and (part.group.is_measured or isinstance(error, jax.errors.JaxRuntimeError)):
        return [Chunk(part.group, dict(half)) for half in (trials[:middle], trials[middle:])]
    if trials:
        work.fail(part.group, dict(trials), error)
    return []


def is_out_of_memory(error: Exception) -> bool:
    """Says whether a device or the host had no memory left."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


class Training:
    """What the chunks of all groups of a study have in common while they train.

    base: every parameter before training.
    fail_fast: raise what a trial raises, once it is recorded, in place of going on with the others.
    halving: what stops trials before their end.
    """

    def __init__(
        self, ledger: Ledger, saver: Saver, display: Display, base: Leaves, fail_fast: bool, halving: Halving | None
    ):
        self.evaluating_seconds, self._base, self._halving = 0.0, base, halving
        self._ledger, self._saver, self._display, self._fail_fast = ledger, saver, display, fail_fast

    def close(self) -> None:
        """Returns when nothing is written any more."""
        self._saver.close()

    def left(self, trials: Trials) -> dict[str, Trial]:
        """Returns those of `trials` that are still to be trained."""
        return {identity: trial for identity, trial in trials.items() if self._ledger.left(identity)}

    def begin(self, group: Group) -> None:
        """Decides which trials of a group that are done are trained again, and fails those with none to start from."""
        self._display.left(self._ledger.settle(group.trials))
        left = self.left(group.trials)
        for identity, reason in self._ledger.orphans(left).items():
            self.fail(group, {identity: left[identity]}, OrphanError(reason))

    def fail(self, group: Group, trials: Trials, error: Exception) -> None:
        """Records that trials could not be trained."""
        reason = OUT_OF_MEMORY if is_out_of_memory(error) else _first_line(error)
        self._display.left(self._ledger.fail(group.number, trials, reason))
        who = f"trial {next(iter(trials))}" if len(trials) == 1 else f"{len(trials)} trials"
        console.print(f"{who} failed: {reason}", markup=False)
        if self._fail_fast:
            raise error

    def ended(self) -> None:
        """Forgets what was saved of a chunk that has ended."""
        self._saver.clear()

    def train(self, chunk: Chunk) -> None:
        """Trains a chunk to its end."""
        listener = Listener(
            epoch=lambda rows: self._display.epoch(self._ledger.epoch(rows)),
            left=functools.partial(self._left, chunk.group.number),
            pause=functools.partial(self._pause, chunk.group),
            halving=self._halving,
        )
        with self._display.live():
            population = start(chunk, functools.partial(self._starts, chunk.trials))
            self.evaluating_seconds += train_chunk(chunk.group, population, steps_a_call(chunk.group), listener)

    def _starts(self, trials: Collection[str]) -> dict[str, Start]:
        """Returns where trials start that go on from others, by id: what was frozen there is as it was."""
        starts = self._ledger.starts(trials).items()
        return {identity: start._replace(leaves={**self._base, **start.leaves}) for identity, start in starts}

    def _left(self, group: int, rows: list[Row], leaves: Callable[[str], tuple[Leaves, Leaves]]) -> None:
        self._display.left(self._ledger.end(group, rows, leaves))

    def _pause(self, group: Group, population: Population) -> None:
        """Saves what is being trained where it is time to, and leaves where a signal has come."""
        word = "stop" if signals.requested() else "save" if self._saver.due() else ""
        word = processes.from_first("whether to save or to stop", word)
        if word:
            members = group.programs.fetch(population.members)
            self._saver.save(snapshot_of(population, group.signature), members)
        if word == "stop":
            self._saver.wait()
            signals.leave()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
