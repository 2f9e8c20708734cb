"""DeBERTa-v3: BERT without positions, whose attention scores content by distance and distance by content as well.

He et al. 2021, arXiv 2006.03654, equation 4, with the queries and keys of content for distances too, and distances in
buckets, as Hugging Face's DebertaV2Model computes it.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from finetune.models.bert import FIXED, INPUT, SIZES, Bert, Embeddings, check, table
from finetune.models.block import Project, Score, dot_product, layer_norm

__all__ = ["FIXED", "INPUT", "SIZES", "STEM", "check", "module"]
STEM = ("embeddings", "relative", "relative_norm")


class Deberta(Bert):
    """Text classifier; `relative` holds an embedding for each bucket of distances, from far in front to far behind."""

    buckets: int = 256  # in each direction

    def setup(self) -> None:
        super().setup()
        types = (self.dtype, self.param_dtype)
        self.relative = table(2 * self.buckets, self.width, *types)
        self.relative_norm = layer_norm(self.epsilon, *types)

    def make_embeddings(self, types: dict[str, Any]) -> nn.Module:
        """Returns the stem, without positions."""
        sizes = (self.width, self.width, self.vocabulary, 0, 0, self.token_types, self.epsilon)
        return Embeddings(*sizes, **types)

    def score(self, tokens: int) -> Score:
        """Returns content by content, content by distance and distance by content; their sum is scaled by 1/√(3d)."""
        distance = np.arange(1 - tokens, tokens)
        row = np.clip(bucket(distance, self.buckets, self.positions) + self.buckets, 0, 2 * self.buckets - 1)
        relative = self.relative_norm(self.relative(row))  # [R, D] of all R = 2 T - 1 distances

        def score(query: jax.Array, key: jax.Array, project: Project) -> jax.Array:
            # A distance is that of a query behind its key: it falls along keys, and grows along queries.
            # LoRA drops what has as many rows as there are examples; distances belong to none.
            rows = jnp.pad(relative, ((0, int(len(relative) == len(query))), (0, 0)))[:, None]
            keys, queries = (project(name, rows)[: len(relative), :, 0] for name in ("key", "query"))  # [R, H, d]
            by_distance = jnp.einsum("bhqd,rhd->bhqr", query, keys[::-1])
            of_distance = jnp.einsum("bhkd,rhd->bhkr", key, queries)
            total = dot_product(query, key, project) + skewed(by_distance) + skewed(of_distance).swapaxes(2, 3)
            return total / jnp.sqrt(jnp.asarray(3, total.dtype))

        return score


def skewed(x: jax.Array) -> jax.Array:
    """Returns y [B, H, T, T] of x [B, H, T, 2 T - 1], y[i, j] = x[i, j - i + T - 1].

    One row further, the wanted entries begin one earlier: read with rows one shorter than they are, they are in line.
    """
    *outer, tokens, width = x.shape
    flat = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 1))).reshape(*outer, tokens * (width + 1))
    return flat[..., tokens - 1 : tokens - 1 + tokens * width].reshape(x.shape)[..., :tokens]


def bucket(distance: np.ndarray, buckets: int, positions: int) -> np.ndarray:
    """Returns the bucket of each distance: near ones as they are, far ones by logarithm, up to `positions` away."""
    middle = buckets // 2
    near = np.abs(distance) <= middle
    apart = np.where(near, middle, np.abs(distance)).astype(np.float32)
    share = np.log(apart / np.float32(middle)) / np.log(np.float32((positions - 1) / middle))
    far = np.ceil(share * (middle - 1)) + middle
    return np.where(near, distance, np.sign(distance) * far).astype(np.int32)


module = Deberta
