"""Random small programs f(trainable, frozen, batch), composed of what models are made of and of what breaks splits.

A program is a list of steps, each a function of the rows computed so far; the last rows meet the trainable leaf. All is
float64. `example` says which rows enter, and every step keeps [B, WIDTH] rows.
"""

import jax
import jax.numpy as jnp
import numpy as np

WIDTH = 3  # as large as one of the batches that programs are traced with, so that axes may be confused

EXAMPLE = {
    "x": jax.ShapeDtypeStruct((WIDTH,), jnp.float64),
    "token": jax.ShapeDtypeStruct((), jnp.int32),
}


@jax.custom_jvp
def _bent(x):
    return jnp.tanh(x)


_bent.defjvp(lambda primals, tangents: (_bent(*primals), 0.5 * tangents[0]))


@jax.custom_vjp
def _scaled(x):
    return 2.0 * x


_scaled.defvjp(lambda x: (2.0 * x, None), lambda _, g: (3.0 * g,))


def _layer(w, x):
    return jnp.tanh(x @ w)


def _counted(x, w):
    return jax.lax.fori_loop(0, 3, lambda i, h: jnp.sin(h @ w + i), x)


def _as_often_as_a_leaf_says(x, w):
    return jax.lax.fori_loop(0, 1 + (w[0, 0] > 0).astype(int), lambda i, h: h @ w + i, x)


def _until(x, w):
    return jax.lax.while_loop(lambda carry: carry[0] < 4, lambda carry: (carry[0] + 1, carry[1] * 0.9), (0, x))[1]


def _until_small(x, w):  # as often as the largest example says: they influence each other
    return jax.lax.while_loop(lambda h: jnp.abs(h).max() > 0.5, lambda h: 0.5 * h, x)


def _until_each_is_small(x, w):
    one = lambda row: jax.lax.while_loop(lambda h: jnp.abs(h).max() > 0.5, lambda h: 0.5 * h, row)  # noqa: E731
    return jax.vmap(one)(x)


def _counter_comes_out(x, w):
    count, rows = jax.lax.fori_loop(0, 2, lambda i, carry: (carry[0] + 1, jnp.cos(carry[1])), (0, x))
    return rows * count


def _scanned(x, w):
    stacked = jnp.stack([w, w.T])
    final, each = jax.lax.scan(lambda h, layer: (_layer(layer, h), h.sum(-1)), x, stacked)
    return final + each[0][:, None]


def _scanned_over_columns(x, w):
    return jax.lax.scan(lambda h, column: (h + column, column * h), x[:, 0], x.T)[1].T


def _scanned_over_examples(x, w):
    return jax.lax.scan(lambda h, row: (h + row, row - h), x[0], x)[1]


def _branch(x, w):
    return jax.lax.cond(w[0, 0] > 0, lambda h: h @ w, lambda h: -h, x)


def _branch_by_batch(x, w):
    return jax.lax.cond(x.sum() > 0, lambda h: h @ w, lambda h: -h, x)


def _mean_of_batch(x, w):
    return x - x.mean(0, keepdims=True)


def _callback(x, w):
    sort = lambda a: np.asarray(np.sort(a))  # noqa: E731
    return x + jax.pure_callback(sort, jax.ShapeDtypeStruct((WIDTH,), w.dtype), w[0])[None]


def _two_callbacks(x, w):
    shape = jax.ShapeDtypeStruct((), w.dtype)
    first = jax.pure_callback(lambda a: np.float64(2.0), shape, w)
    return x * first + jax.pure_callback(lambda a: np.float64(3.0), shape, w)


def _turned(x, w):
    return (w @ x.T).T


def _merged(x, w):
    return jnp.reshape(jnp.reshape(x, (-1, 1)) * w[:1], (-1, WIDTH, WIDTH)).sum(2)


def _merged_wrongly(x, w):
    return jnp.reshape(x.T, (-1, WIDTH))


def _looked_up(x, w):
    return w[jnp.argmax(x, axis=-1)] + x


def _own_window(x, w):
    take = lambda row: jax.lax.dynamic_slice(row, (jnp.argmin(row),), (1,))  # noqa: E731
    return x + jax.vmap(take)(x)


def _places(x, w):
    return x + jnp.arange(x.shape[0])[:, None]


def _pairs(x, w):
    return (x @ x.T) @ x


def _apart(x, w):
    return jnp.concatenate([x, x[:, :1]], axis=1)[:, 1:]


def _under_one_another(x, w):
    return jnp.concatenate([x[1:], x[:1]], axis=0)


STEPS = {
    "layer": lambda x, w: _layer(w, x),
    "layer twice on one input": lambda x, w: _layer(w, x) + jnp.cos(_layer(w, x)),
    "a layer of a layer": lambda x, w: _layer(w, _layer(w, x)),
    "jit": lambda x, w: jax.jit(_layer)(w, x),
    "remat": lambda x, w: jax.checkpoint(_layer)(w, x),
    "custom jvp": lambda x, w: _bent(x),
    "custom vjp": lambda x, w: _scaled(x @ w),
    "counted loop": _counted,
    "loop as long as a leaf says": _as_often_as_a_leaf_says,
    "while": _until,
    "while of the batch": _until_small,
    "while of each": _until_each_is_small,
    "counter comes out": _counter_comes_out,
    "scan": _scanned,
    "scan over columns": _scanned_over_columns,
    "scan over examples": _scanned_over_examples,
    "cond": _branch,
    "cond by batch": _branch_by_batch,
    "mean of the batch": _mean_of_batch,
    "callback": _callback,
    "two callbacks": _two_callbacks,
    "turned": _turned,
    "merged": _merged,
    "merged wrongly": _merged_wrongly,
    "looked up": _looked_up,
    "own window": _own_window,
    "places in the batch": _places,
    "pairs of examples": _pairs,
    "beside one another": _apart,
    "under one another": _under_one_another,
    "reversed columns": lambda x, w: x[:, ::-1],
    "reversed examples": lambda x, w: x[::-1],
    "rolled examples": lambda x, w: jnp.roll(x, 1, axis=0),
    "sorted columns": lambda x, w: jnp.sort(x, axis=1),
    "sorted examples": lambda x, w: jnp.sort(x, axis=0),
    "summed columns": lambda x, w: jnp.cumsum(x, axis=1),
    "summed examples": lambda x, w: jnp.cumsum(x, axis=0),
    "rounded to integers": lambda x, w: jnp.floor(3 * x).astype(jnp.int32).astype(x.dtype) @ w,
    "masked": lambda x, w: jnp.where(x > 0, x, 0.1 * x) @ w,
    "stopped": lambda x, w: jax.lax.stop_gradient(x @ w),
    "mapped": lambda x, w: jax.lax.map(lambda row: row @ w, x),
    "mapped by vmap": lambda x, w: jax.vmap(lambda row: jnp.linalg.norm(row) * row)(x),
    "passed through": lambda x, w: x,
}
MIXING = {  # steps in which examples influence each other, or depend on their place in the batch
    "while of the batch", "scan over examples", "cond by batch", "mean of the batch", "merged wrongly",
    "places in the batch", "pairs of examples", "under one another", "reversed examples", "rolled examples",
    "sorted examples", "summed examples",
}  # fmt: skip


def forward_of(names, shared, trains):
    """Returns a `Forward` of these steps; shared: all use one leaf; trains: the place of the step that trains."""

    def forward(params, frozen, batch, dropout, keys):
        leaves = {**frozen, **params}
        rows = batch["x"] + leaves["table"][batch["token"]]
        for place, name in enumerate(names):
            rows = STEPS[name](rows, leaves["layer_0" if shared else f"layer_{place}"])
            if place == trains:
                rows = rows * leaves["scale"][None]
        return {"logits": rows * leaves["scale"][None], "features": rows.sum(-1)}

    return forward


def leaves_of(names, rng):
    """Returns (trainable, frozen) leaves."""
    frozen = {f"layer_{place}": jnp.asarray(rng.normal(0, 0.6, (WIDTH, WIDTH))) for place in range(len(names))}
    frozen["table"] = jnp.asarray(rng.normal(0, 1.0, (5, WIDTH)))
    return {"scale": jnp.asarray(rng.normal(1.0, 0.1, WIDTH))}, frozen


def batch_of(size, rng):
    return {
        "x": jnp.asarray(rng.normal(0, 1.0, (size, WIDTH))),
        "token": jnp.asarray(rng.integers(0, 5, size), jnp.int32),
    }
