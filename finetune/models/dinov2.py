"""DINOv2 (Oquab et al. 2023): a ViT with scaled branches, registers (Darcet et al. 2023), if large with gated MLPs."""

from typing import Any

import flax.linen as nn

from finetune.models.block import PreNormBlock
from finetune.models.vit import INPUT, SIZES, Vit, check, image_shape

__all__ = ["FIXED", "INPUT", "SIZES", "STEM", "check", "image_shape", "module"]
STEM = ("embeddings", "mask_token")
FIXED = ("mask_token",)  # of masked images, which nothing here reads: it is kept for those who go on with it


class Dinov2(Vit):
    """Image classifier; registers: tokens behind the class token, is_gated: whether MLPs are (0 or 1)."""

    activation: str = "gelu"
    registers: int = 0
    is_gated: int = 0

    def setup(self) -> None:
        super().setup()
        self.mask_token = self.param("mask_token", nn.initializers.zeros, (self.width,), self.param_dtype)

    def make_embeddings(self, types: dict[str, Any], **others: Any) -> nn.Module:
        """Returns the stem."""
        return super().make_embeddings(types, registers=self.registers)

    def make_block(self, types: dict[str, Any]) -> nn.Module:
        """Returns a block."""
        sizes = (self.heads, self.mlp_width, self.epsilon)
        activation = "silu" if self.is_gated else self.activation
        return PreNormBlock(*sizes, activation=activation, is_scaled=True, is_gated=bool(self.is_gated), **types)


module = Dinov2
