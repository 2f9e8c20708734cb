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
PASS = (5, 7)  # batch sizes of passes over the data
SETTINGS = hypothesis.settings(
    max_examples=int(os.environ.get("PROGRAMS", "60")),
    deadline=None,
    derandomize="PROGRAMS" not in os.environ,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
PLACE = some.integers(0, 3)
STEPS = some.lists(
    some.tuples(some.sampled_from(sorted(programs.OPERATIONS)), PLACE, PLACE, some.integers(0, 3)), max_size=8
)
KEPT = some.lists(some.tuples(some.sampled_from(programs.TYPES), PLACE), max_size=2)
TRAINED = some.sampled_from([("kernel", "bias"), ("kernel",), ("bias",), ("kernel", "second"), ("kernel", "layers")])


def pass_over(found, frozen, data, size):
    """Returns the features of all examples, in batches that start over at their end."""
    collected = {name: np.zeros((EXAMPLES, *one.shape), one.dtype) for name, one in found.features.items()}
    order = np.random.default_rng(size).permutation(EXAMPLES)
    for start in range(0, EXAMPLES, size):
        index = order[start : start + size]
        batch = {name: jnp.asarray(array[np.resize(index, size)]) for name, array in data.items()}
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
    for each in (size, *PASS):
        if reason := found.refuses(each):
            assert isinstance(reason, str)
            assert "\n" not in reason
            return reason
    constants = found.constants({path: frozen[path] for path in frozen})
    reads = {name: batch[name] for name in found.reads}
    rest = reads | {"index": jnp.asarray(index)}
    same(gradients(found.tail, params, constants, found.trunk(frozen, batch) | rest, keys), whole)
    for each in PASS:
        features = {name: jnp.asarray(array[index]) for name, array in pass_over(found, frozen, data, each).items()}
        same(gradients(found.tail, params, constants, features | rest, keys), whole)
    # A group that trains something else, in one pass.
    less = {path: leaf for path, leaf in everything.items() if path in trained[:1]}
    other = cut(
        forward, less, {path: everything[path] for path in everything if path not in less}, programs.EXAMPLE, with_keys
    )
    together = features_of([other, found])(everything, batch) | features_of([found, other])(everything, batch)
    constants = other.constants({path: everything[path] for path in everything if path not in less})
    rest |= {name: batch[name] for name in other.reads}
    if not other.refuses(size):
        found_less = gradients(other.tail, less, constants, together | rest, keys)
        same(found_less[1], whole[1])
        same(found_less[0], {path: whole[0][path] for path in less})
    return None


@SETTINGS
@hypothesis.given(STEPS, KEPT, TRAINED, some.sampled_from([1, 2, 3, 4, 8]), some.booleans())
def test_a_random_program_is_the_same_whole_shared_and_cached(steps, kept, trained, size, with_keys):
    check(steps, kept, trained, size, with_keys)
