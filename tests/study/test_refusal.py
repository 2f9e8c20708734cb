"""Where a trunk ends because examples meet, or the program changes with the batch size."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune.errors import UserError
from finetune.member.params import flatten, partition, unflatten
from tests.helpers.cuts import cut, struct

pytestmark = pytest.mark.usefixtures("float64")


class Normalised(nn.Module):
    """Two products with a batch norm between them, and a head."""

    running: bool

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(7, name="first")(x)
        x = nn.BatchNorm(use_running_average=self.running, momentum=0.9, name="statistics")(x)
        return nn.Dense(2, name="head")(nn.relu(nn.Dense(5, name="second")(x)))


def normalised(running):
    module = Normalised(running)
    variables = module.init(jax.random.key(0), jnp.ones((2, 4)))

    def forward(params, frozen, batch, dropout, keys):
        tree = unflatten({**frozen, **params})
        return module.apply(tree, batch["x"], mutable=[] if running else ["batch_stats"])[0]

    leaves = {path: jnp.asarray(leaf, jnp.float64) for path, leaf in flatten(variables).items()}
    params, frozen = partition(leaves, frozenset({"params/head/kernel", "params/head/bias"}))
    return forward, params, frozen


def test_batch_statistics_are_refused_and_running_ones_are_not():
    example = {"x": struct((4,), jnp.float64)}
    refused = cut(*normalised(running=False), example)
    assert "reduce_sum" in refused.refused
    assert "statistics" in refused.refused
    assert [feature.shape for feature in refused.features.values()] == [(7,)]  # before the examples meet
    accepted = cut(*normalised(running=True), example)
    assert accepted.refused is None
    assert [feature.shape for feature in accepted.features.values()] == [(5,)]


def test_refused_trunks_still_give_the_right_result():
    forward, params, frozen = normalised(running=False)
    found = cut(forward, params, frozen, {"x": struct((4,), jnp.float64)})
    batch = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)))}
    expected = forward(params, frozen, batch, 0.0, None)
    outputs = found.tail(params, found.constants(frozen), found.trunk(frozen, batch), 0.0, None)
    np.testing.assert_allclose(outputs, expected, rtol=1e-10)


def test_a_program_that_changes_with_the_batch_size_is_left_whole():
    def forward(params, frozen, batch, dropout, keys):
        x = batch["x"] @ frozen["kernel"]
        for _ in range(len(x)):
            x = jnp.tanh(x)
        return x @ params["head"]

    params, frozen = {"head": jnp.ones((3, 2))}, {"kernel": jnp.eye(3)}
    found = cut(forward, params, frozen, {"x": struct((3,), jnp.float64)})
    assert "batch size" in found.refused
    assert found.features == {}
    for size in (1, 5):
        batch = {"x": jnp.arange(3.0 * size).reshape(size, 3)}
        outputs = found.tail(params, found.constants(frozen), batch, 0.0, None)
        np.testing.assert_allclose(outputs, forward(params, frozen, batch, 0.0, None), rtol=1e-12)


def test_a_batch_size_that_runs_another_program_is_an_error():
    def forward(params, frozen, batch, dropout, keys):
        x = batch["x"] @ frozen["kernel"]
        return (x if len(x) < 5 else jnp.tanh(x)) @ params["head"]

    found = cut(forward, {"head": jnp.ones((3, 2))}, {"kernel": jnp.eye(3)}, {"x": struct((3,), jnp.float64)})
    with pytest.raises(UserError, match="batch of 5"):
        found.trunk({"kernel": jnp.eye(3)}, {"x": jnp.ones((5, 3))})
