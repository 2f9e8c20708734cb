"""Convolutions without those of XLA, and the batch norm that nets of them have.

On CPU XLA's depthwise ones took 0.21 s for 32 images of 64 pixels where sums over shifted images take 0.02 s (2.2 and
0.38 s at 224 pixels), and it is slow again with a kernel for each member or in a loop on the device.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from finetune.models.block import Dtype


class FrozenBatchNorm(nn.Module):
    """x ← scale · (x − mean) / sqrt(variance + epsilon) + bias, with the mean and the variance of the weights."""

    epsilon: float
    param_dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        scale, bias, mean, variance = (
            self.param(name, init, x.shape[-1:], self.param_dtype)
            for name, init in (("scale", ones), ("bias", zeros), ("mean", zeros), ("variance", ones))
        )
        factor = scale * jax.lax.rsqrt(variance + self.epsilon)
        shift = bias - mean * factor
        row = (1,) * (x.ndim - 1) + x.shape[-1:]
        return x * factor.reshape(row).astype(x.dtype) + shift.reshape(row).astype(x.dtype)


def windows(x: jax.Array, edge: int, stride: int, is_symmetric: bool = False, fill: float = 0.0) -> list[jax.Array]:
    """Returns `x` [B, H, W, C] shifted by every offset of a kernel, row by row: edge² arrays [B, H', W', C].

    Padded with `fill`: as TensorFlow's "SAME", the odd one behind, or, is_symmetric, as much in front as behind, which
    is as PyTorch does it. H' is H / stride, rounded up.
    """
    sizes = [-(-size // stride) for size in x.shape[1:3]]
    missing = [max((out - 1) * stride + edge - size, 0) for out, size in zip(sizes, x.shape[1:3], strict=True)]
    before = [edge // 2 if is_symmetric else less // 2 for less in missing]
    behind = [max(less - front, 0) for less, front in zip(missing, before, strict=True)]
    padded = jnp.pad(x, ((0, 0), *zip(before, behind, strict=True), (0, 0)), constant_values=fill)
    rows, columns = ((out - 1) * stride + 1 for out in sizes)
    return [
        padded[:, row : row + rows : stride, column : column + columns : stride]
        for row in range(edge)
        for column in range(edge)
    ]


class Conv(nn.Module):
    """A convolution over all channels, kernel [edge, edge, in, out], as one product over the shifted images."""

    channels: int
    edge: int
    stride: int
    dtype: Dtype
    param_dtype: Dtype
    is_symmetric: bool = False  # see `windows`

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.edge, self.edge, x.shape[-1], self.channels)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape, self.param_dtype).astype(self.dtype)
        patches = jnp.concatenate(windows(x, self.edge, self.stride, self.is_symmetric), axis=-1)
        return patches @ kernel.reshape(-1, self.channels)


class DepthwiseConv(nn.Module):
    """A convolution of each channel alone, kernel [edge, edge, channels], as a sum over the shifted images."""

    edge: int
    stride: int
    dtype: Dtype
    param_dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.variance_scaling(2.0, "fan_in", "normal", in_axis=(0, 1), out_axis=(), batch_axis=(2,))
        shape = (self.edge, self.edge, x.shape[-1])
        kernel = self.param("kernel", init, shape, self.param_dtype).astype(self.dtype)
        weights = kernel.reshape(self.edge**2, 1, 1, 1, -1)
        shifted = windows(x, self.edge, self.stride)
        return sum((image * weights[n] for n, image in enumerate(shifted[1:], 1)), shifted[0] * weights[0])


def pointwise(channels: int, dtype: Dtype, param_dtype: Dtype, name: str) -> nn.Dense:
    """Returns a convolution of one pixel, which is a dense layer without bias."""
    init = nn.initializers.he_normal()
    return nn.Dense(channels, use_bias=False, dtype=dtype, param_dtype=param_dtype, kernel_init=init, name=name)
