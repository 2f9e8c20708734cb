"""In what precision sums are taken: float32 or wider, whatever a model computes in."""

from typing import Any

import jax
import jax.numpy as jnp


def widened(tree: Any) -> Any:
    """Returns a tree of arrays with the floating ones in float32 or wider.

    A sum or a count in bfloat16 stops at 256 times what is added to it, in float16 it overflows at 65,504.
    """

    def wide(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)) if floating else leaf

    return jax.tree.map(wide, tree)
