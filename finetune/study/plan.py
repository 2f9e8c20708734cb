"""Trials -> groups -> chunks: which trials share a program, how many train at once, and what it will cost."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from finetune.config import TEMPERATURE, Config
from finetune.errors import UserError
from finetune.member import lora, rates
from finetune.member.objective import is_contrastive, is_of_classes, trained_loss
from finetune.member.params import abstract, count, decayed_paths, live_state, named_parts, stage_paths
from finetune.member.step import Recipe, full_forward, training_forward
from finetune.member.task import Task
from finetune.population.group import Group, by_order
from finetune.population.parallel import OneDevice
from finetune.population.train import shrunk
from finetune.search.halving import Halving
from finetune.study.traits import NONE as NO_TRAITS
from finetune.study.traits import Traits
from finetune.trials import chain
from finetune.trials.grid import Trial, distinct

_NOTHING_TO_SMOOTH = ("regression", "contrastive", "question_answering")
_TRIAL_BYTES, _CURVE_BYTES = 900, 150  # of a line of trials.jsonl and of curves.jsonl, roughly
_CURVE_SECONDS, _KEPT_SECONDS = 4e-5, 0.2  # of writing such a line, and a trial's weights, roughly


def group_trials(
    trials: Sequence[Trial],
    task: Task | None = None,
    shapes: Mapping[str, Any] | None = None,
    parts: Mapping[str, str] | None = None,
    mixed: str = "",
) -> list[list[Trial]]:
    """Returns the trials that share a program together, each once: those whose static choices are the same.

    Where training changes state of `task`, batch sizes are kept apart too: batch statistics are of a whole batch. So
    they are if examples influence each other in another way, as `mixed` of its traits says.
    Groups come in the order of the grid, those whose trials start from others' after them.
    """
    groups: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in distinct(trials):
        whole = bool(mixed)
        if task is not None:
            whole = whole or _changes_state(task, shapes or {}, trial.choices["trainable"], parts or {})
        key = (*trial.choices.values(), trial.hparams["batch_size"] if whole else None)
        groups.setdefault(key, []).append(trial)
    return sorted(groups.values(), key=lambda group: len(chain.stages(group[0].choices["trainable"])))


def _changes_state(task: Task, shapes: Mapping[str, Any], spec: str, parts: Mapping[str, str]) -> bool:
    if not task.state:
        return False
    of_model = "+".join(term for term in spec.split("+") if not chain.adapts(term)) or task.head
    return bool(live_state(task, shapes, stage_paths(of_model, task, shapes, parts)))


def make_recipe(
    config: Config, task: Task, shapes: Mapping[str, Any], trials: Sequence[Trial], examples: int, mixed: str = ""
) -> Recipe:
    """Returns what the program of a group is made of; raises UserError for a choice that does not fit the model."""
    _check(config, task, trials, examples)
    choices, batch_sizes = trials[0].choices, [int(trial.hparams["batch_size"]) for trial in trials]
    rank = max(int(trial.hparams["lora_rank"]) for trial in trials)
    adapters = lora.adapters(config.lora, choices["trainable"], task, shapes, rank)
    shapes = {**shapes, **adapters.shapes}
    paths = stage_paths(choices["trainable"], task, shapes, named_parts(config.parts))
    adapters = lora.kept(adapters, paths)
    task = lora.adapted(task, adapters)
    optimizer = type(config.optimizer)(**vars(config.optimizer))
    optimizer.name, optimizer.schedule = choices["optimizer.name"], choices["schedule"]
    micro_batch, state = math.gcd(*batch_sizes), live_state(task, shapes, paths)
    dropout = any(trial.hparams["dropout"] != 0 for trial in trials)
    by_depth = any(trial.hparams["layer_decay"] < 1 for trial in trials)
    return Recipe(
        task=task,
        forward=training_forward(task, paths, dropout),
        evaluating_forward=full_forward(task),
        metric=config.evaluation.metric,
        paths=tuple(sorted(paths)),
        optimizer=optimizer,
        decayed=decayed_paths(optimizer.decayed, {path: shapes[path] for path in paths}),
        examples=examples,
        micro_batch=micro_batch,
        accumulates=any(size != micro_batch for size in batch_sizes),
        dropout=dropout,
        seeds=len({trial.hparams["seed"] for trial in trials}),
        rates=rates.make_rates(config, task, shapes, sorted(paths), by_depth),
        adapters=adapters,
        state=state,
        reestimate=config.evaluation.batch_norm_batches if state else 0,
        mixes=bool(mixed or state),
        trained_loss=trained_loss(task, bool(config.loss.class_weights) or _is_focal(trials)),
    )


def _check(config: Config, task: Task, trials: Sequence[Trial], examples: int) -> None:
    """Raises UserError for hyperparameters that do not fit the data."""
    batch_size = max(trial.hparams["batch_size"] for trial in trials)
    if batch_size > examples:
        raise UserError(f"batch_size is {batch_size}, allowed: at most the {examples} training examples")
    smoothing = max(trial.hparams["label_smoothing"] for trial in trials)
    if config.data.task in _NOTHING_TO_SMOOTH and smoothing > 0:
        raise UserError(
            f"label_smoothing is {smoothing:g}, allowed for {config.data.task}: 0, since no label can be smoothed"
        )
    if _is_focal(trials) and not is_of_classes(task):
        gamma = max(trial.hparams["focal_gamma"] for trial in trials)
        raise UserError(f"focal_gamma is {gamma:g}, allowed where the loss is that of one class an example; else: 0")
    _check_seeds(config, task, trials)
    temperatures = {trial.hparams["temperature"] for trial in trials} - {TEMPERATURE}
    if temperatures and not is_contrastive(task):
        raise UserError(
            f"temperature is {min(temperatures):g}, allowed where the loss is that of contrastive learning; else: "
            f"{TEMPERATURE:g}"
        )


def _check_seeds(config: Config, task: Task, trials: Sequence[Trial]) -> None:
    """Raises UserError where trials of several seeds would be copies of each other, and chance looked like none."""
    draws = any(trial.hparams["dropout"] != 0 or chain.adapts(trial.choices["trainable"]) for trial in trials)
    seeds = sorted({trial.hparams["seed"] for trial in trials})
    if is_contrastive(task) and config.model.pretrained and not draws and len(seeds) > 1:
        raise UserError(
            f"seed is {', '.join(map(str, seeds))}, which changes nothing without dropout or lora, since the head "
            "begins as the identity, allowed: one seed, --grid=seed=0, and several orders, --grid=data_seed=0,1,2"
        )


def _is_focal(trials: Sequence[Trial]) -> bool:
    return any(trial.hparams["focal_gamma"] > 0 for trial in trials)


def make_recipes(
    config: Config, task: Task, shapes: Mapping[str, Any], groups: Sequence[Sequence[Trial]], examples: int,
    traits: Traits = NO_TRAITS,
) -> tuple[list[Recipe], str]:  # fmt: skip
    """Returns the recipe of each group, and lines that say what the user should know of them."""
    recipes = [make_recipe(config, task, shapes, group, examples, traits.mixed) for group in groups]
    trials = [trial for group in groups for trial in group]
    told = [*rates.check(config, task, shapes, [recipe.paths for recipe in recipes]), *traits.lines(trials)]
    return recipes, "".join(f"\n{line}" for line in told)


def chunks_of(trials: Sequence[Trial], most: int) -> tuple[list[list[Trial]], int]:
    """Returns trials cut into chunks of at most `most` that read the data in the same order, and the chunks' size.

    Trials of like length lie together, so that a chunk ends at once; all chunks have one size, so that they share a
    program.
    """
    parts = by_order(trials)
    size = max(math.ceil(len(part) / math.ceil(len(part) / most)) for part in parts)
    return [part[i : i + size] for part in parts for i in range(0, len(part), size)], size


class Estimate(NamedTuple):
    """What a group will take, from the cost of its programs."""

    seconds: float  # of training and evaluating
    evaluation_seconds: float  # of these, with what is written then
    compile_seconds: float  # of preparing, and of what is compiled on the way: for smaller populations, and to test
    flops: float
    bytes: int  # at once, on one device
    disk_bytes: int


def estimate(
    group: Group, chunks: Sequence[Sequence[Trial]], keep: int, prepared_seconds: float,
    halving: Halving | None = None,
) -> Estimate:  # fmt: skip
    """Returns what training `chunks` will take, following each population as it shrinks, once it has been prepared."""
    cost, size = group.cost, group.execution.size
    steps = -(-group.recipe.examples // group.recipe.micro_batch)
    checks, test = (_batches(split, group.eval_batch) for split in (group.splits.validation, group.splits.test))
    training, evaluating, flops = 0.0, 0.0, 0.0
    for chunk in chunks:
        for members, epochs, leaves in stages(_horizons(chunk, halving), size, group.layout):
            share = _share(group, members)
            evaluations = epochs * checks + leaves * test
            training += share * epochs * steps * cost.train_step_seconds
            evaluating += share * evaluations * cost.eval_step_seconds
            flops += members / size * (epochs * steps * cost.train_step_flops + evaluations * cost.eval_step_flops)
    trials = [trial for chunk in chunks for trial in chunk]
    kept, epochs = min(keep, len(trials)), sum(sum(_horizons(chunk, halving)) for chunk in chunks)
    evaluating += _CURVE_SECONDS * epochs + _KEPT_SECONDS * kept
    disk_bytes = _TRIAL_BYTES * len(trials) + _CURVE_BYTES * epochs + 2 * kept * group.trained_bytes
    compiling = prepared_seconds + _compile_seconds(group, len(_sizes(group, chunks, halving)))
    return Estimate(training + evaluating, evaluating, compiling, flops, cost.bytes, disk_bytes)


def _compile_seconds(group: Group, sizes: int) -> float:
    """Returns the seconds of compiling for so many sizes of a population, but the first; to test is to validate."""
    sizes = sizes if group.layout.together else 1
    train, validate = (group.programs.compiled[name].seconds for name in ("train", "validate"))
    return (sizes - 1) * (train + validate) + sizes * validate


def stages(horizons: Sequence[int], size: int, layout: OneDevice) -> Iterator[tuple[int, int, bool]]:
    """Yields (members, epochs, whether trials leave after them) of a population from start to end."""
    since = 0
    for epoch in sorted(set(horizons)):
        alive = sum(horizon > epoch for horizon in horizons)
        smaller = shrunk(alive, size, layout)
        yield size, epoch - since, smaller < size
        size, since = smaller, epoch


def _batches(split: dict[str, Any], batch_size: int) -> int:
    return -(-len(split["label"]) // batch_size)


def _share(group: Group, members: int) -> float:
    """Returns the time of a smaller population over that of the whole one.

    Linear between the one-member program and the whole one where both were timed, since what is shared does not shrink.
    """
    size, whole, one = group.execution.size, group.cost.train_step_seconds, group.one_member_step_seconds
    if one is None or size == 1 or one > whole:
        return members / size
    return (one + (whole - one) * (members - 1) / (size - 1)) / whole


def signature(fingerprint: str, recipe: Recipe, trials: Sequence[Trial]) -> dict[str, Any]:
    """Returns what the program of a group depends on, the number of devices included."""
    return {
        "study": fingerprint,
        **trials[0].choices,
        "micro_batch": recipe.micro_batch,
        "accumulates": recipe.accumulates,
        "dropout": recipe.dropout,
        **({"focal": True} if _is_focal(trials) else {}),
        **({"rates_by_depth": True} if recipe.rates.depths else {}),
        "devices": jax.local_device_count(),
        **({"lora_rank": recipe.adapters.rank} if recipe.adapters.rank else {}),
    }


def describe(
    group: Group, chunks: Sequence[Sequence[Trial]], estimate: Estimate, halving: Halving | None = None
) -> dict[str, Any]:
    """Returns a group as plan.json holds it."""
    shapes = abstract(group.recipe.task)
    return {
        "signature": group.signature,
        "trials": len(group.trials),
        "chunk": group.execution.size,
        "chunks": len(chunks),
        "population_sizes": _sizes(group, chunks, halving),
        "mode": group.execution.mode,
        "on_device": group.execution.on_device,
        "reason": group.execution.reason,
        "trunk": group.trunk.mode,
        "trunk_reason": group.trunk.reason,
        "trunk_place": group.trunk.place,
        "trunk_bytes": group.trunk.bytes,
        "trunk_flops": group.trunk.flops,
        "trained_parameters": count({path: shapes[path] for path in group.recipe.paths}),
        "adapter_parameters": count(group.recipe.adapters.shapes),  # of them, at the largest rank
        "adapter_rank": group.recipe.adapters.rank,
        **estimate._asdict(),
    }


def _horizons(chunk: Sequence[Trial], halving: Halving | None) -> list[int]:
    """Returns for how many epochs the trials of a chunk train, if halving stops as many as it is to."""
    epochs = [int(trial.hparams["epochs"]) for trial in chunk]
    return halving.expected(epochs) if halving else epochs


def _sizes(group: Group, chunks: Sequence[Sequence[Trial]], halving: Halving | None) -> list[int]:
    """Returns the sizes through which populations shrink, largest first; each is compiled once."""
    sizes = {group.execution.size}
    for chunk in chunks:
        sizes |= {size for size, _, _ in stages(_horizons(chunk, halving), group.execution.size, group.layout)}
    return sorted(sizes, reverse=True)
