"""ViT, as AugReg trains it, with a classifier on its pooled tokens.

One thing differs from the paper: the class token has no position embedding of its own. It is added to the token when
weights are loaded, so the function is the same, and the positions keep the shape of their grid.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from finetune.errors import UserError
from finetune.member.dropout import Dropout
from finetune.member.task import Batch
from finetune.models.block import Dtype, PreNormBlock, at_least_float32, layer_norm
from finetune.models.pooling import pool

INPUT = "image"
STEM = ("embeddings",)
FIXED: tuple[str, ...] = ()
# Sizes that the config gives, and what is added to them, when there is no checkpoint.
SIZES = ("width", "depth", "heads", "mlp_width", "patch_size")
DEFAULTS = {"epsilon": 1e-6}


class Embeddings(nn.Module):
    """Patches projected to `width`, their positions added, the class token put first."""

    width: int
    patch_size: int
    dtype: Dtype
    param_dtype: Dtype

    @nn.compact
    def __call__(self, image: jax.Array, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        """Returns [B, 1 + patches, D] from `image` [B, H, W, C]: uint8 is scaled to −1..1, float is used as it is."""
        size, init = self.patch_size, nn.initializers.truncated_normal(0.02)
        if not jnp.issubdtype(image.dtype, jnp.floating):
            image = image.astype(at_least_float32(self.dtype)) / 127.5 - 1
        batch, rows, columns, channels = image.shape
        grid = (rows // size, columns // size)
        patches = image.reshape(batch, grid[0], size, grid[1], size, channels).transpose(0, 1, 3, 2, 4, 5)
        patches = patches.reshape(batch, grid[0] * grid[1], size * size * channels)
        x = nn.Dense(self.width, dtype=self.dtype, param_dtype=self.param_dtype, name="patch")(patches)
        position = self.param("position", init, (*grid, self.width), self.param_dtype)
        x = x + position.reshape(1, -1, self.width).astype(self.dtype)
        token = self.param("class_token", nn.initializers.zeros, (self.width,), self.param_dtype)
        token = jnp.broadcast_to(token[None, None].astype(self.dtype), (batch, 1, self.width))
        return Dropout(name="dropout")(jnp.concatenate([token, x], axis=1), rate, keys)


class Vit(nn.Module):
    """Image classifier."""

    classes: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    patch_size: int
    epsilon: float
    pooling: str = "mean"
    dropout_at: str = "all"
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    def setup(self) -> None:
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.embeddings = Embeddings(self.width, self.patch_size, **types)
        # Flax names the entries of a list block_0, block_1, ...
        self.block = [PreNormBlock(self.heads, self.mlp_width, self.epsilon, **types) for _ in range(self.depth)]
        self.norm = layer_norm(self.epsilon, **types)
        self.head_dropout = Dropout()
        self.head = nn.Dense(
            self.classes,
            dtype=at_least_float32(self.dtype),
            param_dtype=self.param_dtype,
            kernel_init=nn.initializers.truncated_normal(0.02),
        )

    def hidden(self, batch: Batch, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        """Returns the normalised output [B, 1 + patches, D] for {"image": [B, H, W, C]}."""
        inner_keys = keys if self.dropout_at == "all" else None
        x = self.embeddings(batch[INPUT], rate, inner_keys)
        for block in self.block:
            x = block(x, None, rate, inner_keys)
        return self.norm(x)

    def __call__(self, batch: Batch, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        """Returns logits [B, classes], float32 or wider, for {"image": [B, H, W, C]}."""
        hidden = self.hidden(batch, rate, keys)
        pooled = pool(hidden, jnp.ones(hidden.shape[:2], bool), self.pooling)
        return self.head(self.head_dropout(pooled, rate, keys))


def image_shape(leaves: Mapping[str, Any], architecture: dict[str, Any]) -> tuple[int, int, int]:
    """Returns [H, W, C] of the images that `leaves` {path: array} were trained on."""
    size = architecture["patch_size"]
    rows, columns, _ = leaves["embeddings/position"].shape
    return rows * size, columns * size, leaves["embeddings/patch/kernel"].shape[0] // size**2


def check(architecture: dict[str, Any], shape: tuple[int, ...]) -> None:
    """Raises UserError for images of `shape` [H, W, C] that do not divide into patches."""
    size = architecture["patch_size"]
    if min(shape[:2]) < size or shape[0] % size or shape[1] % size:
        raise UserError(
            f"images are {shape[0]} x {shape[1]} pixels, allowed: multiples of the patch size {size}; "
            "set data.image_size or model.patch_size"
        )


module = Vit
