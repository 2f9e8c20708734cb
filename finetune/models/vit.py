"""ViT with a classifier on its pooled tokens: as AugReg trains it, and with the tokens before patches that others have.

Of AugReg's, one thing differs from the paper: the class token has no position embedding of its own. It is added to the
token when weights are loaded, so the function is the same. Positions keep the shape of their grid.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from finetune.errors import UserError
from finetune.member.dropout import Dropout
from finetune.member.task import Batch
from finetune.models import pixels
from finetune.models.block import Dtype, PreNormBlock, layer_norm, make_head, vector
from finetune.models.pooling import pool

INPUT = "image"
STEM = ("embeddings",)
FIXED: tuple[str, ...] = ()
# Sizes that the config gives, and what is added to them, when there is no checkpoint.
SIZES = ("width", "depth", "heads", "mlp_width", "patch_size")
DEFAULTS = {"epsilon": 1e-6}
_TOKENS = ("class_token", "distillation_token")


class Embeddings(nn.Module):
    """Patches projected to `width`, their positions added, other tokens put first.

    class_tokens: how many; positioned: the first of them with a position of their own. registers: tokens behind them,
    without one. patch_bias: whether the projection has a bias. norm_epsilon: of a norm at the end; 0 = there is none.
    """

    width: int
    patch_size: int
    dtype: Dtype
    param_dtype: Dtype
    channels: int = 0
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    class_tokens: int = 1
    positioned: int = 0
    registers: int = 0
    patch_bias: bool = True
    norm_epsilon: float = 0.0

    @nn.compact
    def __call__(self, image: jax.Array, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        """Returns [B, tokens + patches, D] from `image` [B, H, W, C], which `pixels.scaled` prepares."""
        size, init = self.patch_size, nn.initializers.truncated_normal(0.02)
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        image = pixels.scaled(image, self.dtype, self.channels, self.mean, self.deviation)
        batch, rows, columns, _ = image.shape
        grid = (rows // size, columns // size)
        x = nn.Dense(self.width, self.patch_bias, name="patch", **types)(pixels.patches(image, size))
        position = self.param("position", init, (*grid, self.width), self.param_dtype)
        x = x + position.reshape(1, -1, self.width).astype(self.dtype)
        x = jnp.concatenate([*self._tokens(batch), x], axis=1)
        if self.norm_epsilon:
            x = layer_norm(self.norm_epsilon, **types, name="norm")(x)
        return Dropout(name="dropout")(x, rate, keys)

    def _tokens(self, batch: int) -> list[jax.Array]:
        """Returns what stands before patches, each [B, tokens, D]."""
        zeros = nn.initializers.zeros
        names = _TOKENS[: self.class_tokens]
        tokens = [vector(self, name, self.width, zeros)[None, None] for name in names]
        if self.positioned:
            shape = (self.positioned, self.width)
            position = self.param("token_position", zeros, shape, self.param_dtype).astype(self.dtype)
            tokens = [token + position[None, n : n + 1] for n, token in enumerate(tokens)]
        if self.registers:
            shape = (self.registers, self.width)
            tokens.append(self.param("register", zeros, shape, self.param_dtype).astype(self.dtype)[None])
        return [jnp.broadcast_to(token, (batch, *token.shape[1:])) for token in tokens]


class Vit(nn.Module):
    """Image classifier; fields as of `Embeddings`."""

    classes: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    patch_size: int
    epsilon: float
    activation: str = "gelu_pytorch_tanh"
    class_tokens: int = 1
    positioned: int = 0
    channels: int = 0
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    pooling: str = "mean"
    dropout_at: str = "all"
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    def setup(self) -> None:
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.embeddings = self.make_embeddings(types)
        # Flax names the entries of a list block_0, block_1, ...
        self.block = [self.make_block(types) for _ in range(self.depth)]
        self.norm = layer_norm(self.epsilon, **types)
        self.head_dropout = Dropout()
        self.head = make_head(self.classes, self.dtype, self.param_dtype)

    def make_embeddings(self, types: dict[str, Any], **others: Any) -> nn.Module:
        """Returns the stem; others: fields of `Embeddings` that a family has besides."""
        names = ("width", "patch_size", "channels", "mean", "deviation", "class_tokens", "positioned")
        return Embeddings(**{name: getattr(self, name) for name in names}, **types, **others)

    def make_block(self, types: dict[str, Any]) -> nn.Module:
        """Returns a block."""
        return PreNormBlock(self.heads, self.mlp_width, self.epsilon, activation=self.activation, **types)

    def tokens(self, batch: Batch, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        """Returns the last block's output [B, tokens + patches, D] for {"image": [B, H, W, C]}."""
        inner_keys = keys if self.dropout_at == "all" else None
        x = self.embeddings(batch[INPUT], rate, inner_keys)
        for block in self.block:
            x = block(x, None, rate, inner_keys)
        return x

    def hidden(self, batch: Batch, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        """Returns the normalised output [B, tokens + patches, D] for {"image": [B, H, W, C]}."""
        return self.norm(self.tokens(batch, rate, keys))

    def pooled(self, batch: Batch, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        """Returns what the head reads, [B, D]."""
        hidden = self.hidden(batch, rate, keys)
        return pool(hidden, jnp.ones(hidden.shape[:2], bool), self.pooling)

    def __call__(self, batch: Batch, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        """Returns logits [B, classes], float32 or wider, for {"image": [B, H, W, C]}."""
        return self.head(self.head_dropout(self.pooled(batch, rate, keys), rate, keys))


def image_shape(leaves: Mapping[str, Any], architecture: dict[str, Any]) -> tuple[int, int, int]:
    """Returns [H, W, C] of the images that `leaves` {path: array} were trained on."""
    size = architecture["patch_size"]
    rows, columns, _ = leaves["embeddings/position"].shape
    return rows * size, columns * size, leaves["embeddings/patch/kernel"].shape[0] // size**2


def check(architecture: dict[str, Any], shape: tuple[int, ...]) -> None:
    """Raises UserError for images of `shape` [H, W, C] that do not divide into patches, or have other channels."""
    size = architecture["patch_size"]
    if min(shape[:2]) < size or shape[0] % size or shape[1] % size:
        raise UserError(
            f"images are {shape[0]} x {shape[1]} pixels, allowed: multiples of the patch size {size}; "
            "set data.image_size or model.patch_size"
        )
    pixels.check_channels(architecture, shape)


module = Vit
