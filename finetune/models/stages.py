"""What nets of stages have in common, each with half as many rows and columns as the one before it."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from finetune.errors import UserError
from finetune.member.dropout import Dropout
from finetune.member.task import Batch
from finetune.models import pixels
from finetune.models.block import Dtype, make_head
from finetune.models.pooling import pool

INPUT = "image"
STEM = ("embeddings",)
SIZES: tuple[str, ...] = ()  # there are none without a checkpoint


class Staged(nn.Module):
    """Image classifier; dropout acts on the input of the head, wherever `dropout_at` would have it.

    depths: blocks of each stage, widths: channels.
    """

    classes: int
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    channels: int
    activation: str
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    pooling: str = "mean"
    dropout_at: str = "head"
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    def setup(self) -> None:
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.embeddings = self.make_embeddings(types)
        # Flax names the entries of lists in a list block_0_0, block_0_1, ...
        self.block = [
            [self.make_block(stage, index, types) for index in range(depth)] for stage, depth in enumerate(self.depths)
        ]
        self.head_dropout = Dropout()
        self.head = make_head(self.classes, self.dtype, self.param_dtype)

    def make_embeddings(self, types: dict[str, Any]) -> nn.Module:
        """Returns the stem."""
        raise NotImplementedError

    def make_block(self, stage: int, index: int, types: dict[str, Any]) -> nn.Module:
        """Returns a block; `index` counts from the first of its stage."""
        raise NotImplementedError

    def hidden(self, batch: Batch, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        """Returns the last block's output [B, H, W, D] for {"image": [B, H, W, C]}."""
        del rate, keys
        image = pixels.scaled(batch[INPUT], self.dtype, self.channels, self.mean, self.deviation)
        x = self.embeddings(image.astype(self.dtype))
        for stage in self.block:
            for block in stage:
                x = block(x)
        return x

    def pooled(self, batch: Batch, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        """Returns what the head reads, [B, D]."""
        x = self.hidden(batch, rate, keys)
        positions = x.reshape(len(x), -1, x.shape[-1])
        return pool(positions, jnp.ones(positions.shape[:2], bool), self.pooling)

    def __call__(self, batch: Batch, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        """Returns logits [B, classes], float32 or wider, for {"image": [B, H, W, C]}."""
        return self.head(self.head_dropout(self.pooled(batch, rate, keys), rate, keys))


def image_shape(leaves: Mapping[str, Any], architecture: dict[str, Any]) -> None:
    """Returns None: images may have any shape that `check_images` allows, whatever those of the training were."""
    del leaves, architecture


def check_images(architecture: dict[str, Any], shape: tuple[int, ...], least: int) -> None:
    """Raises UserError for images of `shape` [H, W, C] with an edge below `least`, or with other channels."""
    if min(shape[:2]) < least:
        raise UserError(
            f"images are {shape[0]} x {shape[1]} pixels, allowed by the model: {least} or more an edge; "
            "set data.image_size"
        )
    pixels.check_channels(architecture, shape)
