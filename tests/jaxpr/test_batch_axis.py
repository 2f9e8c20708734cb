"""Each function is judged twice: by its equations, and by what it computes when the other examples change."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune.jaxpr.batch_axis import SIZES, Mixed, axes_of
from finetune.jaxpr.program import alike, trace

X = (4, 6)  # shape of one example
TABLE = np.arange(30.0).reshape(10, 3)
KERNEL = np.linspace(-1, 1, 3 * 3 * 1 * 2).reshape(3, 3, 1, 2)


def scan_over_tokens(x):
    return jax.lax.scan(lambda carry, token: (carry + token, carry * token), jnp.zeros_like(x[:, 0]), x.swapaxes(0, 1))


def scan_over_examples(x):
    return jax.lax.scan(lambda carry, one: (carry + one, carry), jnp.zeros(X), x)[1]


def batch_norm(x):
    return (x - x.mean(0, keepdims=True)) / jnp.sqrt(x.var(0, keepdims=True) + 1)


def heads(x):
    y = x.reshape(len(x), 4, 2, 3).transpose(0, 2, 1, 3)
    return jnp.einsum("bhqd,bhkd->bhqk", y, jax.nn.softmax(y))


APART = {
    "elementwise": lambda x: jnp.tanh(x) * 2 + 1,
    "layer norm": lambda x: (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1),
    "product": lambda x: x @ jnp.ones((6, 2)),
    "product from the right": lambda x: jnp.einsum("ij,btj->itb", jnp.ones((5, 6)), x),
    "attention": heads,
    "tokens merged into the batch": lambda x: (x.reshape(-1, 6) @ jnp.ones((6, 2))).reshape(-1, 4, 2).sum(1),
    "lookup": lambda x: jnp.asarray(TABLE)[(x[:, :, 0] > 0).astype(int)],
    "one place of each": lambda x: x[:, 1],
    "a place of its own": lambda x: jnp.take_along_axis(x, jnp.argmax(x, 1, keepdims=True), 1),
    "convolution": lambda x: jax.lax.conv_general_dilated(
        x[..., None], jnp.asarray(KERNEL, x.dtype), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
    "pooling": lambda x: nn.max_pool(x[..., None], (2, 2), (2, 2)),
    "sort, cumsum, concatenate, pad": lambda x: jnp.pad(
        jnp.concatenate([jnp.sort(x), jnp.cumsum(x, 1)], -1), ((0, 0), (1, 0), (0, 2))
    ),
    "top k": lambda x: jax.lax.top_k(x, 2)[0],
    "class token": lambda x: jnp.concatenate([jnp.broadcast_to(jnp.ones((1, 1, 6)), (len(x), 1, 6)), x], 1),
    "scan over tokens": scan_over_tokens,
    "jit, remat, custom derivative": lambda x: jax.jit(jax.checkpoint(lambda x: jax.nn.relu(jax.nn.silu(x))))(x),
    "batch axis in the middle": lambda x: x.transpose(1, 0, 2)[::-1].sum(0),
}
TOGETHER = {
    "batch norm": batch_norm,
    "softmax over the batch": lambda x: jax.nn.softmax(x, axis=0),
    "neighbour": lambda x: jnp.roll(x, 1, 0),
    "other end": lambda x: x[::-1],
    "running sum": lambda x: jnp.cumsum(x, 0),
    "similarity": lambda x: jnp.einsum("btd,ctd->btc", x, x),
    "examples exchanged in a reshape": lambda x: x.transpose(1, 0, 2).reshape(len(x), 4, 6),
    "place in the batch": lambda x: x + jnp.arange(len(x))[:, None, None],
    "size of the batch": lambda x: x / len(x),
    "sorted batch": lambda x: jnp.sort(x, 0),
    "first half of all tokens": lambda x: x.reshape(-1, 6)[: 2 * len(x)],
    "first example": lambda x: x - x[:1],
    "scan over examples": scan_over_examples,
    "remat of batch norm": jax.checkpoint(batch_norm),
    "window over examples": lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.add, (2, 1, 1), (1, 1, 1), "SAME"),
}


def found(function):
    two, three = (trace(function, jax.ShapeDtypeStruct((size, *X), jnp.float32))[0] for size in SIZES)
    assert alike(two, three)
    axes = axes_of(two, three, [0])
    return [axes[value] for value in two.outputs]


def changes_with_others(function):
    """Says whether the outputs of example 1 change by one bit when other examples come before and after it."""
    random = np.random.default_rng(0)
    one, *others = random.normal(size=(5, *X))
    batches = [np.stack([others[0], one, others[1]]), np.stack([one, others[2], others[3], others[0]])]
    outputs = [jax.tree.leaves(jax.jit(function)(jnp.asarray(batch))) for batch in batches]
    axes = found(function)
    pairs = zip(*outputs, axes, strict=True)
    return any(
        not np.allclose(np.take(a, [1], axis), np.take(b, [0], axis), rtol=1e-6, atol=1e-6) for a, b, axis in pairs
    )


@pytest.mark.parametrize("name", APART)
def test_examples_are_followed_where_they_stay_apart(name):
    assert all(isinstance(axis, int) for axis in found(APART[name]))
    assert not changes_with_others(APART[name])


@pytest.mark.parametrize("name", TOGETHER)
def test_examples_that_meet_are_noticed(name):
    (axis,) = found(TOGETHER[name])
    assert isinstance(axis, Mixed)
    assert axis.reason


def test_the_reason_names_primitive_and_module():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.BatchNorm(use_running_average=False, name="statistics")(x)

    variables = Model().init(jax.random.key(0), jnp.zeros((2, *X)))
    (axis,) = found(lambda x: Model().apply(variables, x, mutable=["batch_stats"])[0])
    assert "reduce_sum" in axis.reason
    assert "statistics" in axis.reason


def test_an_unknown_primitive_counts_as_mixing():
    (axis,) = found(lambda x: jnp.fft.fft(x).real)
    assert isinstance(axis, Mixed)
    assert "fft" in axis.reason
