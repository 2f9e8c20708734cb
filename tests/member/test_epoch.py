"""Orders of examples, and the mean over a split."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune.data.permutation import permutation
from finetune.member.epoch import epoch_order, evaluate, make_order
from finetune.member.step import Shared
from tests.helpers import formulas, tasks


def test_make_order_cuts_batches_and_pads_the_last() -> None:
    order = make_order(np.array([4, 2, 0, 1, 3]), 2)
    np.testing.assert_array_equal(order.examples, [[4, 2], [0, 1], [3, 0]])
    np.testing.assert_array_equal(order.weight, [[1, 1], [1, 1], [1, 0]])
    assert (order.examples.dtype, order.weight.dtype) == (np.int32, np.float32)


def test_an_epochs_order_is_the_same_on_every_machine() -> None:
    # The orders of the words pinned in test_permutation.py.
    np.testing.assert_array_equal(epoch_order(0, 0, 8, 8).examples, [[7, 6, 4, 5, 3, 1, 0, 2]])
    np.testing.assert_array_equal(epoch_order(3, 1, 8, 8).examples, [[3, 6, 2, 5, 7, 0, 1, 4]])
    # No draw of a split has the key of an order: words of zeros at its end do not change a key.
    assert epoch_order(0, 1, 8, 8).examples[0].tolist() != permutation(8, (0, 1)).tolist()


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10])
def test_an_epoch_reads_every_example_once(batch_size: int) -> None:
    order = epoch_order(5, 2, 10, batch_size)
    assert sorted(order.examples[order.weight > 0]) == list(range(10))
    np.testing.assert_array_equal(order.examples[order.weight > 0], epoch_order(5, 2, 10, 1).examples[:, 0])


def test_orders_differ_between_epochs_and_seeds() -> None:
    orders = {tuple(epoch_order(seed, epoch, 20, 20).examples[0]) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_evaluate_is_the_mean_over_the_split_whatever_the_batch() -> None:
    recipe = tasks.make_recipe(tasks.mlp(), "all", 11, 4)
    params = tasks.base_leaves(recipe.task)
    split = tasks.data(11)
    wide = {path: np.asarray(leaf, np.float64) for path, leaf in params.items()}
    loss, _ = formulas.mlp_loss_and_gradients(wide, split["x"], split["label"], 0.0)
    arrays = jax.tree.map(jnp.asarray, split)
    for batch_size in (4, 11):
        order = jax.tree.map(jnp.asarray, make_order(np.arange(11), batch_size))
        metrics = evaluate(recipe, params, Shared({}, {}), arrays, order, jnp.int32(len(order.examples)))
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
        assert set(metrics) == {"loss", "accuracy"}
