"""Trains members and populations of `tasks`, and compares what comes of it."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from finetune.config import Config, OptimizerConfig
from finetune.member.epoch import Order, Report, epoch_order, make_order
from finetune.member.params import abstract
from finetune.member.rates import make_rates
from finetune.member.step import Member, Position, Recipe, Shared, train_step
from finetune.population.parallel import OneDevice
from finetune.population.programs import Programs, make_programs
from finetune.trials import hparams
from tests.helpers import tasks

ONE = OneDevice()
EXAMPLES, VALIDATION = 26, 10  # of a population
STEM = ("stem/kernel", "stem/bias")


def read(split: dict[str, np.ndarray], order: Order, row: int) -> dict[str, np.ndarray]:
    """Returns the batch that `row` of `order` reads."""
    index = order.examples[row]
    return {name: array[index] for name, array in split.items()} | {"index": index, "weight": order.weight[row]}


def train_member(recipe: Recipe, shared: Shared, member: Member, epochs: int, step: Any = None) -> list[Member]:
    """Returns the member before training and after every micro-batch."""
    split = tasks.data(recipe.examples)
    step = step or jax.jit(functools.partial(train_step, recipe))
    history = [member]
    for epoch in range(epochs):
        order = epoch_order(0, epoch, recipe.examples, recipe.micro_batch)
        for micro in range(len(order.examples)):
            batch, last = read(split, order, micro), micro == len(order.examples) - 1
            position = Position(jnp.int32(epoch), jnp.int32(micro), jnp.bool_(last))
            history.append(step(history[-1], shared, batch, position))
    return history


def recipe_for(rows: Sequence[dict[str, float]], **optimizer: Any) -> Recipe:
    """Returns the recipe that trains all of `tasks.mlp()` with the hyperparameters of `rows`."""
    sizes = [int(row["batch_size"]) for row in rows]
    micro_batch = int(np.gcd.reduce(sizes))
    accumulates = any(size != micro_batch for size in sizes)
    dropout = any(row["dropout"] > 0 for row in rows)
    task, config = tasks.mlp(), Config(optimizer=OptimizerConfig(**optimizer))
    shapes = abstract(task)
    rates = make_rates(config, task, shapes, sorted(shapes), any(row["layer_decay"] < 1 for row in rows))
    return tasks.make_recipe(
        task, "all", EXAMPLES, micro_batch, accumulates=accumulates, dropout=dropout, rates=rates,
        focal=any(row["focal_gamma"] > 0 for row in rows), **optimizer,
    )  # fmt: skip


def train_population(
    programs: Programs,
    recipe: Recipe,
    shared: Shared,
    members: Any,
    epochs: Sequence[int],
    data_seed: int = 0,
) -> tuple[Any, list[Report]]:
    """Returns the members after `epochs`, and the report of each."""
    layout = OneDevice()
    shared, split, validation = layout.put_all((shared, tasks.data(recipe.examples), tasks.data(VALIDATION)))
    whole = make_order(np.arange(VALIDATION), 4)
    reports = []
    for epoch in epochs:
        order = epoch_order(data_seed, epoch, recipe.examples, recipe.micro_batch)
        bounds = np.int32(epoch), np.int32(0), np.int32(len(order.examples))
        members = programs.train(members, shared, split, layout.put_order(order), *bounds)
        checks = layout.put_order(whole), np.int32(len(whole.examples)), np.int32(epoch + 1)
        members, report = programs.validate(members, shared, validation, *checks)
        reports.append(report)
    return members, reports


def population(
    rows: Sequence[dict[str, float]],
    recipe: Recipe,
    shared: Shared,
    layout: OneDevice = ONE,
    on_device: bool = True,
    size: int = 0,
    data_seed: int = 0,
) -> tuple[Any, list[Report]]:
    """Returns the fetched members of a population after two epochs, and its reports."""
    programs = make_programs(recipe, layout, on_device)
    members = programs.init(shared, hparams.stack(rows, size or len(rows)))
    members, reports = train_population(programs, recipe, shared, members, (0, 1), data_seed)
    return programs.fetch(members), reports


def relative(a: Any, b: Any) -> float:
    """Returns the distance of two arrays over the norm of the second."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
