"""Random numbers drawn once a seed: the same numbers, and no more of them than there are seeds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune.jaxpr.random_numbers import with_draws
from finetune.member.step import full_forward
from tests.helpers import cuts
from tests.helpers.tasks import base_leaves, data, mlp

SEEDS, MEMBERS = 3, 8


def keys_of(seeds, examples):
    def of_seed(seed):
        return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed, impl="threefry2x32"), jnp.arange(examples))

    return jax.vmap(of_seed)(jnp.arange(seeds))


def test_a_member_gets_the_numbers_of_its_own_seed():
    forward, base, batch = full_forward(mlp()), base_leaves(mlp()), {"x": data(4)["x"]}
    keys = keys_of(SEEDS, 4)
    for place in range(SEEDS):
        found = with_draws(forward, base, {}, batch, 0.4, keys=keys, place=jnp.int32(place))
        np.testing.assert_array_equal(found, forward(base, {}, batch, 0.4, keys[place]))


@pytest.mark.usefixtures("float64")
def test_gradients_are_those_of_the_whole_program():
    model, example = cuts.bert()
    task = cuts.task_of(model, example)
    forward, params = full_forward(task), cuts.draw(cuts.abstract(task))
    batch, keys = cuts.batch_of(example, 4), keys_of(SEEDS, 4)

    def loss(params, drawn):
        if drawn:
            return with_draws(forward, params, {}, batch, 0.3, keys=keys, place=jnp.int32(1)).sum()
        return forward(params, {}, batch, 0.3, keys[1]).sum()

    found, expected = (jax.jit(jax.grad(loss), static_argnums=1)(params, drawn) for drawn in (True, False))
    for path, leaf in expected.items():
        np.testing.assert_allclose(found[path], leaf, rtol=1e-10, atol=1e-12)


def test_a_population_draws_for_its_seeds_and_not_for_its_members():
    forward, base, batch = full_forward(mlp(width=64)), base_leaves(mlp(width=64)), {"x": data(4)["x"]}
    keys = keys_of(SEEDS, 4)

    def member(rate, place):
        return with_draws(forward, base, {}, batch, rate, keys=keys, place=place)

    jaxpr = jax.make_jaxpr(jax.vmap(member))(jnp.full(MEMBERS, 0.4), jnp.zeros(MEMBERS, jnp.int32))
    drawn = [equation.outvars[0].aval.size for equation in jaxpr.eqns if equation.primitive.name == "random_bits"]
    assert drawn == [SEEDS * 4 * 64]
