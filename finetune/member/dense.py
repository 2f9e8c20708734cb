"""Dense layers of a running model in any framework: where something may be added to what they give."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import flax.linen as nn
import jax

# (path of the layer, components joined by "/", its input [..., d_in], its output [..., d_out]) -> what takes the place
# of its output
Hook = Callable[[str, jax.Array, jax.Array], jax.Array]

_hooks: ContextVar[tuple[Hook, ...]] = ContextVar("hooks", default=())


@contextlib.contextmanager
def at_dense(hook: Hook) -> Iterator[None]:
    """Applies `hook` at every dense layer of the models that run within; hooks entered later see what earlier made."""

    def intercept(call: Callable[..., Any], inputs: Any, keywords: Any, context: nn.module.InterceptorContext) -> Any:
        output = call(*inputs, **keywords)
        if isinstance(context.module, nn.Dense) and context.method_name == "__call__":
            return hook("/".join(context.module.path), inputs[0], output)
        return output

    token = _hooks.set((*_hooks.get(), hook))
    try:
        with nn.intercept_methods(intercept):
            yield
    finally:
        _hooks.reset(token)


def dense_output(path: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns what the hooks make of a dense layer's output; for layers that Linen's interception does not reach."""
    for hook in _hooks.get():
        y = hook(path, x, y)
    return y
