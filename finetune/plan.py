"""Trials -> groups -> chunks: which trials share a program, how many train at once, and what it will cost."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from finetune.config import Config
from finetune.errors import UserError
from finetune.grid import Trial
from finetune.params import decayed_paths, trainable_paths
from finetune.step import Recipe, full_forward
from finetune.task import Task


def group_trials(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Returns the trials that share a program together: those whose static choices are the same."""
    groups: dict[tuple[str, ...], list[Trial]] = {}
    for trial in trials:
        groups.setdefault(tuple(trial.choices.values()), []).append(trial)
    return list(groups.values())


def make_recipe(
    config: Config, task: Task, shapes: Mapping[str, Any], trials: Sequence[Trial], examples: int
) -> Recipe:
    """Returns what the program of a group is made of; raises UserError for a choice that does not fit the model."""
    choices = trials[0].choices
    batch_sizes = [trial.hparams["batch_size"] for trial in trials]
    if max(batch_sizes) > examples:
        raise UserError(f"batch_size is {max(batch_sizes)}, allowed: at most the {examples} training examples")
    paths = trainable_paths(choices["trainable"], task, shapes)
    optimizer = type(config.optimizer)(**vars(config.optimizer))
    optimizer.name, optimizer.schedule = choices["optimizer.name"], choices["schedule"]
    micro_batch = math.gcd(*(int(size) for size in batch_sizes))
    return Recipe(
        task=task,
        forward=full_forward(task),
        paths=tuple(sorted(paths)),
        optimizer=optimizer,
        decayed=decayed_paths(optimizer.decayed, {path: shapes[path] for path in paths}),
        examples=examples,
        micro_batch=micro_batch,
        accumulates=any(size != micro_batch for size in batch_sizes),
        dropout=any(trial.hparams["dropout"] > 0 for trial in trials),
    )


def chunks_of(trials: Sequence[Trial], most: int) -> tuple[list[list[Trial]], int]:
    """Returns trials cut into chunks of at most `most` that read the data in the same order, and the chunks' size.

    Trials of like length lie together, so that a chunk ends at once; all chunks have one size, so that they share a
    program.
    """
    by_order: dict[float | int, list[Trial]] = {}
    for trial in sorted(trials, key=lambda each: each.hparams["epochs"]):
        by_order.setdefault(trial.hparams["data_seed"], []).append(trial)
    size = max(math.ceil(len(part) / math.ceil(len(part) / most)) for part in by_order.values())
    return [part[i : i + size] for part in by_order.values() for i in range(0, len(part), size)], size
