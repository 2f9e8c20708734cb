"""ResNet (He et al. 2015), with a classifier on its mean over positions.

Its batch norms use the running averages of the weights, which never train, so that examples never influence each other
and what is frozen is a trunk; their scale and bias train as other leaves do. Live ones use the statistics of the batch
where their scale and bias train, and move their averages.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from finetune.models.block import ACTIVATIONS, Dtype
from finetune.models.convolution import Conv, FrozenBatchNorm, pointwise, windows
from finetune.models.stages import INPUT, SIZES, STEM, Staged, check_images, image_shape

__all__ = ["INPUT", "SIZES", "STEM", "check", "image_shape", "module"]
FIXED = ("**/mean", "**/variance")
_EPSILON, _MOMENTUM = 1e-5, 0.9
_INNER = "relu"  # inside of a block, in transformers whatever the settings say
_NARROWER = 4  # channels in the middle of a bottleneck are that many times fewer


class ConvNorm(nn.Module):
    """A convolution without bias, normalised; activation: behind it, "" = none."""

    width: int
    edge: int
    stride: int
    activation: str
    is_live: bool
    dtype: Dtype
    param_dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype, "name": "conv"}
        if self.edge == 1:
            x = pointwise(self.width, **types)(x[:, :: self.stride, :: self.stride])
        else:
            x = Conv(self.width, self.edge, self.stride, is_symmetric=True, **types)(x)
        x = self._norm()(x)
        return ACTIVATIONS[self.activation](x) if self.activation else x

    def _norm(self) -> nn.Module:
        if not self.is_live:
            return FrozenBatchNorm(_EPSILON, self.param_dtype, name="norm")
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        return nn.BatchNorm(use_running_average=True, momentum=_MOMENTUM, epsilon=_EPSILON, name="norm", **types)


class Embeddings(nn.Module):
    """A convolution of every second position, and of every second of these the largest near it."""

    width: int
    activation: str
    is_live: bool
    dtype: Dtype
    param_dtype: Dtype

    def setup(self) -> None:
        self.layer = ConvNorm(self.width, 7, 2, self.activation, self.is_live, self.dtype, self.param_dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.layer(x)
        lowest = float(jnp.finfo(x.dtype).min)
        return jnp.stack(windows(x, 3, 2, is_symmetric=True, fill=lowest)).max(axis=0)


class Block(nn.Module):
    """x ← activation(x + convolutions(x)): two of 3 x 3 positions, or in a bottleneck one between two of a position.

    strides_early: whether a bottleneck takes its step in the first, or in the second.
    """

    width: int
    stride: int
    activation: str
    is_bottleneck: bool
    strides_early: bool
    is_live: bool
    dtype: Dtype
    param_dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        types = (self.is_live, self.dtype, self.param_dtype)
        inner, stride = x, self.stride
        layers = [(self.width, 3, stride, _INNER), (self.width, 3, 1, "")]
        if self.is_bottleneck:
            narrow, (early, late) = self.width // _NARROWER, (stride, 1) if self.strides_early else (1, stride)
            layers = [(narrow, 1, early, _INNER), (narrow, 3, late, _INNER), (self.width, 1, 1, "")]
        for number, layer in enumerate(layers):
            inner = ConvNorm(*layer, *types, name=f"layer_{number}")(inner)
        if x.shape[-1] != self.width or stride > 1:
            x = ConvNorm(self.width, 1, stride, "", *types, name="shortcut")(x)
        return ACTIVATIONS[self.activation](x + inner)


class Resnet(Staged):
    """Image classifier; strides_first: whether the first stage halves rows and columns too. is_live: batch norms."""

    activation: str = "relu"
    stem_width: int = 64
    is_bottleneck: int = 1
    strides_first: int = 0
    strides_early: int = 0
    is_live: int = 0

    def make_embeddings(self, types: dict[str, Any]) -> nn.Module:
        """Returns the stem."""
        return Embeddings(self.stem_width, self.activation, bool(self.is_live), **types)

    def make_block(self, stage: int, index: int, types: dict[str, Any]) -> nn.Module:
        """Returns a block; `index` counts from the first of its stage."""
        stride = 2 if index == 0 and (stage > 0 or self.strides_first) else 1
        kind = (bool(self.is_bottleneck), bool(self.strides_early), bool(self.is_live))
        return Block(self.widths[stage], stride, self.activation, *kind, **types)


def check(architecture: dict[str, Any], shape: tuple[int, ...]) -> None:
    """Raises UserError for images of `shape` [H, W, C] of which little is left, or with other channels."""
    check_images(architecture, shape, 4 * 2 ** (len(architecture["depths"]) - 1))


module = Resnet
