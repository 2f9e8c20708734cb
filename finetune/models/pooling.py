"""Pooling: one vector an example from one vector a position."""

import jax
import jax.numpy as jnp

from finetune.models.block import at_least_float32


def pool(hidden: jax.Array, valid: jax.Array, how: str) -> jax.Array:
    """Returns [B, D], float32 or wider, of `hidden` [B, T, D]: "mean" or "max" where `valid` [B, T], or the "first".

    Without a valid position mean and max are 0. "none" is no pooling: [B, T, D].
    """
    hidden = hidden.astype(at_least_float32(hidden.dtype))
    if how == "none":
        return hidden
    if how == "first":
        return hidden[:, 0]
    if how == "max":
        lowest = jnp.finfo(hidden.dtype).min
        largest = jnp.where(valid[:, :, None], hidden, lowest).max(axis=1)
        return jnp.where(valid.any(axis=1)[:, None], largest, 0)
    weights = valid.astype(hidden.dtype)
    return (hidden * weights[:, :, None]).sum(axis=1) / jnp.maximum(weights.sum(axis=1), 1)[:, None]
