"""The transformer block: attention and MLP, each on a residual branch, normalised after (BERT) or before (ViT)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from finetune.member.dropout import Dropout

Dtype = Any
Initializer = Callable[..., jax.Array]
Project = Callable[[str, jax.Array], jax.Array]
# (query [B, H, T, d], key [B, H, T, d], project) -> [B, H, T, T], before they are scaled by d**-0.5. project(name, x):
# what the layer called `name` makes of other x [B, T, D], as heads.
Score = Callable[[jax.Array, jax.Array, Project], jax.Array]
# By transformers' names. Theirs of gelu_new and gelu_pytorch_tanh is the tanh form, of quick_gelu that of CLIP.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
}


def at_least_float32(dtype: Dtype) -> jnp.dtype:
    """Returns the dtype of statistics, softmax and logits when the computation runs in `dtype`."""
    return jnp.promote_types(dtype, jnp.float32)


def layer_norm(
    epsilon: float, dtype: Dtype, param_dtype: Dtype, name: str | None = None, use_bias: bool = True
) -> nn.LayerNorm:
    """Returns a layer norm with two-pass statistics in float32 or wider."""
    types = {"dtype": dtype, "param_dtype": param_dtype}
    return nn.LayerNorm(epsilon, use_bias=use_bias, use_fast_variance=False, name=name, **types)


def make_head(classes: int, dtype: Dtype, param_dtype: Dtype) -> nn.Dense:
    """Returns the layer that makes outputs [..., classes], float32 or wider, of what is pooled."""
    init = nn.initializers.truncated_normal(0.02)
    return nn.Dense(classes, dtype=at_least_float32(dtype), param_dtype=param_dtype, kernel_init=init)


def dot_product(query: jax.Array, key: jax.Array, project: Project) -> jax.Array:
    """Returns what positions score for each other by content alone, as `Score` says."""
    return jnp.einsum("bhqd,bhkd->bhqk", query, key)


class Attention(nn.Module):
    """Multi-head self-attention; kernels are stored [width, width]."""

    heads: int
    dtype: Dtype
    param_dtype: Dtype
    kernel_init: Initializer
    use_bias: bool = True

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        valid: jax.Array | None,
        rate: jax.Array | float,
        keys: jax.Array | None,
        score: Score = dot_product,
        asking: jax.Array | None = None,
    ) -> jax.Array:
        """Returns [B, T, D] from `x` [B, T, D]; positions where `valid` [B, T] is False are not attended to.

        asking: [B, Q, D], what attends to x in place of x itself; the result is then [B, Q, D].
        """
        asking = x if asking is None else asking
        batch, tokens, width = asking.shape
        head_width = width // self.heads
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype, "kernel_init": self.kernel_init}
        names = ("query", "key", "value", "output")
        dense = {name: nn.Dense(width, self.use_bias, name=name, **types) for name in names}

        # (batch, head, token, dim): products in this layout are faster on CPU than in (batch, token, head, dim).
        def project(name: str, x: jax.Array) -> jax.Array:
            return dense[name](x).reshape(*x.shape[:2], self.heads, head_width).transpose(0, 2, 1, 3)

        query, key, value = project("query", asking), project("key", x), project("value", x)
        scores = score(query, key, project).astype(at_least_float32(self.dtype)) * head_width**-0.5
        if valid is not None:
            scores = jnp.where(valid[:, None, None, :], scores, jnp.finfo(scores.dtype).min)
        weights = jax.nn.softmax(scores).astype(self.dtype)
        weights = Dropout(name="dropout")(weights, rate, keys)
        mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, value).transpose(0, 2, 1, 3).reshape(batch, tokens, width)
        return dense["output"](mixed)


class Mlp(nn.Module):
    """Two dense layers with an activation between them."""

    hidden: int
    activation: Callable[[jax.Array], jax.Array]
    dtype: Dtype
    param_dtype: Dtype
    kernel_init: Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = partial(nn.Dense, dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=self.kernel_init)
        return dense(x.shape[-1], name="down")(self.activation(dense(self.hidden, name="up")(x)))


class GatedMlp(nn.Module):
    """x ← down(activation(up x) · gate x) (Shazeer 2020)."""

    hidden: int
    activation: str
    dtype: Dtype
    param_dtype: Dtype
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.truncated_normal(0.02)
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype, "kernel_init": init}
        dense = partial(nn.Dense, use_bias=self.use_bias, **types)
        up = ACTIVATIONS[self.activation](dense(features=self.hidden, name="up")(x))
        return dense(features=x.shape[-1], name="down")(up * dense(features=self.hidden, name="gate")(x))


class PostNormBlock(nn.Module):
    """x ← norm(x + branch(x)), as in BERT (Devlin et al. 2018)."""

    heads: int
    mlp_width: int
    epsilon: float
    dtype: Dtype
    param_dtype: Dtype
    activation: str = "gelu"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        valid: jax.Array | None,
        rate: jax.Array | float,
        keys: jax.Array | None,
        score: Score = dot_product,
    ) -> jax.Array:
        """Returns [B, T, D] from `x` [B, T, D]; arguments as of `Attention`."""
        types = (self.dtype, self.param_dtype)
        init = nn.initializers.truncated_normal(0.02)
        branch = Attention(self.heads, *types, init, name="attention")(x, valid, rate, keys, score)
        branch = Dropout(name="attention_dropout")(branch, rate, keys)
        x = layer_norm(self.epsilon, *types, name="attention_norm")(x + branch)
        branch = Mlp(self.mlp_width, ACTIVATIONS[self.activation], *types, init, name="mlp")(x)
        branch = Dropout(name="mlp_dropout")(branch, rate, keys)
        return layer_norm(self.epsilon, *types, name="mlp_norm")(x + branch)


class PreNormBlock(nn.Module):
    """x ← x + scale · branch(norm(x)), as in ViT (Dosovitskiy et al. 2020).

    is_scaled: whether branches have a scale (Touvron et al. 2021); else it is 1. is_gated: whether the MLP is.
    """

    heads: int
    mlp_width: int
    epsilon: float
    dtype: Dtype
    param_dtype: Dtype
    activation: str = "gelu_pytorch_tanh"
    is_scaled: bool = False
    is_gated: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, valid: jax.Array | None, rate: jax.Array | float, keys: jax.Array | None
    ) -> jax.Array:
        """Returns [B, T, D] from `x` [B, T, D]; arguments as of `Attention`."""
        types = (self.dtype, self.param_dtype)
        init = nn.initializers.xavier_uniform()
        branch = layer_norm(self.epsilon, *types, name="attention_norm")(x)
        branch = Attention(self.heads, *types, init, name="attention")(branch, valid, rate, keys)
        x = x + Dropout(name="attention_dropout")(self._scaled("attention_scale", branch), rate, keys)
        branch = layer_norm(self.epsilon, *types, name="mlp_norm")(x)
        if self.is_gated:
            branch = GatedMlp(self.mlp_width, self.activation, *types, use_bias=True, name="mlp")(branch)
        else:
            branch = Mlp(self.mlp_width, ACTIVATIONS[self.activation], *types, init, name="mlp")(branch)
        return x + Dropout(name="mlp_dropout")(self._scaled("mlp_scale", branch), rate, keys)

    def _scaled(self, name: str, branch: jax.Array) -> jax.Array:
        if not self.is_scaled:
            return branch
        return branch * vector(self, name, branch.shape[-1], nn.initializers.ones)[None, None]


def vector(module: Any, name: str, width: int, init: Initializer) -> jax.Array:
    """Returns a parameter [width] of a module that has `dtype` and `param_dtype`, in its dtype."""
    return module.param(name, init, (width,), module.param_dtype).astype(module.dtype)
