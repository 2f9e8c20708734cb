"""The tower of images of CLIP (Radford et al. 2021): a ViT that normalises what enters, and of what leaves a token."""

from typing import Any

import flax.linen as nn
import jax

from finetune.member.task import Batch
from finetune.models.vit import FIXED, INPUT, SIZES, STEM, Vit, check, image_shape

__all__ = ["FIXED", "INPUT", "SIZES", "STEM", "check", "image_shape", "module"]


class ClipVision(Vit):
    """Image classifier on the normalised class token, before it is projected to where images and texts meet."""

    activation: str = "quick_gelu"

    def make_embeddings(self, types: dict[str, Any], **others: Any) -> nn.Module:
        """Returns the stem."""
        return super().make_embeddings(types, patch_bias=False, norm_epsilon=self.epsilon)

    def hidden(self, batch: Batch, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        """Returns the last block's output [B, 1 + patches, D] for {"image": [B, H, W, C]}."""
        return self.tokens(batch, rate, keys)

    def pooled(self, batch: Batch, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        """Returns what the head reads, [B, D]."""
        return self.norm(super().pooled(batch, rate, keys))


module = ClipVision
