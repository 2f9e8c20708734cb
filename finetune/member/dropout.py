"""Dropout whose rate is an array and whose mask belongs to the example, not to the batch it happens to be in."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from finetune.member.place import loop_place, site

_KNOWN = (int, float, np.generic)  # of a rate that is a number while tracing


def draws(rate: jax.Array | float, keys: jax.Array | None) -> bool:
    """Says whether dropout draws masks: it has keys, and its rate is not known to be 0."""
    return keys is not None and not (isinstance(rate, _KNOWN) and rate == 0)


def at_least_zero(rate: jax.Array | float) -> jax.Array | float:
    """Returns the rate of what has none of its own to fall back to: below 0, as a trial's may be, becomes 0."""
    return max(rate, 0.0) if isinstance(rate, _KNOWN) else jnp.maximum(rate, 0)


def dropout(x: jax.Array, rate: jax.Array | float, keys: jax.Array | None, site: Any) -> jax.Array:
    """Returns `x` [B, ...] with entries zeroed at `rate` (a scalar in [0, 1)), the rest divided by 1 − rate.

    `keys` holds one typed random key per example [B]; None returns `x`. `site` (uint32) tells the layers of a model
    apart, a number or, in a loop over layers, an array. The mask does not depend on the dtype of `x`. A `rate` that is
    known to be 0 draws nothing: `x` comes back bit for bit, as it does from an array that holds 0.
    """
    if keys is None or not draws(rate, keys):
        return x
    keep = 1 - jnp.asarray(rate)

    def mask(key: jax.Array) -> jax.Array:
        return jax.random.bernoulli(jax.random.fold_in(key, site), keep.astype(jnp.float32), x.shape[1:])

    return jnp.where(jax.vmap(mask)(keys), x / keep.astype(x.dtype), 0)


class Dropout(nn.Module):
    """`dropout` at the site that the module's path, and the pass of a loop over layers, name."""

    @nn.compact
    def __call__(self, x: jax.Array, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        if not draws(rate, keys):
            return x
        return dropout(x, rate, keys, site("/".join(self.path), loop_place(self)))
