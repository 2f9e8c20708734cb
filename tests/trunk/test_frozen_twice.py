"""Frozen layers that are applied twice, losses that read data, and batches that a cut refuses: from plan to loss."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune.config import TrunkConfig
from finetune.errors import UserError
from finetune.member.epoch import make_order
from finetune.member.objective import cross_entropy
from finetune.member.params import abstract, partition
from finetune.population.feed import from_trunk
from finetune.population.parallel import OneDevice
from finetune.trials.grid import Trial
from finetune.trunk import feature_pass
from finetune.trunk.choice import Room, choose_trunk, cut_splits
from finetune.trunk.cut import Cut
from finetune.trunk.feature_pass import Pass
from finetune.trunk.feature_store import FeatureStore
from tests.helpers import tasks
from tests.helpers.cuts import struct
from tests.helpers.tasks import CLASSES, FEATURES, WIDTH, base_leaves, data, make_recipe, row

PLENTY, EXAMPLES = 10**12, 10
SIZES = {"stem": (FEATURES, WIDTH), "block_0": (WIDTH, WIDTH), "head": (3 * WIDTH, CLASSES)}


def task_of(apply, loss=None):
    task = tasks._task(lambda key: tasks._draw(key, SIZES), apply)
    return task if loss is None else task._replace(loss=loss)


def twice(params, batch, dropout, keys):
    """Two branches of a Siamese network on one input, and which of its entries are positive."""
    one, other = (jnp.tanh(batch["x"] @ params["stem"]["kernel"]) for _ in range(2))
    y = jnp.concatenate([one, other, (one > 0).astype(one.dtype)], 1)
    return jnp.tanh(y @ params["head"]["kernel"]) * jnp.sum(one * other)


def in_halves(params, batch, dropout, keys):
    """Examples are divided by how many halves of eight the batch has: alike for 2 and for 3 examples, not for 8."""
    y = jnp.tanh(batch["x"] @ params["stem"]["kernel"]) / max(len(batch["x"]) // 4, 1)
    return jnp.concatenate([y, y, y], 1) @ params["head"]["kernel"]


def counted(params, batch, dropout, keys):
    y = jax.lax.fori_loop(0, 3, lambda i, y: jnp.tanh(y @ params["block_0"]["kernel"]) + i, batch["x"][:, :WIDTH])
    return jnp.concatenate([y, y, y], 1) @ params["head"]["kernel"]


def trunk_of(task, split, mode="cached", device=PLENTY, dtype="float32", **options):
    recipe = make_recipe(task, "head", examples=EXAMPLES, micro_batch=2)
    trials = [Trial(row(seed=seed), {}) for seed in range(2)]
    config = TrunkConfig(mode=mode, dtype=dtype)
    return choose_trunk(config, recipe, abstract(task), [split] * 3, trials, Room(device, PLENTY), **options), recipe


@pytest.mark.parametrize("apply", [twice, counted])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("place", ["device", "host", "disk"])
def test_features_wherever_they_lie_give_the_outputs_of_the_whole(apply, dtype, place, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_pass, "_WORTH_KEEPING_FLOPS", 0.0)
    store = FeatureStore(tmp_path, 10**9 if place == "disk" else 0)
    task, split = task_of(apply), data(EXAMPLES)
    base = base_leaves(task)
    trunk, recipe = trunk_of(task, split, device=PLENTY if place == "device" else 0, dtype=dtype)
    assert (trunk.mode, trunk.place) == ("cached", "device" if place == "device" else "host")
    params, frozen = partition(base, frozenset(recipe.paths))
    index = np.array([3, 0, 7, 8])
    expected = recipe.forward(params, frozen, {"x": split["x"][index]}, 0.0, None)
    for _ in range(2 if place == "disk" else 1):  # computed, then found
        trunk_pass = Pass([trunk], base, [split] * 3, batch_size=4, store=store)
        features = trunk_pass.run(lambda: None)
        train, *_ = cut_splits([split] * 3, features, trunk)
        batch = {name: array[index] for name, array in train.items()}
        found = trunk.train.tail(params, trunk.train.constants(frozen), batch, 0.0, None)
        tolerance = 1e-5 if dtype == "float32" else 2**-6
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())
    assert trunk_pass.is_found == (place == "disk")


def judged_by_data(logits, batch, smoothing):
    """The longer an example, the more it counts."""
    return cross_entropy(logits, batch["label"], smoothing) * jnp.sum(batch["x"] ** 2, 1)


@pytest.mark.parametrize("mode", ["cached", "shared"])
def test_what_a_loss_reads_of_the_data_is_in_the_batch(mode):
    task, split = task_of(in_halves, judged_by_data), data(EXAMPLES)
    trunk, recipe = trunk_of(task, split, mode)
    assert trunk.mode == mode
    params, frozen = partition(base_leaves(task), frozenset(recipe.paths))
    order = make_order(np.array([3, 0, 7, 8]), 4)
    if mode == "cached":
        features = Pass([trunk], base_leaves(task), [split] * 3, batch_size=4, store=FeatureStore(Path(), 0)).run(int)
        batch = {name: array[order.examples[0]] for name, array in cut_splits([split] * 3, features, trunk)[0].items()}
    else:
        batch = from_trunk(trunk, OneDevice().put_all(frozen)).train(split, order, 0)
    outputs = trunk.train.tail(params, trunk.train.constants(frozen), batch, 0.0, None)
    whole = {name: array[order.examples[0]] for name, array in split.items()}
    expected = task.loss(recipe.forward(params, frozen, whole, 0.0, None), whole, 0.0)
    np.testing.assert_allclose(task.loss(outputs, batch, 0.0), expected, rtol=1e-5)
    assert trunk_of(task_of(twice), split, mode)[0].judged == set()


@pytest.mark.parametrize(("eval_batch", "mode"), [(2, "cached"), (8, "shared")])
def test_batches_that_are_not_cut_alike_are_not_cut_and_the_plan_says_so(eval_batch, mode):
    trunk, _ = trunk_of(task_of(in_halves), data(EXAMPLES), eval_batch=eval_batch)
    assert trunk.mode == mode
    if mode == "shared":
        assert trunk.reason == "a batch of 8 examples runs another program than one of 2"
        assert trunk.train is None


def test_no_dtype_of_features_without_features():
    with pytest.raises(UserError, match="^trunk.dtype is 'bfloat16', and a batch of 8 examples runs another program"):
        trunk_of(task_of(in_halves), data(EXAMPLES), dtype="bfloat16", eval_batch=8)


def test_which_examples_are_padding_is_no_part_of_the_trunk():
    def forward(params, frozen, batch, dropout, keys):
        return jnp.tanh(batch["x"] @ frozen["stem"] * batch["weight"][:, None]) @ params["head"]

    params, frozen = {"head": jnp.ones((WIDTH, 2))}, {"stem": jnp.ones((FEATURES, WIDTH))}
    example = {"x": struct((FEATURES,), jnp.float32), "weight": struct((), jnp.float32)}
    cut = Cut(forward, params, frozen, example, struct((), jnp.float32), keys=False)
    x, weight = jnp.asarray(data(4)["x"]), jnp.array([1.0, 1.0, 1.0, 0.0])
    features = cut.trunk(frozen, {"x": x})
    assert [one.shape for one in features.values()] == [(4, WIDTH)]
    outputs = cut.tail(params, {}, {"weight": weight} | features, 0.0, None)
    np.testing.assert_allclose(outputs, forward(params, frozen, {"x": x, "weight": weight}, 0.0, None), rtol=1e-6)
