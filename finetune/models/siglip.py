"""The tower of images of SigLIP (Zhai et al. 2023): a ViT without class token, pooled by a query that is learned."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from finetune.member.task import Batch
from finetune.models.block import ACTIVATIONS, Attention, Dtype, Mlp, layer_norm, vector
from finetune.models.vit import FIXED, INPUT, SIZES, STEM, Vit, check, image_shape

__all__ = ["FIXED", "INPUT", "SIZES", "STEM", "check", "image_shape", "module"]


class AttentionPooler(nn.Module):
    """One query attends to all positions (Lee et al. 2019); what comes of it passes an MLP on a residual branch."""

    heads: int
    mlp_width: int
    epsilon: float
    activation: str
    dtype: Dtype
    param_dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        """Returns [B, 1, D] from `x` [B, T, D]."""
        types, init = (self.dtype, self.param_dtype), nn.initializers.xavier_uniform()
        probe = vector(self, "probe", x.shape[2], nn.initializers.truncated_normal(0.02))
        probe = jnp.broadcast_to(probe[None, None], (len(x), 1, x.shape[2]))
        x = Attention(self.heads, *types, init, name="attention")(x, None, rate, keys, asking=probe)
        branch = layer_norm(self.epsilon, *types, name="norm")(x)
        return x + Mlp(self.mlp_width, ACTIVATIONS[self.activation], *types, init, name="mlp")(branch)


class SiglipVision(Vit):
    """Image classifier; its `first` and only position is what the pooler gives."""

    def setup(self) -> None:
        super().setup()
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.pooler = AttentionPooler(self.heads, self.mlp_width, self.epsilon, self.activation, **types)

    def pooled(self, batch: Batch, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        """Returns what the head reads, [B, D]."""
        inner_keys = keys if self.dropout_at == "all" else None
        return self.pooler(self.hidden(batch, rate, keys), rate, inner_keys)[:, 0]


module = SiglipVision
