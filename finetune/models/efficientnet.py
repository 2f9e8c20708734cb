"""EfficientNet-Lite (Tan and Le 2019, as Google's Lite0 has it) with a classifier on its pooled features.

Its batch norms always use the running averages of the weights: mean and variance are leaves that never train, scale and
bias train with `all`, `norm` and the block that they are in. Examples thus never influence each other, and what is
frozen is a trunk.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from finetune.errors import UserError
from finetune.member.dropout import Dropout
from finetune.member.task import Batch
from finetune.models.block import Dtype, at_least_float32, make_head
from finetune.models.convolution import Conv, DepthwiseConv, FrozenBatchNorm, pointwise
from finetune.models.pooling import pool

INPUT = "image"
STEM = ("stem",)
FIXED = ("**/mean", "**/variance")
# Sizes that the config gives, and what is added to them, when there is no checkpoint. Lite0 has width 32, of its first
# convolution, and depth 16; another width scales the channels of all layers.
SIZES = ("width", "depth")
DEFAULTS = {"epsilon": 1e-3}
_CHANNELS = (1, 3)  # grey, RGB
_STRIDE = 32  # pixels of the image for one position of the features


class Shape(NamedTuple):
    """A block: how much wider it is inside, its stride, the channels that it gives, the edge of its kernel."""

    expansion: int
    stride: int
    channels: int
    edge: int


# Blocks of each stage (Tan and Le 2019, table 1), and their shape.
_STAGES = (
    (1, Shape(1, 1, 16, 3)),
    (2, Shape(6, 2, 24, 3)),
    (2, Shape(6, 2, 40, 5)),
    (3, Shape(6, 2, 80, 3)),
    (3, Shape(6, 1, 112, 5)),
    (4, Shape(6, 2, 192, 5)),
    (1, Shape(6, 1, 320, 3)),
)
_STEM, _FEATURES = 32, 1280  # channels
_DEPTH = sum(repeats for repeats, _ in _STAGES)


def shapes(width: int, depth: int) -> Iterator[Shape]:
    """Yields the shape of the first `depth` blocks; the first of a stage has its stride, the others 1."""
    stages = [shape._replace(stride=1 if n else shape.stride) for repeats, shape in _STAGES for n in range(repeats)]
    for shape in stages[:depth]:
        yield shape._replace(channels=shape.channels * width // _STEM)


class Block(nn.Module):
    """A mobile inverted bottleneck without squeeze and excitation: expand, convolve each channel, project."""

    shape: Shape
    epsilon: float
    dtype: Dtype
    param_dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        inner = x
        if self.shape.expansion > 1:
            inner = pointwise(x.shape[-1] * self.shape.expansion, **types, name="expand")(x)
            inner = nn.relu6(FrozenBatchNorm(self.epsilon, self.param_dtype, name="expand_norm")(inner))
        inner = DepthwiseConv(self.shape.edge, self.shape.stride, **types, name="depthwise")(inner)
        inner = nn.relu6(FrozenBatchNorm(self.epsilon, self.param_dtype, name="depthwise_norm")(inner))
        inner = pointwise(self.shape.channels, **types, name="project")(inner)
        inner = FrozenBatchNorm(self.epsilon, self.param_dtype, name="project_norm")(inner)
        return x + inner if x.shape == inner.shape else inner


class Stem(nn.Module):
    """Scales pixels and gives the first convolution."""

    channels: int
    epsilon: float
    dtype: Dtype
    param_dtype: Dtype

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Returns [B, H / 2, W / 2, channels] from [B, H, W, 1 or 3]: uint8 becomes (x − 127) / 128, float is kept."""
        scaled = not jnp.issubdtype(image.dtype, jnp.floating)
        image = image.astype(at_least_float32(self.dtype) if scaled else self.dtype)
        image = ((image - 127) / 128 if scaled else image).astype(self.dtype)
        image = jnp.broadcast_to(image, (*image.shape[:3], max(_CHANNELS)))  # grey is RGB of equal parts
        x = Conv(self.channels, 3, 2, dtype=self.dtype, param_dtype=self.param_dtype, name="conv")(image)
        return nn.relu6(FrozenBatchNorm(self.epsilon, self.param_dtype, name="norm")(x))


class Features(nn.Module):
    """The last convolution, of one pixel."""

    channels: int
    epsilon: float
    dtype: Dtype
    param_dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = pointwise(self.channels, self.dtype, self.param_dtype, name="conv")(x)
        return nn.relu6(FrozenBatchNorm(self.epsilon, self.param_dtype, name="norm")(x))


class EfficientNet(nn.Module):
    """Image classifier; dropout acts on the input of the head, wherever `dropout_at` would have it."""

    classes: int
    width: int
    depth: int
    epsilon: float
    pooling: str = "mean"
    dropout_at: str = "head"
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    def setup(self) -> None:
        types: dict[str, Any] = {"epsilon": self.epsilon, "dtype": self.dtype, "param_dtype": self.param_dtype}
        self.stem = Stem(self.width, **types)
        # Flax names the entries of a list block_0, block_1, ...
        self.block = [Block(shape, **types) for shape in shapes(self.width, self.depth)]
        self.features = Features(_FEATURES * self.width // _STEM, **types)
        self.head_dropout = Dropout()
        self.head = make_head(self.classes, self.dtype, self.param_dtype)

    def __call__(self, batch: Batch, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        """Returns logits [B, classes], float32 or wider, for {"image": [B, H, W, 1 or 3]}."""
        x = self.stem(batch[INPUT])
        for block in self.block:
            x = block(x)
        x = self.features(x)
        positions = x.reshape(len(x), -1, x.shape[-1])
        pooled = pool(positions, jnp.ones(positions.shape[:2], bool), self.pooling)
        return self.head(self.head_dropout(pooled, rate, keys))


def image_shape(leaves: Mapping[str, Any], architecture: dict[str, Any]) -> None:
    """Returns None: images may have any shape that `check` allows, whatever those of the training were."""
    del leaves, architecture


def check(architecture: dict[str, Any], shape: tuple[int, ...]) -> None:
    """Raises UserError for sizes that the family does not have, and for images of `shape` [H, W, C] it cannot take."""
    width, depth = architecture["width"], architecture["depth"]
    if width % 4:
        raise UserError(f"model.width is {width}, allowed for an EfficientNet: multiples of 4; Lite0 has {_STEM}")
    if depth > _DEPTH:
        raise UserError(f"model.depth is {depth}, allowed for an EfficientNet: 1 to {_DEPTH}")
    if min(shape[:2]) < _STRIDE:
        raise UserError(
            f"images are {shape[0]} x {shape[1]} pixels, allowed: {_STRIDE} or more an edge; set data.image_size"
        )
    if shape[2] not in _CHANNELS:
        raise UserError(f"images have {shape[2]} channels, allowed for an EfficientNet: 1 (grey) or 3 (RGB)")


module = EfficientNet
