"""Random programs split: a tail on features, computed in batches of whatever size, is the whole program."""

import os

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as some

from finetune.feature_pass import features_of
from tests import programs
from tests.cuts import cut, example_keys

pytestmark = pytest.mark.usefixtures("float64")

EXAMPLES, RATE = 13, np.float64(0.3)
PASS = 5  # batch size of a pass over the data
SETTINGS = hypothesis.settings(
    max_examples=int(os.environ.get("PROGRAMS", "60")),
    deadline=None,
    derandomize="PROGRAMS" not in os.environ,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
PLACE = some.integers(0, 3)
STEPS = some.lists(some.tuples(some.sampled_from(sorted(programs.OPERATIONS)), PLACE, PLACE), max_size=8)
KEPT = some.lists(some.tuples(some.sampled_from(programs.TYPES), PLACE), max_size=2)
TRAINED = some.sampled_from([("kernel", "bias"), ("kernel",), ("bias",), ("kernel", "second"), ("kernel", "layers")])


def pass_over(found, frozen, data):
    """Returns the features of all examples, in batches that start over at their end."""
    collected = {name: np.zeros((EXAMPLES, *one.shape), one.dtype) for name, one in found.features.items()}
    order = np.random.default_rng(3).permutation(EXAMPLES)
    for start in range(0, EXAMPLES, PASS):
        index = order[start : start + PASS]
        batch = {name: jnp.asarray(array[np.resize(index, PASS)]) for name, array in data.items()}
        for name, array in found.trunk(frozen, batch).items():
            assert (array.shape[1:], array.dtype) == (found.features[name].shape, found.features[name].dtype)
            collected[name][index] = np.asarray(array)[: len(index)]
    return collected


def gradients(forward, params, frozen, batch, keys):
    def loss(params):
        outputs = forward(params, frozen, batch, RATE, keys)
        return programs.loss_of(outputs), outputs

    return jax.grad(loss, has_aux=True)(params)


def same(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), found, expected)


def check(steps, kept, trained, size, with_keys):
    forward, data = programs.forward_of(steps, kept), programs.data(EXAMPLES)
    params, frozen = programs.leaves_of()
    everything = {**params, **frozen}
    params = {path: everything[path] for path in trained}
    frozen = {path: leaf for path, leaf in everything.items() if path not in trained}
    found = cut(forward, params, frozen, programs.EXAMPLE, with_keys)
    index = np.random.default_rng(7).permutation(EXAMPLES)[:size]
    batch = {name: jnp.asarray(array[index]) for name, array in data.items()}
    keys = example_keys(size) if with_keys else None
    whole = gradients(forward, params, frozen, batch, keys)
    # A group that trains less, in the same pass.
    less = {path: params[path] for path in trained[:1]}
    more = {path: leaf for path, leaf in everything.items() if path not in less}
    other = cut(forward, less, more, programs.EXAMPLE, with_keys)
    reasons = [reason for each in (found, other) for batch_size in (size, PASS) if (reason := each.refuses(batch_size))]
    if reasons:
        assert all(isinstance(reason, str) and "\n" not in reason for reason in reasons)
        return reasons
    constants, every = found.constants(frozen), {**batch, "index": jnp.asarray(index)}
    shared = {name: every[name] for name in found.reads} | {"index": every["index"]}
    same(gradients(found.tail, params, constants, shared | found.trunk(frozen, batch), keys), whole)
    cached = {name: jnp.asarray(array[index]) for name, array in pass_over(found, frozen, data).items()}
    same(gradients(found.tail, params, constants, shared | cached, keys), whole)
    features = features_of([other, found])(everything, batch)
    both = gradients(other.tail, less, other.constants(more), every | features, keys)
    same(both, ({path: whole[0][path] for path in less}, whole[1]))
    return []


@SETTINGS
@hypothesis.given(STEPS, KEPT, TRAINED, some.sampled_from([1, 4, 8]), some.booleans())
def test_a_random_program_is_the_same_whole_shared_and_cached(steps, kept, trained, size, with_keys):
    check(steps, kept, trained, size, with_keys)
