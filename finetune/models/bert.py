"""BERT, as Hugging Face's BertModel computes it, with a classifier on its pooled positions."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from finetune.errors import UserError
from finetune.member.dropout import Dropout
from finetune.member.task import Batch
from finetune.models.block import Dtype, PostNormBlock, at_least_float32, layer_norm
from finetune.models.pooling import pool

INPUT = "input_ids"
STEM = ("embeddings",)
FIXED: tuple[str, ...] = ()
# Sizes that the config gives, and what is added to them, when there is no checkpoint.
SIZES = ("width", "depth", "heads", "mlp_width")
DEFAULTS = {"vocabulary": 30522, "positions": 512, "token_types": 2, "epsilon": 1e-12}


class Embeddings(nn.Module):
    """Sum of word, position and token type embeddings, normalised; all tokens are of type 0."""

    width: int
    vocabulary: int
    positions: int
    token_types: int
    epsilon: float
    dtype: Dtype
    param_dtype: Dtype

    @nn.compact
    def __call__(self, ids: jax.Array, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        """Returns [B, T, D] from token `ids` [B, T]."""

        def embed(name: str, rows: int, indices: jax.Array) -> jax.Array:
            init = nn.initializers.truncated_normal(0.02)
            table = nn.Embed(rows, self.width, self.dtype, self.param_dtype, embedding_init=init, name=name)
            return table(indices)

        x = embed("word", self.vocabulary, ids.astype(jnp.int32))
        x = x + embed("position", self.positions, jnp.arange(ids.shape[1])[None])
        x = x + embed("token_type", self.token_types, jnp.zeros((1, 1), jnp.int32))
        x = layer_norm(self.epsilon, self.dtype, self.param_dtype, name="norm")(x)
        return Dropout(name="dropout")(x, rate, keys)


class Bert(nn.Module):
    """Text classifier; `hidden` is the encoder without pooling and head."""

    classes: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    vocabulary: int
    positions: int
    token_types: int
    epsilon: float
    pooling: str = "mean"
    dropout_at: str = "all"
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    def setup(self) -> None:
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.embeddings = Embeddings(
            self.width, self.vocabulary, self.positions, self.token_types, self.epsilon, **types
        )
        # Flax names the entries of a list block_0, block_1, ...
        self.block = [PostNormBlock(self.heads, self.mlp_width, self.epsilon, **types) for _ in range(self.depth)]
        self.head_dropout = Dropout()
        self.head = nn.Dense(
            self.classes,
            dtype=at_least_float32(self.dtype),
            param_dtype=self.param_dtype,
            kernel_init=nn.initializers.truncated_normal(0.02),
        )

    def hidden(self, batch: Batch, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        """Returns the last block's output [B, T, D] for {"input_ids": [B, T], "length": [B]}."""
        inner_keys = keys if self.dropout_at == "all" else None
        valid = _valid(batch)
        x = self.embeddings(batch[INPUT], rate, inner_keys)
        for block in self.block:
            x = block(x, valid, rate, inner_keys)
        return x

    def __call__(self, batch: Batch, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        """Returns logits [B, classes], float32 or wider, for {"input_ids": [B, T], "length": [B]}."""
        pooled = pool(self.hidden(batch, rate, keys), _valid(batch), self.pooling)
        return self.head(self.head_dropout(pooled, rate, keys))


def _valid(batch: Batch) -> jax.Array:
    return jnp.arange(batch[INPUT].shape[1])[None] < batch["length"].astype(jnp.int32)[:, None]


def check(architecture: dict[str, Any], shape: tuple[int, ...]) -> None:
    """Raises UserError for a text of `shape` [T] longer than the model's positions."""
    if shape[0] > architecture["positions"]:
        raise UserError(
            f"texts are {shape[0]} tokens long, allowed by the model: {architecture['positions']}; "
            "set data.max_length to that or less"
        )


module = Bert
