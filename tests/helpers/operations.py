"""What random programs are made of: operations on values of a few types, of batches of any size.

Types of values, of B examples; what has no B is without an axis of examples:
    x [B, W], y [W, B], z [B·W], t [B, T, W], k [W, W], c [W], s [] float64; i [B] int32 in [0, ROWS); l [B, W] bool
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.helpers.cuts import struct

WIDTH, TOKENS, ROWS, LAYERS = 4, 3, 5, 2
OPERATIONS = {}  # name -> (types that it takes, type that it gives, function of all leaves and its operands)


def with_leaves(takes, gives, **functions):
    for name, function in functions.items():
        assert name not in OPERATIONS, name
        OPERATIONS[name] = takes, gives, function


def define(takes, gives, **functions):
    for name, function in functions.items():
        with_leaves(takes, gives, **{name: lambda leaves, *values, function=function: function(*values)})


def layer(x, kernel):
    return jnp.tanh(x @ kernel)


@jax.custom_jvp
def bent(x):
    return jnp.sin(x)


@bent.defjvp
def _(primals, tangents):
    return bent(*primals), 3 * tangents[0]


@jax.custom_vjp
def doubled(x, table):
    return x * 1.5 + table[None], table * 2


doubled.defvjp(lambda x, table: (doubled(x, table), x), lambda x, gradients: (2 * gradients[0] * x, gradients[1]))


def key():
    return jax.random.key(3, impl="threefry2x32")


def batch_of(values):
    return values.shape[0]


# What keeps examples apart.
define(
    "x",
    "x",
    tanh=jnp.tanh,
    layer_norm=lambda x: (x - x.mean(1, keepdims=True)) / jnp.sqrt(x.var(1, keepdims=True) + 1),
    reversed_width=lambda x: x[:, ::-1],
    rolled_width=lambda x: jnp.roll(x, 1, 1),
    running_width=lambda x: jnp.cumsum(x, 1),
    sorted_width=lambda x: jnp.sort(x, 1),
    ranks=lambda x: x + jnp.argsort(x, 1),
    top=lambda x: jnp.pad(lax.top_k(x, 2)[0], ((0, 0), (0, WIDTH - 2))),
    nested_jit=lambda x: jax.jit(lambda x: jax.jit(jnp.cos)(x) + x)(x),
    bent=bent,
    mapped=lambda x: lax.map(lambda row: row * 2 - row.sum(), x),
    vmapped_while=lambda x: jax.vmap(lambda row: lax.while_loop(lambda r: r[0] < 0, lambda r: r * 0.5 + 1, row))(
        lax.stop_gradient(x)
    ),
    scan_of_width=lambda x: lax.scan(lambda c, v: (c + v, c * v), x[:, 0], x.T)[1].T,
    associative=lambda x: lax.associative_scan(jnp.add, x, axis=1),
    called_back=lambda x: jax.pure_callback(
        np.tanh, struct(x.shape, x.dtype), lax.stop_gradient(x), vmap_method="expand_dims"
    ),
    called_by_row=lambda x: jax.vmap(
        lambda row: jax.pure_callback(
            np.sin, struct((WIDTH,), x.dtype), lax.stop_gradient(row), vmap_method="sequential"
        )
    )(x),
    set_first=lambda x: x.at[:, 0].set(1.0),
    cube=lambda x: x**3 * 0.5,
    twofold=lambda x: x * 2.0,
    two_rows=lambda x: (
        x + jnp.cumsum(jnp.ones((2, WIDTH)), 1).sum(0, keepdims=True) + jnp.cumsum(jnp.ones((batch_of(x), WIDTH)), 1)
    ),
    updated_slice=lambda x: lax.dynamic_update_slice(x, jnp.zeros_like(x[:, :1]), (0, 1)),
)
define(
    "xx",
    "x",
    add=jnp.add,
    multiply=lambda a, b: a * b,
    joined=lambda a, b: jnp.concatenate([a, b], 1)[:, 1 : WIDTH + 1],
)
define(
    "xx",
    "x",
    barrier=lambda a, b: lax.optimization_barrier((a, jnp.arange(WIDTH), b))[2] + 1,
    swapped_loop=lambda a, b: lax.fori_loop(0, 3, lambda i, c: (c[1] + i, c[0]), (a, b))[0],
    attention=lambda a, b: jnp.einsum("bw,bv->bwv", a, b).sum(1),
)
define("xk", "x", product=lambda x, k: x @ k, layer=layer, twice=lambda x, k: layer(x, k) * (layer(x, k) + 1))
define(
    "xk",
    "x",
    remat=lambda x, k: jax.checkpoint(layer)(x, k),
    loop=lambda x, k: lax.fori_loop(0, 2, lambda i, x: layer(x, k) + i, x),
    loop_counter_kept=lambda x, k: (lambda out: out[1] * out[0])(
        lax.scan(lambda c, _: ((c[0] + 1, layer(c[1], k)), None), (1, x), length=2)[0]
    ),
    gradient=lambda x, k: jax.grad(lambda x: jnp.tanh(x @ k).sum())(x),
    sequential=lambda x, k: lax.map(lambda row: jnp.tanh(k @ row), x),
    sequential_twice=lambda x, k: layer(layer(x, k), k),
)
define(
    "xc",
    "x",
    shifted=lambda x, c: x + c[None],
    scaled=lambda x, c: c[None] * x,
    clipped=lambda x, c: jnp.minimum(x, c[None]),
)
define(
    "xc",
    "x",
    doubled=lambda x, c: (lambda out: out[0] * out[1][None])(doubled(x, c)),
    doubled_rest=lambda x, c: x + doubled(x, c)[1][None],
    remat_two=lambda x, c: (lambda out: out[0] - out[1][None])(jax.checkpoint(lambda x, c: (x * c[None], c + 1))(x, c)),
    scanned_table=lambda x, c: (lambda out: out[0] + out[1][None])(lax.scan(lambda carry, v: (carry * v, v + 1), x, c)),
)
define("xs", "x", plus=lambda x, s: x + s, times=lambda x, s: s * x)
define(
    "xs",
    "x",
    cond=lambda x, s: lax.cond(s > 0.3, lambda x: x * 2, lambda x: -x, x),
    cond_of_two=lambda x, s: (lambda out: out[0] * out[1])(
        lax.cond(s > 0.3, lambda x: (x, s), lambda x: (x + 1, 1.5), x)
    ),
    switch=lambda x, s: lax.switch(jnp.int32(s * 2), [jnp.tanh, lambda x: x * 3, lambda x: jnp.ones_like(x)], x),
    while_of_scalar=lambda x, s: lax.while_loop(
        lambda c: c[0] < 2, lambda c: (c[0] + 0.5 + c[0] ** 2, jnp.sin(c[1])), lax.stop_gradient((s, x))
    )[1],
    while_scaled=lambda x, s: (lambda out: out[0] * out[1])(
        lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 0.5 + c[0] ** 2, jnp.sin(c[1])), lax.stop_gradient((s, x)))
    ),
)
define(
    "xl",
    "x",
    where=lambda x, flags: jnp.where(flags, x, 0.5),
    where_either=lambda x, flags: jnp.where(flags.any(1, keepdims=True), x, -x),
)
define(
    "xi",
    "x",
    place_of_each=lambda x, i: x + jnp.take_along_axis(x, (i % WIDTH)[:, None], 1),
    numbered_place=lambda x, i: x + x[jnp.arange(batch_of(x)), i % WIDTH][:, None],
    sliced_by_each=lambda x, i: jnp.tile(jax.vmap(lambda r, j: lax.dynamic_slice(r, (j % 3,), (2,)))(x, i), (1, 2)),
    indexed_condition=lambda x, i: jax.vmap(lambda r, j: lax.cond(j > 2, jnp.sin, jnp.cos, r))(x, i),
    looped_by_each=lambda x, i: jax.vmap(lambda r, j: lax.fori_loop(0, j % 3, lambda _, r: jnp.sin(r), r))(
        lax.stop_gradient(x), i
    ),
    set_of_each=lambda x, i: x + jax.vmap(lambda r, j: r.at[j % WIDTH].set(2.0))(x, i),
    drawn_by_each=lambda x, i: x + jax.vmap(lambda j: jax.random.normal(jax.random.fold_in(key(), j), (WIDTH,)))(i),
    key_of_each=lambda x, i: x + jax.vmap(lambda k: jax.random.normal(k, (WIDTH,)))(jax.random.split(key(), ROWS)[i]),
    times_index=lambda x, i: x * i[:, None],
)
define("i", "i", next=lambda i: (i + 1) % ROWS, same=lambda i: i * 1)
define("l", "l", opposite=lambda flags: ~flags)
define("x", "l", positive=lambda x: x > 0.1)
define("x", "i", largest=lambda x: jnp.argmax(x, 1).astype(jnp.int32))
define("l", "x", as_number=lambda flags: flags.astype(jnp.float64))
define("x", "y", transposed=lambda x: x.T)
define("y", "x", back=lambda y: y.T)
define("y", "y", running_rows=lambda y: jnp.cumsum(y, 0), sine_y=jnp.sin, flipped_rows=lambda y: y[::-1])
define("yk", "y", product_y=lambda y, k: k @ y)
define("x", "z", merged=lambda x: x.reshape(-1))
define("z", "x", apart=lambda z: z.reshape(-1, WIDTH))
define("z", "z", sine_z=jnp.sin, sorted_z=jnp.sort, running_z=jnp.cumsum)
define("zc", "z", tiled=lambda z, c: z * jnp.tile(c, len(z) // WIDTH))
define("xc", "t", tokens=lambda x, c: x[:, None] + (jnp.arange(TOKENS)[:, None] * c[None])[None])
define("t", "x", summed=lambda t: t.sum(1), first=lambda t: t[:, 0], longest=lambda t: t.max(1))
define("t", "z", merged_tokens=lambda t: t.sum(1).reshape(-1))
define(
    "t",
    "t",
    running_tokens=lambda t: jnp.cumsum(t, 1),
    class_token=lambda t: jnp.concatenate([jnp.ones_like(t[:, :1]), t[:, 1:]], 1),
)
define(
    "t", "t", token_scan=lambda t: lax.scan(lambda c, v: (c + v, c * v), t[:, 0], t.swapaxes(0, 1))[1].swapaxes(0, 1)
)
define("tk", "t", flat_layer=lambda t, k: layer(t.reshape(-1, WIDTH), k).reshape(-1, TOKENS, WIDTH))
define("ti", "x", token_of_each=lambda t, i: jnp.take_along_axis(t, (i % TOKENS)[:, None, None], 1)[:, 0])
define("c", "c", sine_c=jnp.sin, positions=lambda c: c + jnp.arange(WIDTH), running_c=jnp.cumsum)
define("c", "c", counted=lambda c: lax.fori_loop(0, 2, lambda i, c: c + i, c), again=lambda c: jnp.sin(c) + jnp.sin(c))
define("c", "c", called_constant=lambda c: jax.pure_callback(np.cos, struct(c.shape, c.dtype), lax.stop_gradient(c)))
define("c", "c", drawn=lambda c: c + jax.random.normal(key(), (WIDTH,), jnp.float64))
define("kc", "c", product_c=lambda k, c: k @ c)
define("c", "s", summed_c=lambda c: jnp.sin(c.sum()))
define("s", "s", half=lambda s: s * 0.5, doubled_s=lambda s: s * 2.0, root=lambda s: jnp.sqrt(s * s + 1))
define("k", "k", transposed_k=jnp.transpose, product_k=lambda k: k @ k * 0.5)
with_leaves("i", "x", lookup=lambda leaves, i: leaves["table"][i])
define("i", "x", one_hot=lambda i: jax.nn.one_hot(i, WIDTH, dtype=jnp.float64))
with_leaves("x", "x", stack=lambda leaves, x: lax.scan(lambda x, k: (layer(x, k), x.sum(1)), x, leaves["layers"])[0])
with_leaves(
    "x",
    "x",
    stack_sums=lambda leaves, x: (
        x + lax.scan(lambda x, k: (layer(x, k), x.sum(1)), x, leaves["layers"])[1].T.sum(1, keepdims=True)
    ),
)
with_leaves(
    "x", "x", counted_stack=lambda leaves, x: lax.fori_loop(0, LAYERS, lambda i, x: layer(x, leaves["layers"][i]), x)
)
with_leaves(
    "x",
    "x",
    frozen_bound=lambda leaves, x: lax.fori_loop(
        0, leaves["steps"], lambda i, x: layer(x, lax.stop_gradient(leaves["layers"])[i]) + i, lax.stop_gradient(x)
    ),
)


def dropout(leaves, x):
    if leaves["keys"] is None:
        return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - leaves["rate"], (WIDTH,)))(leaves["keys"])
    return jnp.where(keep, x / (1 - leaves["rate"]), 0)


def dropout_in_stack(leaves, x):
    def body(x, scanned):
        kernel, place = scanned
        if leaves["keys"] is not None:
            keys = jax.vmap(jax.random.fold_in, (0, None))(leaves["keys"], place)
            keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - leaves["rate"], (WIDTH,)))(keys)
            x = jnp.where(keep, x, 0)
        return layer(x, kernel), None

    return lax.scan(body, x, (leaves["layers"], jnp.arange(LAYERS)))[0]


with_leaves("x", "x", dropout=dropout, dropout_in_stack=dropout_in_stack)

# What does not keep them apart, or depends on how many there are.
define(
    "x",
    "x",
    centred=lambda x: x - x.mean(0, keepdims=True),
    normalised=lambda x: (x - x.mean(0, keepdims=True)) / jnp.sqrt(x.var(0, keepdims=True) + 1),
    summed_batch=lambda x: x + x.sum(0, keepdims=True),
    reversed_batch=lambda x: x[::-1],
    rolled_batch=lambda x: jnp.roll(x, 1, 0),
    running_batch=lambda x: jnp.cumsum(x, 0),
    sorted_batch=lambda x: jnp.sort(x, 0),
    first_example=lambda x: x - x[:1],
    joined_batch=lambda x: jnp.concatenate([x, x + 1], 0)[1 : batch_of(x) + 1],
    doubled_batch=lambda x: jnp.concatenate([x, x + 1], 0).reshape(2, -1, WIDTH).sum(0),
    similarity=lambda x: x @ x.T @ x * 0.1,
    numbered=lambda x: x + jnp.arange(batch_of(x))[:, None],
    sized=lambda x: x * batch_of(x),
    sized_power=lambda x: x + (jnp.abs(x) + 1) ** -batch_of(x),
    sized_column=lambda x: x + x[:, batch_of(x) % WIDTH][:, None],
    sized_column_of_few=lambda x: x + x[:, min(batch_of(x) // 4, WIDTH - 1)][:, None],
    sized_of_few=lambda x: x * max(batch_of(x) // 4, 1),
    sized_roll=lambda x: jnp.roll(x, batch_of(x), 1),
    sized_scan=lambda x: lax.fori_loop(0, batch_of(x), lambda i, x: x * 0.5 + 1, x),
    unrolled_batch=lambda x: x + sum(jnp.sin(row) for row in x)[None],
    exchanged=lambda x: x.T.reshape(-1, WIDTH),
    scan_of_batch=lambda x: lax.scan(lambda c, row: (c + row, c), jnp.zeros(WIDTH), x)[1],
    batch_condition=lambda x: lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x),
    square=lambda x: (x.T if batch_of(x) == WIDTH else x) * 1.0,
)
define("x", "c", example_mean=lambda x: x.mean(0), last_example=lambda x: x[-1])
define("xc", "c", sized_loop_c=lambda x, c: lax.fori_loop(0, batch_of(x), lambda i, c: c * 0.5 + i, c))
define("xc", "c", sized_power_c=lambda x, c: c + (jnp.abs(c) + 1) ** -batch_of(x))
define("xc", "c", sized_place=lambda x, c: c + lax.slice_in_dim(c, batch_of(x) % 3, batch_of(x) % 3 + 1))
define("xs", "s", sized_s=lambda x, s: s * batch_of(x), sized_2=lambda x, s: s + 1 / batch_of(x))
define("x", "s", total=lambda x: jnp.sin(x.sum()))
define("l", "x", any_flag=lambda flags: (flags | flags.any(0, keepdims=True)).astype(jnp.float64))
define("y", "y", sorted_batch_y=lambda y: jnp.sort(y, 1), running_batch_y=lambda y: jnp.cumsum(y, 1))
define("i", "i", sorted_ids=jnp.sort, running_ids=lambda i: jnp.cumsum(i) % ROWS)
