"""One member: its updates against NumPy, against masking over the whole tree, and its bookkeeping."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from finetune.member.epoch import epoch_order, make_order
from finetune.member.params import Leaves, flatten, unflatten
from finetune.member.step import Position, Shared, eval_step, keep_best, seed_key, train_step
from tests.helpers import formulas, tasks
from tests.helpers.training import STEM, read, train_member

EXAMPLES = 11


def by_hand(name: str, h: dict[str, float], start: Leaves, pretrained: Leaves, coupling: str) -> tuple[Leaves, int]:
    """Returns the leaves after all epochs, in NumPy, with batches cut straight from the permutation, and the updates.

    All leaves train; kernels decay.
    """
    split, batch_size = tasks.data(EXAMPLES), int(h["batch_size"])
    decayed = {path for path in start if path.endswith("kernel")}
    optimizer = formulas.Optimizer(name, h, decayed, coupling)
    params, pretrained = jax.device_get((start, pretrained))
    total, updates = int(h["epochs"]) * -(-EXAMPLES // batch_size), 0
    for epoch in range(int(h["epochs"])):
        permutation = epoch_order(0, epoch, EXAMPLES, 1).examples[:, 0]
        for first in range(0, EXAMPLES, batch_size):
            index = permutation[first : first + batch_size]
            _, gradients = formulas.mlp_loss_and_gradients(
                params, split["x"][index], split["label"][index], h["label_smoothing"]
            )
            pull = formulas.penalty_gradients(params, pretrained, decayed, h)
            gradients = {path: gradient + pull[path] for path, gradient in gradients.items()}
            params = optimizer.update(params, gradients, formulas.cosine(updates, total, h["warmup_fraction"]))
            updates += 1
    assert updates == total
    return params, updates


EVERY_TERM = {
    "learning_rate": 0.03, "warmup_fraction": 0.3, "weight_decay": 0.2, "l2": 0.05, "l1": 0.01, "l2_sp": 0.3,
    "label_smoothing": 0.15, "clip_norm": 0.4, "momentum": 0.8, "beta1": 0.85, "beta2": 0.97, "epochs": 3,
}  # fmt: skip


@pytest.mark.parametrize(
    "name, coupling, batch_size, micro_batch",
    [
        ("adamw", "learning_rate", 4, 4),
        ("adamw", "independent", 8, 2),
        ("adamw", "learning_rate", 11, 1),
        ("sgd", "learning_rate", 6, 3),
        ("lion", "learning_rate", 4, 2),
    ],
)
def test_training_equals_the_formula(
    float64: None, name: str, coupling: str, batch_size: int, micro_batch: int
) -> None:
    accumulates = batch_size != micro_batch
    recipe = tasks.make_recipe(
        tasks.mlp(), "all", EXAMPLES, micro_batch, accumulates=accumulates, name=name, decay_coupling=coupling
    )
    shared = tasks.make_shared(recipe, STEM)
    changes = EVERY_TERM | {"batch_size": batch_size}
    member = tasks.start(recipe, shared, **changes)
    end = train_member(recipe, shared, member, epochs=4)[-1]  # one epoch beyond the horizon
    expected, updates = by_hand(name, tasks.row(**changes), member.params, shared.pretrained, coupling)
    assert int(end.updates) == updates == 3 * -(-11 // batch_size)
    for path, leaf in expected.items():
        np.testing.assert_allclose(end.params[path], leaf, rtol=1e-10, atol=1e-12)


def test_emphasis_is_a_factor_of_the_loss_in_training_alone(float64: None) -> None:
    weights, gamma, task = np.array([0.5, 1.0, 4.0]), 2.0, tasks.mlp()

    def by_hand(logits: jax.Array, batch: Any, smoothing: jax.Array) -> jax.Array:
        of_label = jnp.take_along_axis(jax.nn.softmax(logits), batch["label"][:, None], axis=1)[:, 0]
        return task.loss(logits, batch, smoothing) * jnp.asarray(weights)[batch["label"]] * (1 - of_label) ** gamma

    ends, losses = [], []
    for each, focal, given in ((task, True, weights), (task._replace(loss=by_hand), False, None)):
        recipe = tasks.make_recipe(each, "all", EXAMPLES, 4, focal=focal, name="sgd")
        shared = tasks.make_shared(recipe)._replace(class_weights=given)
        member = tasks.start(recipe, shared, learning_rate=0.3, focal_gamma=gamma)
        ends.append(train_member(recipe, shared, member, epochs=2)[-1])
        batch = tasks.data(EXAMPLES) | {"weight": np.ones(EXAMPLES)}
        losses.append(float(eval_step(recipe, ends[-1].params, shared, batch)["loss"]))
    for path, leaf in ends[1].params.items():
        np.testing.assert_allclose(ends[0].params[path], leaf, rtol=1e-10)
    assert losses[0] > losses[1] * 1.2  # of which the first is the plain one


def test_partition_equals_masking_the_whole_tree(float64: None) -> None:
    task = tasks.mlp()
    recipe = tasks.make_recipe(task, "last:1+!block_0/bias", EXAMPLES, 4, schedule="constant")
    shared = tasks.make_shared(recipe)
    member = tasks.start(recipe, shared, weight_decay=0.1, warmup_fraction=0.0, epochs=9)
    history = train_member(recipe, shared, member, epochs=2)[:6]

    def masked_loss(params: Any, batch: Any) -> jax.Array:
        loss = task.loss(task.apply(params, batch, 0.0, None), batch, 0.0)
        return (loss * batch["weight"]).sum() / batch["weight"].sum()

    whole = unflatten({**shared.frozen, **member.params})
    trains = unflatten({path: path in recipe.paths for path in flatten(whole)})
    frozen = jax.tree.map(lambda flag: not flag, trains)
    kernels = unflatten({path: path.endswith("kernel") for path in flatten(whole)})
    adamw = optax.adamw(0.01, weight_decay=0.1, mask=kernels)
    optimizer = optax.chain(optax.masked(adamw, trains), optax.masked(optax.set_to_zero(), frozen))
    state, split = optimizer.init(whole), tasks.data(EXAMPLES)
    for step in range(5):
        batch = read(split, epoch_order(0, step // 3, EXAMPLES, 4), step % 3)
        changes, state = optimizer.update(jax.grad(masked_loss)(whole, batch), state, whole)
        whole = optax.apply_updates(whole, changes)
        after = {**shared.frozen, **history[step + 1].params}
        for path, leaf in flatten(whole).items():
            np.testing.assert_allclose(after[path], leaf, rtol=1e-10, err_msg=path)


def test_frozen_leaves_keep_every_bit_and_trained_leaves_all_change() -> None:
    task = tasks.convolution()
    recipe = tasks.make_recipe(task, "head+stem/bias", EXAMPLES, 4)
    shared = tasks.make_shared(recipe)
    before = jax.tree.map(np.array, shared.frozen)
    member = tasks.start(recipe, shared, epochs=9)
    split, step = tasks.data(EXAMPLES, 4, 4, 1), jax.jit(functools.partial(train_step, recipe))
    end = member
    for row in range(5):
        batch = read(split, epoch_order(0, 0, EXAMPLES, 2), row)
        end = step(end, shared, batch, Position(jnp.int32(0), jnp.int32(row), jnp.bool_(False)))
    assert set(before) == {"stem/kernel"}
    assert set(end.params) == {"stem/bias", "head/kernel", "head/bias"}
    for leaves in (end.params, end.best.params, end.optimizer_state[1].mu, end.optimizer_state[1].nu):
        assert set(leaves) == set(recipe.paths)
    np.testing.assert_array_equal(shared.frozen["stem/kernel"], before["stem/kernel"])
    for path, leaf in end.params.items():
        assert (np.asarray(leaf) != np.asarray(member.params[path])).any(), path


def test_a_member_starts_from_pretrained_leaves_and_its_seed() -> None:
    task = tasks.mlp()
    recipe = tasks.make_recipe(task, "all", EXAMPLES, 4)
    shared = tasks.make_shared(recipe, STEM)
    members = [tasks.start(recipe, shared, seed=seed) for seed in (3, 3, 4)]
    drawn = flatten(jax.jit(task.init)(seed_key(jnp.int32(3), 0)))
    for path in recipe.paths:
        first, second, third = (np.asarray(member.params[path]) for member in members)
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, shared.pretrained[path] if path in STEM else drawn[path])
        assert (first == third).all() == (path in STEM)


def test_every_seed_and_purpose_has_a_key_of_its_own() -> None:
    keys = [jax.random.key_data(seed_key(jnp.int32(seed), purpose)) for seed in range(4) for purpose in range(2)]
    assert len({tuple(key.tolist()) for key in keys}) == 8


def test_updates_come_every_few_micro_batches_and_at_the_end_of_an_epoch() -> None:
    recipe = tasks.make_recipe(tasks.mlp(), "head", EXAMPLES, 2, accumulates=True)
    shared = tasks.make_shared(recipe)
    member = tasks.start(recipe, shared, batch_size=8, epochs=2)
    history = train_member(recipe, shared, member, epochs=3)
    # 11 examples are 6 micro-batches: 2+2+2+2, 2+1.
    assert [int(each.updates) for each in history] == [0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 4, *[4] * 6]
    assert [float(each.gradient_examples) for each in history[:8]] == [0, 2, 4, 6, 0, 2, 0, 2]
    assert [float(each.loss_examples) for each in history[1:7]] == [2, 4, 6, 8, 10, 11]
    for before, after in itertools.pairwise(history[12:]):
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_sum_of_losses_is_that_of_the_parameters_at_each_step() -> None:
    recipe = tasks.make_recipe(tasks.mlp(), "all", EXAMPLES, 4)
    shared = tasks.make_shared(recipe)
    h = tasks.row(label_smoothing=0.2, epochs=1)
    history = train_member(recipe, shared, tasks.start(recipe, shared, **h), epochs=1)
    split, permutation = tasks.data(EXAMPLES), epoch_order(0, 0, EXAMPLES, 1).examples[:, 0]
    total = 0.0
    for step, first in enumerate(range(0, EXAMPLES, 4)):
        index = permutation[first : first + 4]
        params = {path: np.asarray(leaf, np.float64) for path, leaf in history[step].params.items()}
        total += len(index) * formulas.mlp_loss_and_gradients(params, split["x"][index], split["label"][index], 0.2)[0]
    np.testing.assert_allclose(history[-1].loss_sum, total, rtol=1e-5)
    assert float(history[-1].loss_examples) == EXAMPLES


def test_eval_step_sums_over_real_examples_without_smoothing() -> None:
    recipe = tasks.make_recipe(tasks.mlp(), "all", EXAMPLES, 4)
    params = tasks.base_leaves(recipe.task)
    split = tasks.data(EXAMPLES)
    batch = read(split, make_order(np.arange(EXAMPLES), 8), 1)  # 3 examples and 5 places of padding
    sums = eval_step(recipe, params, Shared({}, {}), batch)
    wide = {path: np.asarray(leaf, np.float64) for path, leaf in params.items()}
    loss, _ = formulas.mlp_loss_and_gradients(wide, split["x"][8:], split["label"][8:], 0.0)
    np.testing.assert_allclose(sums["loss"], 3 * loss, rtol=1e-5)
    logits = np.tanh(np.tanh(split["x"][8:] @ wide["stem/kernel"] + wide["stem/bias"]) @ wide["block_0/kernel"]
                     + wide["block_0/bias"]) @ wide["head/kernel"] + wide["head/bias"]  # fmt: skip
    assert float(sums["accuracy"]) == (logits.argmax(axis=1) == split["label"][8:]).sum()
    assert float(sums["examples"]) == 3


def test_one_trace_whatever_the_hyperparameters() -> None:
    traces = []
    task = tasks.mlp()

    def apply(*arguments: Any) -> jax.Array:
        traces.append(1)
        return task.apply(*arguments)

    recipe = tasks.make_recipe(task._replace(apply=apply), "all", EXAMPLES, 2, accumulates=True, dropout=True)
    shared = tasks.make_shared(recipe)
    step = jax.jit(functools.partial(train_step, recipe))
    changes = [
        {}, {"batch_size": 4}, {"batch_size": 6, "dropout": 0.3}, {"epochs": 1, "seed": 5}, {"learning_rate": 0.0},
        {"clip_norm": 1.0, "l1": 0.1, "l2": 0.1, "l2_sp": 0.1}, {"warmup_fraction": 0.0, "beta1": 0.0},
    ]  # fmt: skip
    member = tasks.start(recipe, shared)
    for each in changes:
        train_member(recipe, shared, member._replace(hparams=tasks.scalars(**each)), epochs=2, step=step)
    assert sum(traces) == 1
    assert step._cache_size() == 1


def test_keep_best_keeps_the_larger_value_and_the_earlier_of_ties() -> None:
    recipe = tasks.make_recipe(tasks.mlp(), "head", EXAMPLES, 4)
    member = tasks.start(recipe, tasks.make_shared(recipe), epochs=5)
    kept = []
    for epoch, value in enumerate([0.5, 0.4, 0.7, 0.7, np.nan, 0.9], start=1):
        params = {path: jnp.full_like(leaf, epoch) for path, leaf in member.params.items()}
        member = keep_best(member._replace(params=params), jnp.float32(value), jnp.int32(epoch))
        kept.append((int(member.best.epoch), round(float(member.best.value), 6)))
        assert all((leaf == member.best.epoch).all() for leaf in member.best.params.values())
    # The sixth epoch is beyond the member's horizon.
    assert kept == [(1, 0.5), (1, 0.5), (3, 0.7), (3, 0.7), (3, 0.7), (3, 0.7)]


def test_keep_best_takes_nothing_from_a_member_that_diverged() -> None:
    recipe = tasks.make_recipe(tasks.mlp(), "head", EXAMPLES, 4)
    member = tasks.start(recipe, tasks.make_shared(recipe))
    member = keep_best(member._replace(diverged_update=jnp.int32(0)), jnp.float32(1), jnp.int32(1))
    assert int(member.best.epoch) == 0
    assert float(member.best.value) == -np.inf
