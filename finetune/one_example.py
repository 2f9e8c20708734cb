"""A batch of one example, run as that example twice: JAX leaves broadcasts to one out, which makes another program."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_RELATIVE, _ABSOLUTE = 1e-4, 1e-5  # float32, whose sums are in another order


def twice(arrays: Any) -> Any:
    """Returns a batch of one example as a batch of two, leaf by leaf."""
    return jax.tree.map(lambda array: jnp.concatenate([array, array]), arrays)


def same_of_two(forward: Any, params: Any, frozen: Any, example: Any, dropout: Any, key: Any, *, keys: bool) -> bool:
    """Says whether `forward` gives one example what it gives it beside itself, by arguments drawn at random.

    params, frozen, example, dropout, key: shapes and dtypes; example, key: of one example without batch axis.
    """
    random = np.random.default_rng(0)

    def draw(shape: jax.ShapeDtypeStruct) -> Any:
        if jax.dtypes.issubdtype(shape.dtype, jax.dtypes.prng_key):
            return jax.random.key(0, impl="threefry2x32")
        if jnp.issubdtype(shape.dtype, jnp.floating):
            return jnp.asarray(random.normal(size=shape.shape), shape.dtype)
        return jnp.asarray(random.integers(0, 2, shape.shape), shape.dtype)

    with jax.ensure_compile_time_eval():
        leaves, fixed, batch, rate, drawn = jax.tree.map(draw, (params, frozen, example, dropout, key))
        once = jax.tree.map(lambda one: one[None], (batch, drawn if keys else None))
        rate = jnp.abs(rate) % 1
        found = [jax.jit(forward)(leaves, fixed, arrays, rate, each) for arrays, each in (once, twice(once))]
        return all(
            np.allclose(one, two[: len(one)] if np.ndim(one) else two, rtol=_RELATIVE, atol=_ABSOLUTE)
            for one, two in zip(*map(jax.tree.leaves, found), strict=True)
        )
