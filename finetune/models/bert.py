"""BERT, as Hugging Face's BertModel computes it, with a classifier on its pooled positions.

RoBERTa, XLM-R, CamemBERT, DistilBERT and ELECTRA differ in what is added to the embeddings of words and in their width.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from finetune.errors import UserError
from finetune.member.dropout import Dropout
from finetune.member.task import Batch
from finetune.models.block import Dtype, PostNormBlock, Score, dot_product, layer_norm, make_head
from finetune.models.pooling import pool

INPUT = "input_ids"
TYPES = "token_type_ids"  # [B, T], which data may have; else all tokens are of type 0
STEM = ("embeddings",)
FIXED: tuple[str, ...] = ()
# Sizes that the config gives, and what is added to them, when there is no checkpoint.
SIZES = ("width", "depth", "heads", "mlp_width")
DEFAULTS = {"vocabulary": 30522, "positions": 512, "token_types": 2, "epsilon": 1e-12}


def table(rows: int, width: int, dtype: Dtype, param_dtype: Dtype, name: str | None = None) -> nn.Embed:
    """Returns a table of embeddings [rows, width], drawn as BERT's are."""
    return nn.Embed(rows, width, dtype, param_dtype, embedding_init=nn.initializers.truncated_normal(0.02), name=name)


class Embeddings(nn.Module):
    """Sum of word, position and token type embeddings, normalised.

    width: of the tables; the sum is projected where the blocks have another one. positions: 0 = there are none, and
    first: the row of the first. token_types: 0 = there are none. norm_bias: whether the norm has a bias.
    """

    width: int
    projected: int
    vocabulary: int
    positions: int
    first: int
    token_types: int
    epsilon: float
    dtype: Dtype
    param_dtype: Dtype
    norm_bias: bool = True

    @nn.compact
    def __call__(
        self, ids: jax.Array, types: jax.Array | None, rate: jax.Array | float, keys: jax.Array | None
    ) -> jax.Array:
        """Returns [B, T, D] from tokens `ids` [B, T] of `types` [B, T]."""
        dtypes = (self.dtype, self.param_dtype)
        x = table(self.vocabulary, self.width, *dtypes, "word")(ids.astype(jnp.int32))
        if self.positions:
            places = jnp.arange(self.first, self.first + ids.shape[1])[None]
            x = x + table(self.positions, self.width, *dtypes, "position")(places)
        if self.token_types:
            types = jnp.zeros((1, 1), jnp.int32) if types is None else types.astype(jnp.int32)
            x = x + table(self.token_types, self.width, *dtypes, "token_type")(types)
        x = layer_norm(self.epsilon, *dtypes, name="norm", use_bias=self.norm_bias)(x)
        x = Dropout(name="dropout")(x, rate, keys)
        if self.width == self.projected:
            return x
        return nn.Dense(self.projected, dtype=self.dtype, param_dtype=self.param_dtype, name="project")(x)


class Bert(nn.Module):
    """Text classifier; `hidden` is the encoder without pooling and head.

    padding: the row of positions that is padding's, behind which they are counted; -1 = there is none. embedding_width:
    of the tables of embeddings; 0 = that of the blocks.
    """

    classes: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    vocabulary: int
    positions: int
    epsilon: float
    token_types: int = 0
    padding: int = -1
    embedding_width: int = 0
    activation: str = "gelu"
    pooling: str = "mean"
    dropout_at: str = "all"
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    def setup(self) -> None:
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.embeddings = self.make_embeddings(types)
        # Flax names the entries of a list block_0, block_1, ...
        self.block = [self.make_block(index, types) for index in range(self.depth)]
        self.head_dropout = Dropout()
        self.head = make_head(self.classes, self.dtype, self.param_dtype)

    def make_embeddings(self, types: dict[str, Any]) -> nn.Module:
        """Returns the stem."""
        return Embeddings(
            self.embedding_width or self.width,
            self.width,
            self.vocabulary,
            self.positions,
            self.padding + 1,
            self.token_types,
            self.epsilon,
            **types,
        )

    def make_block(self, index: int, types: dict[str, Any]) -> nn.Module:
        """Returns a block; `index` counts from the first."""
        return PostNormBlock(self.heads, self.mlp_width, self.epsilon, activation=self.activation, **types)

    def score(self, tokens: int) -> Score:
        """Returns how `tokens` positions score for each other, in all blocks."""
        return dot_product

    def hidden(self, batch: Batch, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        """Returns the last block's output [B, T, D] for {"input_ids": [B, T], "length": [B]}."""
        inner_keys = keys if self.dropout_at == "all" else None
        valid, score = _valid(batch), self.score(batch[INPUT].shape[1])
        x = self.embeddings(batch[INPUT], batch.get(TYPES), rate, inner_keys)
        for block in self.block:
            x = block(x, valid, rate, inner_keys, score)
        return x

    def __call__(self, batch: Batch, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        """Returns logits [B, classes], float32 or wider, for {"input_ids": [B, T], "length": [B]}."""
        pooled = pool(self.hidden(batch, rate, keys), _valid(batch), self.pooling)
        return self.head(self.head_dropout(pooled, rate, keys))


def _valid(batch: Batch) -> jax.Array:
    return jnp.arange(batch[INPUT].shape[1])[None] < batch["length"].astype(jnp.int32)[:, None]


def check(architecture: dict[str, Any], shape: tuple[int, ...]) -> None:
    """Raises UserError for a text of `shape` [T] longer than the model's positions."""
    most = architecture["positions"] - (architecture.get("padding", -1) + 1)
    if shape[0] > most:
        raise UserError(
            f"texts are {shape[0]} tokens long, allowed by the model: {most}; set data.max_length to that or less"
        )


module = Bert
