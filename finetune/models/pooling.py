"""Pooling: one vector an example from one vector a position."""

import jax
import jax.numpy as jnp

from finetune.models.block import at_least_float32


def pool(hidden: jax.Array, valid: jax.Array, how: str) -> jax.Array:
    """Returns [B, D], float32 or wider, of `hidden` [B, T, D]: the "mean" where `valid` [B, T], or the "first".

    "none" is no pooling: [B, T, D].
    """
    hidden = hidden.astype(at_least_float32(hidden.dtype))
    if how == "none":
        return hidden
    if how == "first":
        return hidden[:, 0]
    weights = valid.astype(hidden.dtype)
    return (hidden * weights[:, :, None]).sum(axis=1) / jnp.maximum(weights.sum(axis=1), 1)[:, None]
