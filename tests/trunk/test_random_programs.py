"""Random programs split: a tail on features, computed in batches of whatever size, is the whole program."""

import os

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as some

from finetune.trunk.feature_pass import features_of
from tests.helpers import programs
from tests.helpers.cuts import cut, example_keys

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
    features = features_of([found, other])(everything, batch)
    both = gradients(other.tail, less, other.constants(more), every | features, keys)
    same(both, ({path: whole[0][path] for path in less}, whole[1]))
    return []


# Operands that are frozen: place 2 of the kernels, 1 of the vectors, 1 of the scalars.
FROZEN = {"x": 0, "k": 2, "c": 1, "s": 1, "i": 0, "t": 0}
CACHED = """
barrier cond_of_two counted_stack doubled drawn_by_each frozen_bound loop loop_counter_kept mapped ranks
remat_two scanned_table sequential set_first set_of_each swapped_loop updated_slice while_scaled
"""


def frozen_step(name):
    takes, *_ = programs.OPERATIONS[name]
    return name, *(FROZEN[type_] for type_ in takes)


@pytest.mark.parametrize("name", CACHED.split())
def test_what_is_frozen_and_apart_is_computed_once(name):
    steps, given = [frozen_step(name), ("layer", 0, 2)], programs.OPERATIONS[name][1]
    assert check(steps, [(given, 0)], ("kernel", "bias"), 4, with_keys=False) == []
    found = cut(programs.forward_of(steps), *programs.leaves_of(), programs.EXAMPLE)
    drawn = name == "drawn_by_each"  # random keys are nothing to keep: the tail draws again
    assert [one.shape for one in found.features.values()] == ([] if drawn else [(programs.WIDTH,)])
    assert found.refused is None


# What gave a wrong number, a KeyError or an AssertionError.
FOUND = {
    "a layer applied twice to one input": ([("layer", 0, 2), ("layer", 1, 2)], [("x", 0), ("x", 1)], 4),
    "a constant computed twice": (
        [("sine_c", 1), ("sine_c", 2), ("shifted", 0, 0), ("layer", 0, 2)],
        [("c", 0), ("c", 1)],
        4,
    ),
    "the batch size as a place": ([("sized_column", 0), ("layer", 0, 2)], [], 4),
    "the batch size as a place in a constant": ([("sized_place", 0, 1), ("shifted", 0, 0), ("layer", 0, 2)], [], 4),
    "the batch size as a power of a constant": ([("sized_power_c", 0, 1), ("shifted", 0, 0), ("layer", 0, 2)], [], 4),
    "the batch size as turns of a loop": ([("sized_scan", 0), ("layer", 0, 2)], [], 4),
    "turns of a loop over a constant": ([("sized_loop_c", 0, 1), ("shifted", 0, 0), ("layer", 0, 2)], [], 4),
    "a number that larger batches change": ([("sized_of_few", 0), ("layer", 0, 2)], [], 8),
    "a place that larger batches change": ([("sized_column_of_few", 0), ("layer", 0, 2)], [], 8),
    "an axis that larger batches change": ([("square", 0), ("layer", 0, 2)], [], 4),
    "a program as long as the batch": ([("layer", 0, 2), ("unrolled_batch", 0)], [], 4),
    "two by chance, and a batch of two": (
        [("layer", 0, 2), ("layer", 0, 1), ("twofold", 0), ("layer", 0, 2), ("sized", 0)],
        [],
        4,
    ),
    "one example whose axis is the second": ([("layer", 0, 2), ("transposed", 0)], [("y", 0)], 1),
    "one example among others merged into its axis": ([("layer", 0, 2), ("merged", 0)], [("z", 0)], 1),
    "a sum over one example": ([("layer", 0, 2), ("summed_batch", 0)], [], 1),
    "similarities of one example": ([("layer", 0, 2), ("similarity", 0)], [], 1),
    "a batch of one, joined with itself": ([("layer", 0, 2), ("joined_batch", 0)], [], 1),
    "keys of random numbers looked up by examples": ([("key_of_each", 0, 0), ("layer", 0, 2)], [], 4),
}
REFUSED = {
    "a number that larger batches change",
    "a place that larger batches change",
    "an axis that larger batches change",
}


@pytest.mark.parametrize("name", FOUND)
def test_a_program_that_was_split_wrongly(name):
    steps, kept, size = FOUND[name]
    reasons = check(steps, kept, ("kernel", "second"), size, with_keys=False)
    assert bool(reasons) == (name in REFUSED)


@SETTINGS
@hypothesis.given(STEPS, KEPT, TRAINED, some.sampled_from([1, 4, 8]), some.booleans())
def test_a_random_program_is_the_same_whole_shared_and_cached(steps, kept, trained, size, with_keys):
    check(steps, kept, trained, size, with_keys)
