"""ModernBERT (Warner et al. 2024, arXiv 2412.13663): pre-norm blocks without biases.

Queries and keys are turned by their position, and most blocks attend only to what is near.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from finetune.member.dropout import Dropout
from finetune.member.task import Batch
from finetune.models.bert import FIXED, INPUT, SIZES, STEM, Bert, Embeddings, check
from finetune.models.block import (
    Attention,
    Dtype,
    GatedMlp,
    Project,
    Score,
    at_least_float32,
    dot_product,
    layer_norm,
)

__all__ = ["FIXED", "INPUT", "SIZES", "STEM", "check", "module"]


norm = partial(layer_norm, use_bias=False)


class ModernBlock(nn.Module):
    """x ← x + branch(norm(x)); the first one's attention takes what the embeddings have normalised.

    theta: of the turns, see `turned`. reach: how far apart a query and a key may be; 0 = any distance.
    """

    heads: int
    mlp_width: int
    epsilon: float
    activation: str
    is_first: bool
    theta: float
    reach: int
    dtype: Dtype
    param_dtype: Dtype

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        valid: jax.Array | None,
        rate: jax.Array | float,
        keys: jax.Array | None,
        score: Score,
    ) -> jax.Array:
        """Returns [B, T, D] from `x` [B, T, D]; arguments as of `Attention`."""
        types = (self.dtype, self.param_dtype)
        init = nn.initializers.truncated_normal(0.02)
        branch = x if self.is_first else norm(self.epsilon, *types, name="attention_norm")(x)
        attention = Attention(self.heads, *types, init, use_bias=False, name="attention")
        branch = attention(branch, valid, rate, keys, self._score)
        x = x + Dropout(name="attention_dropout")(branch, rate, keys)
        branch = norm(self.epsilon, *types, name="mlp_norm")(x)
        branch = GatedMlp(self.mlp_width, self.activation, *types, name="mlp")(branch)
        return x + Dropout(name="mlp_dropout")(branch, rate, keys)

    def _score(self, query: jax.Array, key: jax.Array, project: Project) -> jax.Array:
        scores = dot_product(turned(query, self.theta), turned(key, self.theta), project)
        if not self.reach:
            return scores
        place = jnp.arange(query.shape[2])
        near = jnp.abs(place[:, None] - place[None]) <= self.reach
        return jnp.where(near[None, None], scores, jnp.finfo(scores.dtype).min / 2)


def turned(x: jax.Array, theta: float) -> jax.Array:
    """Returns x [B, H, T, d], each pair (i, i + d/2) turned by position · theta^(-2 i / d) (Su et al. 2021)."""
    wide = at_least_float32(x.dtype)
    half = x.shape[3] // 2
    angle = jnp.arange(x.shape[2], dtype=wide)[:, None] / theta ** (jnp.arange(half, dtype=wide) / half)[None]
    cosine, sine = jnp.cos(angle)[None, None], jnp.sin(angle)[None, None]
    first, second = x[..., :half].astype(wide), x[..., half:].astype(wide)
    pairs = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate(pairs, axis=-1).astype(x.dtype)


class ModernBert(Bert):
    """Text classifier; every `global_every`-th block attends to all positions, the others to `window` of them."""

    window: int = 128
    global_every: int = 3
    global_theta: float = 160_000.0
    local_theta: float = 10_000.0

    def setup(self) -> None:
        super().setup()
        self.norm = norm(self.epsilon, self.dtype, self.param_dtype)

    def make_embeddings(self, types: dict[str, Any]) -> nn.Module:
        """Returns the stem, of words alone."""
        sizes = (self.width, self.width, self.vocabulary, 0, 0, 0, self.epsilon)
        return Embeddings(*sizes, norm_bias=False, **types)

    def make_block(self, index: int, types: dict[str, Any]) -> nn.Module:
        """Returns a block; `index` counts from the first."""
        near = index % self.global_every > 0
        theta, reach = (self.local_theta, self.window // 2) if near else (self.global_theta, 0)
        sizes = (self.heads, self.mlp_width, self.epsilon, self.activation)
        return ModernBlock(*sizes, is_first=index == 0, theta=theta, reach=reach, **types)

    def hidden(self, batch: Batch, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        """Returns the normalised output [B, T, D] for {"input_ids": [B, T], "length": [B]}."""
        return self.norm(super().hidden(batch, rate, keys))


module = ModernBert
