"""A population gives the same in every mode, with ghosts, and after compaction; it compiles once."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune.member.epoch import Report, epoch_order, make_order
from finetune.member.step import Position, Recipe, Shared, full_forward, train_step
from finetune.population.parallel import OneByOne, OneDevice
from finetune.population.programs import Programs, make_programs
from finetune.trials import hparams
from tests.helpers import formulas, tasks
from tests.helpers.training import STEM, VALIDATION, population, recipe_for, relative, train_population


@pytest.fixture(scope="module")
def rows() -> list[dict[str, float]]:
    changes = ({}, {"dropout": 0.3, "seed": 1}, {"batch_size": 12}, {"epochs": 1, "l2_sp": 0.1}, {"l1": 0.01})
    return [tasks.row(**each) for each in changes]


@pytest.fixture(scope="module")
def recipe(rows: list[dict[str, float]]) -> Recipe:
    return recipe_for(rows)


@pytest.fixture(scope="module")
def shared(recipe: Recipe) -> Shared:
    return tasks.make_shared(recipe, STEM)


@pytest.fixture(scope="module")
def programs(recipe: Recipe) -> Programs:
    return make_programs(recipe, OneDevice(), True)


@pytest.fixture(scope="module")
def expected(programs: Programs, rows: Any, recipe: Recipe, shared: Shared) -> tuple[Any, list[Report]]:
    members, reports = train_population(
        programs, recipe, shared, programs.init(shared, hparams.stack(rows, len(rows))), (0, 1)
    )
    return programs.fetch(members), reports


def assert_close(got: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("layout, on_device", [(OneByOne(), True), (OneByOne(), False), (OneDevice(), False)])
def test_every_mode_gives_the_same(
    layout: OneDevice, on_device: bool, rows: Any, recipe: Recipe, shared: Shared, expected: Any
) -> None:
    members, reports = population(rows, recipe, shared, layout, on_device)
    assert_close(members, expected[0])
    assert_close(reports, expected[1])


@pytest.mark.parametrize("layout", [OneDevice(), OneByOne()])
def test_a_convolution_gives_the_same_in_every_mode(layout: OneDevice) -> None:
    task = tasks.convolution()
    recipe = tasks.make_recipe(task, "all", 6, 3, metric="loss")
    shared = tasks.make_shared(recipe)
    programs = make_programs(recipe, layout, True)
    members = programs.init(shared, hparams.stack([tasks.row(batch_size=3), tasks.row(batch_size=3, seed=1)], 2))
    split, order = tasks.data(6, 4, 4, 1), epoch_order(0, 0, 6, 3)
    trained = programs.fetch(programs.train(members, shared, split, order, np.int32(0), np.int32(0), np.int32(2)))
    step = jax.jit(functools.partial(train_step, recipe))
    alone = tasks.start(recipe, shared, batch_size=3, seed=1)
    for row in range(2):
        batch = {name: array[order.examples[row]] for name, array in split.items()}
        batch |= {"index": order.examples[row], "weight": order.weight[row]}
        alone = step(alone, shared, batch, Position(jnp.int32(0), jnp.int32(row), jnp.bool_(row == 1)))
    for path in recipe.paths:
        assert relative(trained.params[path][1], alone.params[path]) < 1e-5


def test_ghosts_change_nothing(rows: Any, recipe: Recipe, shared: Shared, expected: Any) -> None:
    members, reports = population(rows, recipe, shared, size=8)
    assert_close(jax.tree.map(lambda leaf: leaf[:5], members), expected[0])
    assert_close(jax.tree.map(lambda leaf: leaf[:5], reports), expected[1])
    assert members.updates[5:].tolist() == [0, 0, 0]
    assert members.best.epoch[5:].tolist() == [0, 0, 0]
    assert members.diverged_update[5:].tolist() == [-1, -1, -1]


def test_compaction_changes_nothing(
    programs: Programs, rows: Any, recipe: Recipe, shared: Shared, expected: Any
) -> None:
    members = programs.init(shared, hparams.stack(rows, len(rows)))
    members, _ = train_population(programs, recipe, shared, members, (0,))
    before = programs.fetch(members)
    members = programs.take(members, [1, 4])
    for a, b in zip(jax.tree.leaves(programs.fetch(members)), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(a, b[[1, 4]])
    members, reports = train_population(programs, recipe, shared, members, (1,))
    assert_close(programs.fetch(members), jax.tree.map(lambda leaf: leaf[[1, 4]], expected[0]))
    assert_close(reports[0], jax.tree.map(lambda leaf: leaf[[1, 4]], expected[1][1]))


def test_one_program_whatever_the_hyperparameters(recipe: Recipe, shared: Shared, rows: Any) -> None:
    traces = []

    def apply(*arguments: Any) -> jax.Array:
        traces.append(1)
        return tasks.mlp().apply(*arguments)

    forward = full_forward(recipe.task._replace(apply=apply))
    recipe = recipe._replace(forward=forward, evaluating_forward=forward)
    programs = make_programs(recipe, OneDevice(), True)
    counts = []
    for changes in ({}, {"learning_rate": 0.1, "clip_norm": 1.0}, {"batch_size": 4, "epochs": 1, "seed": 8}):
        population_rows = [{**row, **changes} for row in rows]
        members = programs.init(shared, hparams.stack(population_rows, len(rows)))
        train_population(programs, recipe, shared, members, (0, 1))
        counts.append(len(traces))
    assert counts[0] == counts[1] == counts[2]
    assert {name: len(program.executables) for name, program in programs.compiled.items()} == {
        "init": 1,
        "train": 1,
        "validate": 1,
        "test": 0,
    }


def test_reports_hold_the_epochs_of_each_member(expected: Any) -> None:
    first, second = expected[1]
    assert first.updates.tolist() == [7, 7, 3, 7, 7]
    assert second.updates.tolist() == [14, 14, 6, 7, 14]  # the fourth member's horizon is one epoch
    assert second.train_loss[3] == 0.0
    assert (second.train_loss[[0, 1, 2, 4]] < first.train_loss[[0, 1, 2, 4]]).all()
    better = second.metrics["accuracy"] > first.metrics["accuracy"]
    better[3] = False
    assert second.best_epoch.tolist() == np.where(better, 2, 1).tolist()
    best = np.where(better, second.metrics["accuracy"], first.metrics["accuracy"])
    np.testing.assert_array_equal(second.best_value, best)


def test_the_test_split_is_judged_by_the_best_parameters(
    programs: Programs, rows: Any, recipe: Recipe, shared: Shared
) -> None:
    members = programs.init(shared, hparams.stack(rows, len(rows)))
    spoilt = members._replace(params=jax.tree.map(lambda leaf: leaf + jnp.nan, members.params))
    split, order = tasks.data(VALIDATION), make_order(np.arange(VALIDATION), 4)
    batches = np.int32(len(order.examples))
    metrics = programs.test(spoilt, shared, split, order, batches)
    for i in range(len(rows)):
        params = {path: np.asarray(leaf[i], np.float64) for path, leaf in members.best.params.items()}
        loss, _ = formulas.mlp_loss_and_gradients(params, split["x"], split["label"], 0.0)
        np.testing.assert_allclose(metrics["loss"][i], loss, rtol=1e-5)
