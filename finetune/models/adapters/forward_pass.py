"""One run of a user's model: what its dropout, random numbers and batch normalisation do in place of what was built."""

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp

from finetune.errors import UserError
from finetune.member.dropout import draws, dropout
from finetune.member.place import Place, hashed, site
from finetune.trials.hparams import OWN_RATES

_found: ContextVar[dict[str, float] | None] = ContextVar("found", default=None)


@contextlib.contextmanager
def found_rates() -> Iterator[dict[str, float]]:
    """Gives {path: rate that it was built with} of the dropout layers that are on in models that train within."""
    rates: dict[str, float] = {}
    token = _found.set(rates)
    try:
        yield rates
    finally:
        _found.reset(token)


def batch_key(keys: jax.Array, place: jax.Array) -> jax.Array:
    """Returns the random keys of a model that draws by itself, given the examples' `keys` [B], like `place` in shape.

    They come from the first example's, so that every batch, epoch and seed has others: what is drawn with them belongs
    to the batch. place: keys that are the same in every run.
    """
    with jax.named_scope("random_numbers_of_the_batch"):
        first, words = jax.random.fold_in(keys[0], site("batch", 0)), hashed(place)
    return jax.vmap(jax.random.fold_in, (None, 0))(first, words.reshape(-1)).reshape(words.shape)


class ForwardPass:
    """Answers the layers of a running model; made anew for each run.

    dropout: rate of all dropout layers that are not switched off, OWN_RATES: each its own; keys: one random key per
        example [B], None: evaluation. live: paths of the state that changes. weight: 0 for examples that are padding
        [B], None: none are.
    """

    def __init__(
        self, dropout: jax.Array | float, keys: jax.Array | None, live: Collection[str] = (), weight: Any = None
    ):
        self.keys, self._rate, self._weight = keys, dropout, weight
        self._live = {path.partition("/")[2].rpartition("/")[0] for path in live}
        self._calls: Counter[str] = Counter()

    def drops(self, path: str, rate: float) -> bool:
        """Says whether the dropout layer at `path`, built with `rate`, draws a mask; one built with 0 stays off."""
        if self.keys is None or rate == 0:
            return False
        found = _found.get()
        if found is not None:
            found[path] = float(rate)
        return draws(self._rate, self.keys)

    def drop(self, path: str, x: jax.Array, rate: float, shared_axes: Sequence[int], place: Place) -> jax.Array:
        """Returns what a dropout layer that `drops` makes of `x` [B, ...], or [B·n, ...] with examples outermost.

        rate: the layer's own. shared_axes: have one mask. place: as of `models.place`.
        """
        assert self.keys is not None
        self._calls[path] += 1  # a layer that runs again has another mask
        rows = len(self.keys)
        if x.shape[0] % rows:
            raise UserError(f"dropout {path!r} has an input of shape {x.shape}, allowed: the {rows} examples outermost")
        whole = x.shape[0] == rows
        apart = x if whole else x.reshape(rows, -1, *x.shape[1:])
        shape = list(apart.shape)
        for axis in shared_axes:
            shape[axis % x.ndim + (not whole)] = 1
        mine = jnp.where(jnp.asarray(self._rate) == OWN_RATES, rate, self._rate)
        mask = dropout(jnp.ones(shape, x.dtype), mine, self.keys, site(f"{path}#{self._calls[path]}", place))
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
