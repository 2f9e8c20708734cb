"""One run of a user's model: what its dropout and batch normalisation do in place of what they were built for."""

import zlib
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from finetune.errors import UserError
from finetune.models.dropout import dropout


class ForwardPass:
    """Answers the layers of a running model; made anew for each run.

    dropout: traced rate of all dropout layers that are not switched off; keys: one random key per example [B], None:
        no dropout. live: paths of the state that changes. weight: 0 for examples that are padding [B], None: none are.
    """

    def __init__(
        self, dropout: jax.Array | float, keys: jax.Array | None, live: Collection[str] = (), weight: Any = None
    ):
        self.keys, self._rate, self._weight = keys, dropout, weight
        self._live = {path.partition("/")[2].rpartition("/")[0] for path in live}
        self._calls: Counter[str] = Counter()

    def drop(self, path: str, x: jax.Array, rate: float, shared_axes: Sequence[int]) -> jax.Array:
        """Returns what the dropout layer at `path` makes of `x` [B, ...], or [B·n, ...] with examples outermost.

        rate: the layer's own, which counts only where it is 0: that layer stays off. shared_axes: have one mask.
        """
        if self.keys is None or rate == 0:
            return x
        self._calls[path] += 1  # a layer that runs again has another mask
        site = zlib.crc32(f"{path}#{self._calls[path]}".encode())
        rows = len(self.keys)
        if x.shape[0] % rows:
            raise UserError(f"dropout {path!r} has an input of shape {x.shape}, allowed: the {rows} examples outermost")
        whole = x.shape[0] == rows
        apart = x if whole else x.reshape(rows, -1, *x.shape[1:])
        shape = list(apart.shape)
        for axis in shared_axes:
            shape[axis % x.ndim + (not whole)] = 1
        mask = dropout(jnp.ones(shape, x.dtype), self._rate, self.keys, site)
        return (apart * mask).reshape(x.shape)

    def is_live(self, path: str) -> bool:
        """Says whether the normalisation at `path` uses, and remembers, the statistics of the batch."""
        return path in self._live

    def counted(self, x: jax.Array, mask: jax.Array | None) -> jax.Array | None:
        """Returns `mask` without the examples that are padding, broadcastable to `x`; None if all counts."""
        if self._weight is None or x.shape[0] % len(self._weight):
            return mask
        rows = jnp.repeat(self._weight > 0, x.shape[0] // len(self._weight))
        rows = rows.reshape(-1, *[1] * (x.ndim - 1))
        return rows if mask is None else rows & mask
