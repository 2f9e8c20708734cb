"""Trained weights in a module of the user's own compute what the task computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from finetune import to_linen, to_nnx
from finetune.errors import UserError
from finetune.member.params import unflatten
from finetune.models.weights import exported
from tests.helpers import tasks
from tests.own.networks import NNX, Linen, linen_task, nnx_task

X = jnp.asarray(tasks.data(5)["x"])


def test_linen_variables_compute_what_the_task_does():
    task = linen_task()
    leaves = tasks.base_leaves(task)
    leaves = {path: np.abs(leaf) for path, leaf in leaves.items()}  # variances too
    expected = task.apply(unflatten(leaves), {"x": X}, 0.0, None)
    np.testing.assert_array_equal(Linen().apply(to_linen(task, leaves), X, train=False), expected)


def test_an_nnx_module_computes_what_the_task_does(tmp_path):
    task = nnx_task()
    leaves = {path: np.abs(leaf) for path, leaf in tasks.base_leaves(task).items()}
    expected = task.apply(unflatten(leaves), {"x": X}, 0.0, None)
    save_file(leaves, tmp_path / "model.safetensors")
    description = {"format": exported.FORMAT, "architecture": {"model": "own"}}
    exported._write_json(tmp_path / exported.FILE, description)
    for weights in (leaves, tmp_path):
        module = to_nnx(NNX, weights)
        assert isinstance(module, NNX)
        assert nnx.state(module, nnx.BatchStat)
        np.testing.assert_allclose(jax.jit(lambda x, module=module: module(x))(X), expected, rtol=1e-6)


def test_weights_that_do_not_fit_are_named():
    for task, restore in ((nnx_task(), lambda leaves: to_nnx(NNX, leaves)), (linen_task(), None)):
        leaves = tasks.base_leaves(task)
        del leaves["out/bias"]
        with pytest.raises(UserError, match="1 missing: out/bias"):
            restore(leaves) if restore else to_linen(task, leaves)
