"""Chunks trained one after the other: recorded as they end, saved on the way, halved where a trial fails."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from finetune.errors import UserError
from finetune.hosts import processes, signals
from finetune.hosts.console import console
from finetune.population.measure import Measured
from finetune.population.train import Leaves, Listener, Population, Row, Start, train_chunk
from finetune.storage.snapshot import Saver
from finetune.study.chunk import Chunk, rows_a_call, snapshot_of, start
from finetune.study.display import Display
from finetune.study.ledger import Ledger
from finetune.trials.grid import Trial

OUT_OF_MEMORY = "out of memory"


class OrphanError(Exception):
    """A trial was to start from the best of others, and none of them has a result."""


class Training:
    """What the chunks of all groups of a study have in common while they train.

    base: every parameter before training.
    fail_fast: raise what a trial raises, once it is recorded, in place of going on with the others.
    """

    def __init__(self, ledger: Ledger, saver: Saver, display: Display, base: Leaves, fail_fast: bool):
        self.evaluating_seconds, self._base = 0.0, base
        self._ledger, self._saver, self._display, self._fail_fast = ledger, saver, display, fail_fast

    def train(
        self, group: int, signature: Mapping[str, Any], measured: Measured, chunks: Sequence[Chunk],
        after_chunk: Callable[[], None],
    ) -> int:  # fmt: skip
        """Trains chunks of a group to their ends; returns 0, or how large chunks may be where memory has run out."""
        waiting = list(chunks)
        while waiting:
            chunk = waiting.pop(0)
            try:
                self._train(group, signature, measured, chunk)
            except UserError:
                raise
            except Exception as error:  # whatever a model raises on some trial
                processes.met_by_all(error)
                left = {identity: trial for identity, trial in chunk.trials.items() if self._ledger.left(identity)}
                if is_out_of_memory(error) and measured.execution.size > 1:
                    return -(-measured.execution.size // 2)
                if len(left) == 1:
                    self.fail(group, left, error)
                else:
                    waiting = [*_halves(left), *waiting]
            self._saver.clear()
            after_chunk()
        return 0

    def close(self) -> None:
        """Returns when nothing is written any more."""
        self._saver.close()

    def fail(self, group: int, trials: Mapping[str, Trial], error: Exception) -> None:
        """Records that trials could not be trained."""
        reason = OUT_OF_MEMORY if is_out_of_memory(error) else _first_line(error)
        self._display.left(self._ledger.fail(group, trials, reason))
        who = f"trial {next(iter(trials))}" if len(trials) == 1 else f"{len(trials)} trials"
        console.print(f"{who} failed: {reason}", markup=False)
        if self._fail_fast:
            raise error

    def settle(self, trials: Collection[str]) -> None:
        """Decides which of `trials` that are done are trained again, and counts the others as done."""
        self._display.left(self._ledger.settle(trials))

    def fail_orphans(self, group: int, trials: Mapping[str, Trial]) -> None:
        """Records that those of `trials` that have no trial to start from could not be trained."""
        for identity, reason in self._ledger.orphans(trials).items():
            self.fail(group, {identity: trials[identity]}, OrphanError(reason))

    def _train(self, group: int, signature: Mapping[str, Any], measured: Measured, chunk: Chunk) -> None:
        listener = Listener(
            epoch=lambda rows: self._display.epoch(self._ledger.epoch(rows)),
            left=functools.partial(self._left, group),
            pause=functools.partial(self._pause, dict(signature), measured),
        )
        with self._display.live():
            population = start(chunk, measured, functools.partial(self._starts, chunk.trials))
            self.evaluating_seconds += train_chunk(measured.group, population, rows_a_call(measured), listener)

    def _starts(self, trials: Mapping[str, Trial]) -> dict[str, Start]:
        """Returns where trials start that go on from others, by id: what was frozen there is as it was."""
        starts = self._ledger.starts(trials).items()
        return {identity: start._replace(leaves={**self._base, **start.leaves}) for identity, start in starts}

    def _left(self, group: int, rows: list[Row], leaves: Callable[[str], tuple[Leaves, Leaves]]) -> None:
        self._display.left(self._ledger.end(group, rows, leaves))

    def _pause(self, signature: dict[str, Any], measured: Measured, population: Population) -> None:
        """Saves what is being trained where it is time to, and leaves where a signal has come."""
        word = "stop" if signals.requested() else "save" if self._saver.due() else ""
        word = processes.from_first("whether to save or to stop", word)
        if word:
            members = measured.group.programs.fetch(population.members)
            self._saver.save(snapshot_of(population, signature), members)
        if word == "stop":
            self._saver.wait()
            signals.leave()


def is_out_of_memory(error: Exception) -> bool:
    """Says whether a device or the host had no memory left."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _halves(trials: Mapping[str, Trial]) -> list[Chunk]:
    """Returns chunks of half the trials each, from their start."""
    items = list(trials.items())
    middle = len(items) // 2
    return [Chunk(dict(part)) for part in (items[:middle], items[middle:]) if part]
