"""A member that diverges stops at its last finite state and changes no bit of another."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune.member.epoch import epoch_order
from finetune.member.step import QUANTITIES, Recipe, Shared, eval_step, train_step
from finetune.population.parallel import OneDevice
from finetune.population.programs import Programs, make_programs
from finetune.trials import hparams
from tests.helpers import tasks
from tests.helpers.training import read, train_member, train_population


@pytest.fixture(scope="module")
def relu() -> tuple[Recipe, Shared, Any]:
    """A recipe whose relu hides a NaN that comes from below, what it shares, and its compiled step."""
    task = tasks.mlp(activation=lambda x: jnp.where(x > 0, x, 0))
    recipe = tasks.make_recipe(task, "all", 11, 4, schedule="constant")
    return recipe, tasks.make_shared(recipe), jax.jit(functools.partial(train_step, recipe))


def test_a_member_that_diverges_stays_at_its_last_finite_state(relu: tuple) -> None:
    recipe, shared, step = relu
    member = tasks.start(recipe, shared, learning_rate=1e30, warmup_fraction=0.0)
    history = train_member(recipe, shared, member, epochs=2, step=step)
    # The first update moves every weight by about 1e30; the product of three such layers is beyond float32.
    assert [int(each.diverged_update) for each in history] == [-1, -1, 1, 1, 1, 1, 1]
    assert QUANTITIES[int(history[-1].diverged_quantity)] == "loss"
    assert [int(each.updates) for each in history] == [0, 1, 1, 1, 1, 1, 1]
    for name in ("params", "optimizer_state", "loss_sum", "loss_examples"):
        for end, finite in zip(
            jax.tree.leaves(getattr(history[-1], name)), jax.tree.leaves(getattr(history[1], name)), strict=True
        ):
            np.testing.assert_array_equal(end, finite)
            assert np.isfinite(end).all()
    assert max(float(jnp.abs(leaf).max()) for leaf in history[-1].params.values()) > 1e29


def test_a_member_that_has_diverged_does_not_train_again(relu: tuple) -> None:
    recipe, shared, step = relu
    member = tasks.start(recipe, shared)._replace(diverged_update=jnp.int32(0), diverged_quantity=jnp.int32(1))
    end = train_member(recipe, shared, member, epochs=1, step=step)[-1]
    for a, b in zip(jax.tree.leaves(end), jax.tree.leaves(member), strict=True):
        np.testing.assert_array_equal(a, b)


def test_parameters_beyond_the_largest_float_are_caught(relu: tuple) -> None:
    recipe, shared, step = relu
    member = tasks.start(recipe, shared, learning_rate=1.0, weight_decay=3e38, warmup_fraction=0.0)
    member = member._replace(params={path: 10 * leaf for path, leaf in member.params.items()})
    end = train_member(recipe, shared, member, epochs=1, step=step)[-1]
    assert (int(end.diverged_update), QUANTITIES[int(end.diverged_quantity)]) == (0, "parameters")


@pytest.mark.parametrize("path, quantity", [("stem/bias", "parameters"), ("block_0/kernel", "gradient")])
def test_nan_weights_behind_a_finite_loss_are_caught(relu: tuple, path: str, quantity: str) -> None:
    recipe, shared, step = relu
    member = tasks.start(recipe, shared)
    poisoned = member.params[path].at[..., 0].set(jnp.nan)
    member = member._replace(params={**member.params, path: poisoned})
    batch = read(tasks.data(recipe.examples), epoch_order(0, 0, recipe.examples, 4), 0)
    assert np.isfinite(eval_step(recipe, member.params, shared, batch)["loss"])
    end = train_member(recipe, shared, member, epochs=1, step=step)[-1]
    # A kernel decays: the gradient of its penalty, 0·NaN, shows the NaN first.
    assert (int(end.diverged_update), QUANTITIES[int(end.diverged_quantity)]) == (0, quantity)
    assert int(end.updates) == 0


@pytest.fixture(scope="module")
def relu_programs() -> tuple[Recipe, Shared, Programs]:
    """Programs of a model in which a NaN that comes from below its relu leaves the loss finite."""
    task = tasks.mlp(activation=lambda x: jnp.where(x > 0, x, 0))
    recipe = tasks.make_recipe(task, "all", 26, 4, accumulates=True)
    return recipe, tasks.make_shared(recipe), make_programs(recipe, OneDevice(), True)


def bitwise_equal(a: Any, b: Any, members: Sequence[int]) -> None:
    for first, second in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(first)[list(members)], np.asarray(second)[list(members)])


def test_a_member_that_diverges_changes_no_bit_of_another(relu_programs: tuple) -> None:
    recipe, shared, programs = relu_programs
    others = [tasks.row(), tasks.row(batch_size=8, seed=2), tasks.row(epochs=1)]
    ends = []
    for changes in ({"learning_rate": 1e30, "warmup_fraction": 0.0}, {}, {"epochs": 0}):
        rows = [*others[:2], tasks.row(seed=9, **changes), others[2]]
        members = programs.init(shared, hparams.stack(rows, 4))
        members, reports = train_population(programs, recipe, shared, members, (0, 1))
        ends.append((programs.fetch(members), reports))
    for other in ends[1:]:
        bitwise_equal(ends[0], other, (0, 1, 3))
    wild, reports = ends[0]
    assert wild.diverged_update.tolist() == [-1, -1, 1, -1]
    assert QUANTITIES[wild.diverged_quantity[2]] == "loss"
    assert wild.updates.tolist() == [14, 8, 1, 7]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((wild.params, wild.optimizer_state)))
    assert reports[0].diverged_update.tolist() == [-1, -1, 1, -1]
    assert wild.best.epoch[2] == 0


def test_nan_weights_behind_a_finite_loss_change_no_bit_of_another(relu_programs: tuple) -> None:
    recipe, shared, programs = relu_programs
    ends = []
    for value in (np.nan, 0.1):
        members = programs.init(shared, hparams.stack([tasks.row(), tasks.row(seed=1), tasks.row(seed=2)], 3))
        bias = members.params["stem/bias"].at[1, 0].set(value)
        members = members._replace(params=members.params | {"stem/bias": bias})
        members, reports = train_population(programs, recipe, shared, members, (0, 1))
        ends.append((programs.fetch(members), reports))
    bitwise_equal(*ends, (0, 2))
    assert ends[0][0].diverged_update.tolist() == [-1, 0, -1]
    assert QUANTITIES[ends[0][0].diverged_quantity[1]] == "parameters"
    assert np.isfinite(ends[0][1][0].metrics["loss"]).all()
