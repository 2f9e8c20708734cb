"""Whatever a frozen program is made of, its trunk and tail compute what it computes, or it is refused with a reason."""

import contextlib

import hypothesis
import jax
import numpy as np
import programs
import pytest
from cuts import cut
from hypothesis import strategies

from finetune.errors import UserError

pytestmark = pytest.mark.usefixtures("float64")

SIZES = (1, 3, 4)
CAREFUL = ("callback", "two callbacks", "counter comes out", "while of each", "mapped")  # refused, but need not be


NOT_REVERSED = {"loop as long as a leaf says", "while", "while of the batch", "while of each"}  # JAX has no gradient


def check(names, shared=False, trains=None):
    """Compares outputs and gradients of the tail on cached features with those of the whole program."""
    trains = len(names) if trains is None else trains
    rng = np.random.default_rng(0)
    forward = programs.forward_of(names, shared, trains)
    params, frozen = programs.leaves_of(names, rng)
    made = cut(forward, params, frozen, programs.EXAMPLE)
    constants = made.constants(frozen)
    batch = programs.batch_of(max(SIZES), rng)
    # The pass over the data has batches of its own, so that features are computed beside other examples.
    parts = [{name: array[start : start + 2] for name, array in batch.items()} for start in (0, 2)]
    halves = [made.trunk(frozen, part) for part in parts]
    features = jax.tree.map(lambda *parts: np.concatenate(parts), *halves) if made.features else {}
    weights = rng.normal(size=(max(SIZES), programs.WIDTH))

    def run(function, fixed, arrays, size):
        def loss(params):
            outputs = function(params, fixed, arrays, 0.0, None)
            return (outputs["logits"] * weights[:size]).sum() + (outputs["features"] ** 2).sum(), outputs

        return jax.grad(loss, has_aux=True)(params)

    for size in SIZES:
        first = {name: array[:size] for name, array in batch.items()}
        carried = {name: first[name] for name in made.reads} | {name: each[:size] for name, each in features.items()}
        carried |= {"weight": np.ones(size)}
        whole = run(forward, frozen, first, size)
        with contextlib.suppress(UserError) if size == 1 else contextlib.nullcontext():  # or one line that says why not
            split = run(made.tail, constants, carried, size)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), whole, split)
    return made


@pytest.mark.parametrize("name", list(programs.STEPS))
def test_every_step_splits_or_says_why_not(name):
    made = check([name, "layer"])
    if name in programs.MIXING:
        assert made.refused
        assert "\n" not in made.refused
    elif name not in CAREFUL:
        assert made.refused is None
        assert made.features


@pytest.mark.slow
@hypothesis.settings(max_examples=12, deadline=None, derandomize=True)
@hypothesis.given(
    strategies.lists(strategies.sampled_from(list(programs.STEPS)), min_size=1, max_size=5),
    strategies.booleans(),
    strategies.integers(0, 5),
)
def test_every_composition_splits(names, shared, trains):
    hypothesis.assume(not set(names[trains + 1 :]) & NOT_REVERSED)
    check(names, shared, trains)


def test_what_is_computed_twice_alike_is_one_feature():
    made = check(["layer twice on one input", "layer twice on one input"], shared=True)
    assert len(made.features) == 1
