"""Where the time of a study goes, as it was planned and as it came out: the same parts under the same names."""

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from finetune.population.programs import Program
from finetune.study.training import Training
from finetune.trials.grid import Trial

_EVALUATING = {"validate", "test"}  # programs; the others train
# Of the report, measured on one core: what it takes in any case, for a trial, and for an epoch of a trial.
_REPORT, _REPORT_TRIAL, _REPORT_EPOCH = 5.0, 1e-3, 1.5e-5


class Spent:
    """The seconds that a study has spent so far, `by_part`, and how often each program was compiled."""

    def __init__(self) -> None:
        self.by_part: dict[str, float] = {}
        self.compiles = Counter[str]()

    def add(self, parts: Mapping[str, float]) -> None:
        """Adds to parts."""
        for name, spent in parts.items():
            self.by_part[name] = self.by_part.get(name, 0.0) + spent

    @contextmanager
    def while_training(self, programs: Mapping[str, Program], training: Training) -> Iterator[None]:
        """Adds what the block takes, however it ends."""
        started, compiled = time.monotonic(), compiling(programs)
        sizes = {name: max(1, len(program.executables)) for name, program in programs.items()}
        evaluating = training.evaluating_seconds
        try:
            yield
        finally:
            total, evaluating = time.monotonic() - started, training.evaluating_seconds - evaluating
            compiled = {name: spent - compiled[name] for name, spent in compiling(programs).items()}
            self.add(of_training(total, evaluating, compiled))
            for name, program in programs.items():
                self.compiles[f"{name}_after_compaction"] += max(0, len(program.executables) - sizes[name])


def planned(
    load: float, trunk: float, groups: Collection[Mapping[str, Any]], trials: Collection[Trial]
) -> dict[str, float]:
    """Returns the seconds that a study of `trials` takes, by part: those spent when it is planned, and those to come.

    load, trunk: seconds. groups: as plan.json holds them.
    """
    epochs = sum(trial.hparams["epochs"] for trial in trials)
    evaluating = sum(group["evaluation_seconds"] for group in groups)
    return {
        "load": load,
        "trunk": trunk,
        "compile": sum(group["compile_seconds"] for group in groups),
        "train": sum(group["seconds"] for group in groups) - evaluating,
        "eval": evaluating,
        "report": _REPORT + _REPORT_TRIAL * len(trials) + _REPORT_EPOCH * epochs,
    }


def compiling(programs: Mapping[str, Program]) -> dict[str, float]:
    """Returns the seconds that compiling has taken so far of programs that train and of those that evaluate."""
    parts = {"train": 0.0, "eval": 0.0}
    for name, program in programs.items():
        parts["eval" if name in _EVALUATING else "train"] += program.seconds
    return parts


def of_training(total: float, evaluating: float, compiled: Mapping[str, float]) -> dict[str, float]:
    """Returns the parts of `total` seconds, in which programs were `compiled` for so long, as `compiling` says."""
    return {
        "compile": sum(compiled.values()),
        "train": total - evaluating - compiled["train"],
        "eval": evaluating - compiled["eval"],
    }


def in_words(parts: Mapping[str, float], unplanned: int = 0) -> str:
    """Returns a line: the whole of what is planned, and its parts; `unplanned` groups are not in it yet."""
    rest = f"; {unplanned} groups more are planned when it is their turn" if unplanned > 0 else ""
    named = ", ".join(f"{name} {value:.0f}" for name, value in parts.items())
    return f"in all about {sum(parts.values()):.0f} s ({named}){rest}"
