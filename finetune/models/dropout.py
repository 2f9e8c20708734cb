"""Dropout whose rate is an array and whose mask belongs to the example, not to the batch it happens to be in."""

import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: jax.Array | float, keys: jax.Array | None, site: int) -> jax.Array:
    """Returns `x` [B, ...] with entries zeroed at `rate` (a scalar in [0, 1)), the rest divided by 1 − rate.

    `keys` holds one typed random key per example [B]; None returns `x`. `site` (uint32) tells the layers of a model
    apart. The mask does not depend on the dtype of `x`.
    """
    if keys is None:
        return x
    keep = 1 - jnp.asarray(rate)

    def mask(key: jax.Array) -> jax.Array:
        return jax.random.bernoulli(jax.random.fold_in(key, site), keep.astype(jnp.float32), x.shape[1:])

    return jnp.where(jax.vmap(mask)(keys), x / keep.astype(x.dtype), 0)


class Dropout(nn.Module):
    """`dropout` at the site that the module's path names."""

    @nn.compact
    def __call__(self, x: jax.Array, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        return dropout(x, rate, keys, zlib.crc32("/".join(self.path).encode()))
