"""Pixels as a model of images reads them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from finetune.errors import UserError
from finetune.models.block import Dtype, at_least_float32


def scaled(
    image: jax.Array, dtype: Dtype, channels: int = 0, mean: Sequence[float] = (), deviation: Sequence[float] = ()
) -> jax.Array:
    """Returns `image` [B, H, W, C] as numbers: uint8 as (x / 255 − mean) / deviation, float as it is.

    channels: of the result, if not 0: grey becomes equal parts of them. mean, deviation: of each channel; without them
    uint8 is scaled to −1..1.
    """
    if not jnp.issubdtype(image.dtype, jnp.floating):
        wide = at_least_float32(dtype)
        if not mean:
            image = image.astype(wide) / 127.5 - 1
        else:
            row = (1, 1, 1, len(mean))
            middle, spread = (jnp.asarray(each, wide).reshape(row) for each in (mean, deviation))
            image = (image.astype(wide) / 255 - middle) / spread
    if channels and image.shape[3] != channels:
        image = jnp.broadcast_to(image, (*image.shape[:3], channels))
    return image


def patches(image: jax.Array, size: int) -> jax.Array:
    """Returns the patches of `image` [B, H, W, C], `size` pixels an edge, row by row: [B, patches, size · size · C]."""
    batch, rows, columns, channels = image.shape
    grid = (rows // size, columns // size)
    found = image.reshape(batch, grid[0], size, grid[1], size, channels).transpose(0, 1, 3, 2, 4, 5)
    return found.reshape(batch, grid[0] * grid[1], size * size * channels)


def check_channels(architecture: dict[str, Any], shape: tuple[int, ...]) -> None:
    """Raises UserError for images of `shape` [H, W, C] with other channels than the model's, unless they are grey."""
    channels = architecture.get("channels", 0)
    if channels and shape[2] not in (1, channels):
        raise UserError(f"images have {shape[2]} channels, allowed by the model: {channels}, or 1 (grey)")
